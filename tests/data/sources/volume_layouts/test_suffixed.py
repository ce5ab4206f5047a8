"""Volumes beside their label maps, which have a suffix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bird_hf.data.sources.faults import Drop
from bird_hf.data.sources.open import open_source

from ..example_volumes import built_labels, left_out, noise, read_all, two_blocks, write_volume

ABOUT = """
dataset: hospital
modality: mr
region: brain
labels: {1: edema, 2: enhancing tumor}
"""
MEMBERS = ("flair", "t1", "t1ce")


def flat(folder: Path, suffix: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "labels.yaml").write_text(ABOUT)
    for case in ("p1", "p2"):
        write_volume(folder / f"{case}.nii.gz", noise())
        write_volume(folder / f"{case}{suffix}.nii.gz", two_blocks())
    return folder


def brats(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "labels.yaml").write_text(ABOUT)
    for number in (1, 2):
        case = f"BraTS2021_{number:05d}"
        for seed, member in enumerate(MEMBERS):
            write_volume(folder / case / f"{case}_{member}.nii.gz", noise(10 * number + seed))
        write_volume(folder / case / f"{case}_seg.nii.gz", two_blocks())
    return folder


@pytest.mark.parametrize("suffix", ["_seg", "-label", "_mask", "-labels", "_GT", "_segmentation"])
def test_a_label_map_has_the_name_of_its_image_and_a_suffix(tmp_path: Path, suffix: str) -> None:
    found = read_all(open_source(flat(tmp_path, suffix)))
    assert len(found) == 2 * 8
    image = found["mr_00--hospital--p2--z_0006"]
    assert [name for name, _ in image.masks] == ["edema", "enhancing tumor"]
    assert image.info.case_id == "hospital/p2"


def test_the_images_of_a_label_map_are_one_case(tmp_path: Path) -> None:
    found = read_all(open_source(brats(tmp_path)))
    assert len(found) == 2 * 3 * 8
    cases = {image.info.case_id for image in found.values()}
    assert cases == {"hospital/BraTS2021_00001", "hospital/BraTS2021_00002"}
    pictures = [found[f"mr_00--hospital--BraTS2021_00001_{member}--z_0004"] for member in MEMBERS]
    assert len({image.pixels.tobytes() for image in pictures}) == 3
    assert all(np.array_equal(image.masks[0][1], pictures[0].masks[0][1]) for image in pictures)


def test_volumes_with_a_suffix_are_built(tmp_path: Path) -> None:
    found = built_labels(brats(tmp_path / "source"), tmp_path / "out")
    assert found == {f"hospital/BraTS2021_{number:05d}": {"edema", "enhancing tumor"} for number in (1, 2)}


def test_different_suffixes_are_refused(tmp_path: Path) -> None:
    folder = flat(tmp_path, "_seg")
    write_volume(folder / "p3_mask.nii.gz", two_blocks())
    with pytest.raises(ValueError, match="end in _mask and _seg; give all its label maps one suffix"):
        open_source(folder)


def test_what_has_no_other_half_is_left_out(tmp_path: Path) -> None:
    folder = flat(tmp_path, "_seg")
    (folder / "p1.nii.gz").unlink()
    (folder / "p2_seg.nii.gz").unlink()
    items = left_out(open_source(folder))
    assert {name: item.reason for name, item in items.items()} == {
        "p1_seg": Drop.MISSING_IMAGE,
        "p2": Drop.NO_MASKS,
    }


def test_an_image_of_exactly_that_name_is_the_only_one_of_its_label_map(tmp_path: Path) -> None:
    folder = flat(tmp_path, "_seg")
    write_volume(folder / "p1_2.nii.gz", noise(3))  # another visit, not labelled
    items = [*open_source(folder).listed()]
    assert [(item.name, item.reason) for item in items if hasattr(item, "reason")] == [
        ("p1_2", Drop.NO_MASKS)
    ]
