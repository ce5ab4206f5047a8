"""The embedded cases: the patient's sides, display, names and splits."""

from __future__ import annotations

import numpy as np
import pytest

from bird_hf.data.embedded.cases import EMBEDDED_CASES, load_case, volumes_folder
from bird_hf.data.records import Axis
from bird_hf.data.volumes import label_slice_at, masked_slices, objects_of

CASES = {case.name: case for case in EMBEDDED_CASES}


@pytest.mark.parametrize("name", ["colin27", "mni152"])
def test_left_thalamus_lies_on_the_pictures_right(name: str) -> None:
    case = CASES[name]
    labels = load_case(case)[1]
    middle = np.argwhere(labels.voxels == 77).mean(axis=0).astype(int)
    for axis, index in ((Axis.AXIAL, middle[2]), (Axis.CORONAL, middle[1])):
        plane = label_slice_at(labels, axis, int(index))
        masks = dict(objects_of(case, plane, axis)[0])
        left, right = (np.nonzero(masks[f"{side} thalamus"])[1].mean() for side in ("left", "right"))
        assert right < plane.shape[1] / 2 < left


def test_a_sagittal_head_looks_to_the_left_and_stands_up() -> None:
    case = CASES["colin27"]
    labels = load_case(case)[1]
    index = int(np.argwhere(labels.voxels == 77)[:, 0].mean())
    plane = label_slice_at(labels, Axis.SAGITTAL, index)
    masks = dict(objects_of(case, plane, Axis.SAGITTAL, min_area=0)[0])
    front, back = masks["left medial superior frontal gyrus"], masks["left calcarine cortex"]
    assert np.nonzero(front)[1].mean() < np.nonzero(back)[1].mean()
    below = next(mask for name, mask in masks.items() if name.startswith("left cerebellum"))
    assert np.nonzero(masks["left precuneus"])[0].mean() < np.nonzero(below)[0].mean()


@pytest.mark.parametrize("name", ["lung1", "lung2"])
def test_the_lungs_lie_on_their_sides_and_are_dark(name: str) -> None:
    image, labels = load_case(CASES[name])
    across = {value: np.argwhere(labels.voxels == value)[:, 0].mean() for value in (2, 3)}
    assert across[2] < across[3]  # RAS+: the right lung has the higher index
    assert all(np.median(image.voxels[labels.voxels == value]) < -700 for value in (2, 3))
    assert image.voxels.dtype == np.float32 and image.voxels.min() == -1024


def test_slices_carry_the_names_of_sa_med2d() -> None:
    case = CASES["brain2"]
    slices = list(masked_slices(case, *load_case(case)))
    shown = [picture for picture in slices if picture.masks]
    assert len(slices) == 23 and shown
    assert shown[0].info.image_id == f"mr_t1c--pyradiomics--brain2--z_{shown[0].info.slice_index:04d}"
    assert shown[0].info.case_id == "pyradiomics/brain2"
    for picture in slices:
        assert picture.pixels.dtype == np.uint8
        assert all(mask.any() and mask.shape == picture.pixels.shape for _, mask in picture.masks)
        assert not picture.masks or "tumor" not in picture.absent


def test_the_package_holds_all_cases_in_16_megabytes_and_no_case_on_both_sides() -> None:
    files = list(volumes_folder().glob("*.nii.gz"))
    assert {file.name for file in files} == {n for c in EMBEDDED_CASES for n in (c.image_file, c.label_file)}
    assert sum(file.stat().st_size for file in files) <= 16_000_000
    train, test = ({c.case_id for c in EMBEDDED_CASES if c.split == split} for split in ("train", "test"))
    assert len(train) == 4 and len(test) == 3 and not train & test
