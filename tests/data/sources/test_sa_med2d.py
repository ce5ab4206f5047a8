"""SA-Med2D as a source: a fault drops the whole image, and names are never paths."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bird_hf.data.records import CLASSES_TABLE, IMAGES_TABLE, Modality
from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.data.sources.open import open_source

from .example_sources import BLOB, NOISE, STEM, listed, sa_med2d, zipped


@pytest.mark.parametrize(
    ("masks", "image", "stem", "reason"),
    [
        pytest.param({"0001_000": ~BLOB}, NOISE, STEM, Drop.INVERTED_MASK, id="inverted"),
        pytest.param(
            {"0001_000": BLOB}, BLOB.astype(np.uint8) * 255, STEM, Drop.IMAGE_IS_MASK, id="image is a mask"
        ),
        pytest.param({"0001_000": BLOB[:-2]}, NOISE, STEM, Drop.SIZE_MISMATCH, id="shape"),
        pytest.param({"0001_000": BLOB, "0002_000": BLOB}, NOISE, STEM, Drop.UNNAMED_CLASS, id="class2"),
        pytest.param(
            {"0001_000": BLOB, "0009_000": BLOB}, NOISE, STEM, Drop.UNNAMED_CLASS, id="no such class"
        ),
        pytest.param({"0001_000": BLOB, "0003_000": BLOB}, NOISE, STEM, Drop.UNION_CLASS, id="union"),
        pytest.param({"0001_000": BLOB, "0004_000": BLOB & False}, NOISE, STEM, Drop.EMPTY_MASK, id="empty"),
        pytest.param({}, NOISE, STEM, Drop.NO_MASKS, id="no masks"),
        pytest.param({"0001_000": BLOB}, None, STEM, Drop.MISSING_IMAGE, id="no image"),
        pytest.param(
            {"0001_000": BLOB}, NOISE, "xx_00--LIDC--1--2d_none", Drop.UNKNOWN_MODALITY, id="modality"
        ),
        pytest.param({"0001_000": BLOB}, NOISE, "photo", Drop.BAD_NAME, id="name"),
    ],
)
def test_a_fault_drops_the_image_whole(
    tmp_path: Path, masks: dict, image: np.ndarray | None, stem: str, reason: Drop
) -> None:
    source = open_source(sa_med2d(tmp_path, masks, image, stem))
    candidates, left_out = listed(source)
    if candidates:
        with pytest.raises(FaultyImageError) as caught:
            source.read(candidates[stem])
        assert caught.value.reason is reason
    else:
        assert left_out == {stem: reason}


def test_a_listed_mask_without_a_file_is_missing(tmp_path: Path) -> None:
    root = sa_med2d(tmp_path, {"0001_000": BLOB})
    table = {f"images/{STEM}.png": [f"masks/{STEM}--0001_000.png", f"masks/{STEM}--0001_001.png"]}
    (root / IMAGES_TABLE).write_text(json.dumps(table, indent=1))
    assert listed(open_source(root))[1] == {STEM: Drop.MISSING_MASK}
    table[f"images/{STEM}.png"].pop()
    (root / IMAGES_TABLE).write_text(json.dumps(table, indent=1))
    assert {*listed(open_source(root))[0]} == {STEM}


def test_a_truncated_file_is_unreadable(tmp_path: Path) -> None:
    root = sa_med2d(tmp_path, {"0001_000": BLOB})
    path = root / "images" / f"{STEM}.png"
    path.write_bytes(path.read_bytes()[:200])
    source = open_source(root)
    with pytest.raises(FaultyImageError, match="unreadable_image"):
        source.read(listed(source)[0][STEM])


def test_names_in_an_archive_are_never_paths(phantoms: Path, tmp_path: Path) -> None:
    path = zipped(phantoms, tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        for name in (
            "../../images/../ct_00--d--x--2d_none.png",
            "/images/\nx.png",
            "images/" + "y" * 5000 + ".png",
        ):
            archive.writestr(name, b"")
    before = {*tmp_path.rglob("*")}
    candidates, left_out = listed(open_source(path))
    assert len(candidates) == 2 * len(Modality) and len(left_out) == 2
    assert {*tmp_path.rglob("*")} == before


def test_without_class_names_a_source_is_refused(tmp_path: Path) -> None:
    (sa_med2d(tmp_path, {"0001_000": BLOB}) / CLASSES_TABLE).unlink()
    with pytest.raises(ValueError, match="so its classes have no names; add it"):
        [*open_source(tmp_path).listed()]
