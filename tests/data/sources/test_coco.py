"""COCO instance files: polygons, run lengths, and files that are not to be trusted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bird_hf.data.sources.coco import fill_polygon, mask_of, unpack_runs
from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.data.sources.open import open_source

from .example_sources import NOISE, SIDE, listed, save


def coco(root: Path, annotations: list[dict], file_name: str = "a.png") -> Path:
    (root / "labels.yaml").write_text(
        "dataset: scopes\nmodality: endoscopy\nregion: colon\nannotations: coco.json\n"
    )
    save(root / "images" / "a.png", NOISE)
    content = {
        "images": [{"id": 7, "file_name": file_name, "width": SIDE, "height": SIDE}],
        "categories": [{"id": 1, "name": "polyp"}],
        "annotations": [{"id": n, "image_id": 7, "category_id": 1} | a for n, a in enumerate(annotations)],
    }
    (root / "coco.json").write_text(json.dumps(content))
    return root


RUNS = [SIDE * 10 + 5, 20, SIDE - 20, 20, SIDE * SIDE - SIDE * 11 - 25]  # two columns from row 5 to 25


def test_coco_instances(tmp_path: Path) -> None:
    outline = {"segmentation": [[30, 30, 50, 30, 50, 42, 30, 42]]}
    source = open_source(coco(tmp_path, [outline, {"segmentation": {"size": [SIDE, SIDE], "counts": RUNS}}]))
    [candidate] = listed(source)[0].values()
    first, second = (mask for _, mask in source.read(candidate).masks)
    assert first[30:42, 30:50].all() and first.sum() == 12 * 20
    assert second[5:25, 10:12].all() and second.sum() == 40


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, Drop.UNREADABLE_MASK),
        ([[1, 2, 3, 4]], Drop.UNREADABLE_MASK),
        ([["a", 2, 3, 4, 5, 6]], Drop.UNREADABLE_MASK),
        ([[float("nan"), 1, 5, 1, 5, 5]], Drop.UNREADABLE_MASK),
        ([[float("inf"), 1, 5, 1, 5, 5]], Drop.UNREADABLE_MASK),
        ([[1e300, 1, -1e300, 1, 5, 1e300]], Drop.UNREADABLE_MASK),
        ([[1, 2] * 100_001], Drop.UNREADABLE_MASK),
        ({"size": [SIDE, SIDE], "counts": "00"}, Drop.UNREADABLE_MASK),  # too few pixels
        ({"size": [SIDE, SIDE], "counts": [10**30]}, Drop.UNREADABLE_MASK),
        ({"size": [SIDE, SIDE], "counts": [[SIDE * SIDE]]}, Drop.UNREADABLE_MASK),
        ({"size": [SIDE, SIDE], "counts": [1, 2]}, Drop.UNREADABLE_MASK),
        ({"size": [SIDE, SIDE], "counts": [-1, SIDE * SIDE + 1]}, Drop.UNREADABLE_MASK),
        ({"size": [10**6, 10**6], "counts": [10**12]}, Drop.SHAPE_MISMATCH),
        ({"size": [SIDE, SIDE], "counts": "PPPP"}, Drop.UNREADABLE_MASK),
    ],
)
def test_an_invalid_segmentation_drops_the_image(tmp_path: Path, segmentation: object, reason: Drop) -> None:
    source = open_source(coco(tmp_path, [{"segmentation": segmentation}]))
    [candidate] = listed(source)[0].values()
    with pytest.raises(FaultyImageError) as caught:
        source.read(candidate)
    assert caught.value.reason is reason


def test_a_path_in_a_coco_file_is_never_opened(tmp_path: Path) -> None:
    source = open_source(coco(tmp_path, [{"segmentation": [[1, 1, 9, 1, 9, 9]]}], "../images/a.png"))
    assert listed(source) == ({}, {"../images/a.png": Drop.MISSING_IMAGE})


def test_compressed_runs_are_those_of_pycocotools() -> None:
    coders = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(200):
        shape = int(rng.integers(1, 80)), int(rng.integers(1, 80))
        mask = rng.random(shape) < rng.random()
        text = coders.encode(mask.astype(np.uint8, order="F"))["counts"].decode()
        assert np.array_equal(mask_of({"size": [*shape], "counts": text}, shape), mask)
        assert np.array_equal(mask_of({"size": [*shape], "counts": unpack_runs(text)}, shape), mask)
        assert sum(unpack_runs(text)) == mask.size


def test_a_polygon_covers_the_pixels_whose_centres_it_holds() -> None:
    assert fill_polygon([2, 3, 6, 3, 6, 8, 2, 8], (10, 10)).sum() == 4 * 5  # half-open, as boxes are
    assert fill_polygon([-50, -50, 50, -50, 50, 50, -50, 50], (10, 10)).all()  # cut off at the borders
    triangle = fill_polygon([0, 0, 100, 0, 0, 100], (100, 100))
    assert abs(triangle.mean() - 0.5) < 0.01
