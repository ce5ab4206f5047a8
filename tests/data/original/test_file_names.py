"""What is read from the file name of an image, and which names are refused."""

from __future__ import annotations

import pytest

from bird_hf.data.original.file_names import check_plain_stem, info_of
from bird_hf.data.records import Axis, Modality


def test_a_name_of_sa_med2d_gives_modality_dataset_case_axis_and_slice():
    info = info_of("mr_t1--ACDC--patient001_frame01--x_0006")
    assert (info.modality, info.modality_detail, info.dataset) == (Modality.MR, "t1", "ACDC")
    assert (info.axis, info.slice_index, info.case_id) == (Axis.SAGITTAL, 6, "ACDC/patient001")
    assert info.region == "" and not info.synthetic


def test_a_phantom_is_synthetic():
    assert info_of("ct--phantom_ct--case000001--z_0040").synthetic


@pytest.mark.parametrize(
    ("stem", "modality"),
    [
        ("ct_1", Modality.CT),
        ("x_ray_7", Modality.X_RAY),
        ("x_7", Modality.X_RAY),
        ("fundus_a--b", Modality.FUNDUS),
    ],
)
def test_any_other_name_is_a_case_of_its_own(stem, modality):
    info = info_of(stem)
    assert (info.modality, info.case_id, info.axis, info.slice_index) == (modality, stem, Axis.PLANAR, None)


def test_a_name_without_a_modality_is_refused():
    with pytest.raises(ValueError, match="'liver_1' does not begin with a modality; use one of ct, mr"):
        info_of("liver_1")


@pytest.mark.parametrize("stem", ["", ".", "..", "../a", "a/b", "a\\b", "C:a", ".hidden", "a\0b", "x" * 241])
def test_a_name_that_is_not_a_plain_file_name_is_refused(stem):
    with pytest.raises(ValueError, match="is not a plain file name"):
        check_plain_stem(stem)


@pytest.mark.parametrize("stem", ["a", "a.b", "a b", "肝_1", "x" * 240])
def test_plain_names_are_accepted(stem):
    assert check_plain_stem(stem) is None
