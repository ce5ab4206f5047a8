"""The column `masks`: aligned with `objects`, equal to the source's masks, and not there by default."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bird_hf.data.build.pipeline import build
from bird_hf.data.build.reading import ReadOptions, read_chunk
from bird_hf.data.build.review import Review
from bird_hf.data.folder.mask_column import mask_cells, published_features
from bird_hf.data.folder.publish import open_folder
from bird_hf.data.folder.shards import shards_of, stream_rows
from bird_hf.data.masks import box_of, outlines_of, record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality, Task, row_features
from bird_hf.data.sources import open as opening
from bird_hf.data.sources.base import Candidate
from bird_hf.data.sources.coco import mask_of
from bird_hf.hub.boxes import Box

from .example_builds import REVIEW_SETTINGS, decide, manifest, published


@pytest.fixture(scope="module")
def masked(review_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build with masks."""
    out = tmp_path_factory.mktemp("masked") / "out"
    build(review_source, out, replace(REVIEW_SETTINGS, masks=True), 1)
    return out


def rows_of(folder: Path, *columns: str) -> Iterator[dict[str, Any]]:
    for task in Task:
        for paths in shards_of(folder, task).values():
            yield from stream_rows(paths, ["image_id", "image_wh", "objects", *columns])


def check_rows(folder: Path) -> int:
    """Compare each mask with its object; returns the number of masks."""
    masks = 0
    for row in rows_of(folder, "masks"):
        assert [item["instance_id"] for item in row["masks"]] == [
            item["instance_id"] for item in row["objects"]
        ]
        for item, outline in zip(row["objects"], row["masks"], strict=True):
            assert outline["size"] == row["image_wh"][::-1]
            assert (outline["counts"] is None) == (not item["present"])
            if item["present"]:
                mask = mask_of(outline, tuple(outline["size"]))
                assert box_of(mask).xyxy == tuple(item["box"]) and mask.mean() == pytest.approx(item["area"])
                masks += 1
    return masks


def test_each_mask_is_that_of_its_object(masked: Path) -> None:
    assert check_rows(masked) > 100


def test_all_other_columns_are_those_of_a_build_without_masks(masked: Path, unreviewed: Path) -> None:
    columns = ["messages", "image", "forms", "caption"]
    with_masks, without = list(rows_of(masked, *columns)), list(rows_of(unreviewed, *columns))
    assert with_masks == without
    assert manifest(masked)["settings"] == manifest(unreviewed)["settings"] | {"masks": True}
    assert "| `masks` |" in (masked / "README.md").read_text()


def test_by_default_there_is_no_such_column(unreviewed: Path) -> None:
    assert (
        open_folder(unreviewed, "vg", "train").features == row_features() == published_features(masks=False)
    )
    assert "`masks`" not in (unreviewed / "README.md").read_text()


def test_the_rows_load_with_datasets_and_with_the_builder(masked: Path, tmp_path: Path) -> None:
    from bird_hf.data.med_grit import MedGrit

    rows = open_folder(masked, "vg", "train")
    assert rows.features == published_features(masks=True)
    builder = MedGrit(config_name="vg", data_dir=str(masked), cache_dir=str(tmp_path))
    builder.download_and_prepare()
    joined = builder.as_dataset(split="train")
    assert joined["masks"][:] == rows["masks"][:] and joined["objects"][:] == rows["objects"][:]


def test_names_and_rejections_of_a_review_move_no_mask(review_source: Path, tmp_path: Path) -> None:
    from bird_hf.reports.review import write_review

    settings = replace(REVIEW_SETTINGS, masks=True)
    build(review_source, tmp_path, settings, 1)
    write_review(tmp_path, 1)
    labels = tmp_path / "review" / "labels.csv"
    decide(labels, lambda line: line["name"] == "liver", decision="reject")
    decide(labels, lambda line: line["name"] == "spleen", decision="rename", new_name="the spleen")
    build(review_source, tmp_path, settings, 1)
    names = {item["label"] for row in rows_of(tmp_path) for item in row["objects"]}
    assert "liver" not in names and "the spleen" in names
    assert check_rows(tmp_path) > 100


def test_workers_give_the_same_bytes(review_source: Path, masked: Path, tmp_path: Path) -> None:
    build(review_source, tmp_path, replace(REVIEW_SETTINGS, masks=True), workers=2)
    assert published(tmp_path) == published(masked)


def test_an_object_without_an_outline_has_a_null(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes without outlines, too small objects and absent ones among masks."""
    drawn = draw_phantom(Modality.CT, 0, 64)
    dot = np.zeros(drawn.pixels.shape[:2], bool)
    dot[:2, :2] = True
    masks = (("dot", dot), *drawn.masks, ("dot", dot | drawn.masks[0][1]))
    image = replace(drawn, masks=masks, boxes=(("nodule", Box(0.1, 0.1, 0.3, 0.3)),), absent=("polyp",))
    record, outlines = record_of(image, 0.01), outlines_of(image, 0.01)
    cells = mask_cells([{"instance_id": item.instance_id} for item in record.instances], (64, 64), outlines)  # type: ignore[arg-type]
    without = [cell["instance_id"] for cell in cells if cell["counts"] is None]
    assert without == ["nodule_0", "polyp_0"]
    for item in record.present:
        if item.instance_id in outlines:
            assert box_of(outlines[item.instance_id]) == item.box

    class Given:
        kind, pixels_are_free = "given", True

        def read(self, candidate: Candidate) -> Any:
            return image

    monkeypatch.setattr("bird_hf.data.build.reading._opened", lambda src, modality: Given())
    options = ReadOptions(Path("x"), Review(), 0.01, masks=True)
    [result] = read_chunk(options, [Candidate(image.info, (), None)])
    assert result.runs is not None and {*result.runs} == {*outlines} and result.rejected == 0
    assert result.objects["nodule"] == 1
    [result] = read_chunk(replace(options, masks=False), [Candidate(image.info, (), None)])
    assert result.runs is None


def test_a_rejected_name_of_boxes_alone_leaves_the_image_out() -> None:
    from bird_hf.data.sources.faults import FaultyImageError

    image = replace(
        draw_phantom(Modality.CT, 0, 64),
        masks=(),
        boxes=(("nodule", Box(0, 0, 1, 1)), ("mass", Box(0, 0, 0.5, 0.5))),
    )
    kept = Review({("phantom_ct", "nodule"): None, ("phantom_ct", "mass"): "lesion"}).read(image)
    assert kept.boxes == (("lesion", Box(0, 0, 0.5, 0.5)),)
    with pytest.raises(FaultyImageError, match="rejected_in_review"):
        Review({("phantom_ct", "nodule"): None, ("phantom_ct", "mass"): None}).read(image)


def test_workers_open_the_source_with_the_modality(
    review_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []
    real = opening.open_source

    def spy(path: Path, modality: Modality | None = None) -> Any:
        given.append(modality)
        return real(path)

    monkeypatch.setattr("bird_hf.data.build.reading.open_source", spy)
    build(review_source, tmp_path, replace(REVIEW_SETTINGS, modality="mr"), 1)
    assert given == [Modality.MR] * 2  # the build's own, and the worker's
