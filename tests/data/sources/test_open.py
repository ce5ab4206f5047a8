"""Every kind of path opens the same source; anything else is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import MaskedImage, Modality
from bird_hf.data.sources.base import Source
from bird_hf.data.sources.open import open_source

from .example_sources import SIDE, listed, zipped
from .test_archives import split_zip


def assert_phantoms(source: Source) -> None:
    """The source contains exactly the phantoms, apart from their regions and the order of classes."""
    candidates, left_out = listed(source)
    assert not left_out
    drawn = [draw_phantom(modality, seed, SIDE) for modality in Modality for seed in range(2)]
    assert {*candidates} == {image.info.image_id for image in drawn}
    for image in drawn:
        candidate = candidates[image.info.image_id]
        read = source.read(candidate)
        info = read.info
        assert (info.modality, info.modality_detail) == (image.info.modality, image.info.modality_detail)
        assert (info.axis, info.slice_index, info.dataset) == (
            image.info.axis,
            image.info.slice_index,
            image.info.dataset,
        )
        assert info.synthetic
        assert np.array_equal(read.pixels, image.pixels)
        assert masks_by_name(read) == masks_by_name(image)
        assert {*read.absent} == {*image.absent}
        assert {*candidate.labels} == {label for label, _ in image.masks}
        assert json.loads(json.dumps(candidate.where)) == candidate.where


def masks_by_name(image: MaskedImage) -> list[tuple[str, bytes]]:
    return sorted((label, mask.tobytes()) for label, mask in image.masks)


def test_a_folder(phantoms: Path) -> None:
    assert_phantoms(open_source(phantoms))


def test_a_folder_that_holds_the_folder(phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms, tmp_path / "SAMed2Dv1")
    assert_phantoms(open_source(tmp_path))


@pytest.mark.parametrize("prefix", ["", "SAMed2Dv1/"])
def test_a_zip(phantoms: Path, tmp_path: Path, prefix: str) -> None:
    assert_phantoms(open_source(zipped(phantoms, tmp_path / "a.zip", prefix)))


def test_a_zip_in_parts_by_its_name_or_its_folder(phantoms: Path, tmp_path: Path) -> None:
    path = split_zip(zipped(phantoms, tmp_path / "SA-Med2D-16M.zip"), 30_000)
    assert path.with_suffix(".z03").is_file()
    assert_phantoms(open_source(path))
    assert_phantoms(open_source(tmp_path))


@pytest.mark.parametrize("name", ["nowhere", "empty", "text.zip"])
def test_an_unknown_kind_of_source_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(ValueError, match=name):
        open_source(tmp_path / name)
