"""Volumes: display in radiological convention, windows, and the objects of a label map."""

from __future__ import annotations

import numpy as np
import pytest

from bird_hf.data.records import Axis, Modality
from bird_hf.data.volumes import (
    CaseInfo,
    Volume,
    canonical,
    ct_window,
    label_slice_at,
    masked_slices,
    mr_window,
    objects_of,
    slice_at,
    to_uint8,
    voxel_of_display,
)

from .marked_volume import patient, stored


def test_an_oblique_volume_keeps_its_spacing_and_nearest_axes() -> None:
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-2.0, 3.0, 4.0])  # first axis towards the left
    volume = canonical(patient()[::-1], affine)
    np.testing.assert_array_equal(volume.voxels, patient())
    assert volume.spacing_mm == pytest.approx((2, 3, 4))


def test_display_is_radiological() -> None:
    volume = Volume(patient(), (1.0, 1.0, 1.0), np.eye(4))
    axial = slice_at(volume, Axis.AXIAL, 5)  # (5, 4): rows front to back, columns right to left
    assert axial.shape == (5, 4) and axial[0, 0] == 100 and axial[0, 1] == 50
    coronal = slice_at(volume, Axis.CORONAL, 4)  # (6, 4): rows head to foot
    assert coronal.shape == (6, 4) and coronal[0, 0] == 100 and coronal[0, 1] == 50
    sagittal = slice_at(volume, Axis.SAGITTAL, 3)  # (6, 5): columns front to back
    assert sagittal.shape == (6, 5) and sagittal[0, 0] == 100 and sagittal.sum() == 100


def test_pixels_are_square_whatever_the_spacing() -> None:
    voxels = np.zeros((10, 20, 5), np.float32)
    voxels[:, :, 2] = 10
    volume = Volume(voxels, (1.0, 0.5, 4.0), np.diag([1.0, 0.5, 4.0, 1.0]))
    assert slice_at(volume, Axis.AXIAL, 2).shape == (20, 20)  # 10 mm x 10 mm
    assert slice_at(volume, Axis.CORONAL, 3).shape == (20, 10)  # 20 mm high, 10 mm wide
    assert slice_at(volume, Axis.SAGITTAL, 3).shape == (40, 20)
    image, labels = slice_at(volume, Axis.CORONAL, 3)[:, 0], label_slice_at(volume, Axis.CORONAL, 3)[:, 0]
    assert set(labels) == {0, 10} and (labels == 10).sum() == 4  # nearest keeps the values
    assert 0 < image[7] < 10 and image[9] > 8  # linear lies between


def test_an_unknown_plane_or_slice_is_refused() -> None:
    volume = Volume(patient(), (1.0, 1.0, 1.0), np.eye(4))
    with pytest.raises(ValueError, match=r"outside 0\.\.5"):
        slice_at(volume, Axis.AXIAL, 6)
    with pytest.raises(ValueError, match="not a plane"):
        slice_at(volume, Axis.PLANAR, 0)


@pytest.mark.parametrize("axis", [Axis.AXIAL, Axis.CORONAL, Axis.SAGITTAL])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_displayed_pixel_leads_back_to_its_voxel_in_the_file(order, signs, axis) -> None:
    voxels, affine = stored(order, signs)  # 1 x 2 x 3 mm, so that every slice is stretched
    numbered = np.arange(voxels.size).reshape(voxels.shape)
    volume = canonical(numbered, affine)
    shown = label_slice_at(volume, axis, 2)
    to_voxel = voxel_of_display(volume, axis, 2)
    to_file = np.linalg.inv(volume.file_affine) @ volume.affine
    for y, x in np.ndindex(*shown.shape):
        centre = to_voxel @ (
            x + 0.5 + 1e-6,
            y + 0.5 + 1e-6,
            0,
            1,
        )  # of a centre on an edge, `nearest` takes the later
        assert volume.voxels[tuple(np.rint(centre[:3]).astype(int))] == shown[y, x]
        assert numbered[tuple(np.rint((to_file @ centre)[:3]).astype(int))] == shown[y, x]


@pytest.mark.parametrize("axis", [Axis.AXIAL, Axis.CORONAL, Axis.SAGITTAL])
def test_the_corners_of_a_displayed_slice_are_the_outer_edges_of_its_voxels(axis) -> None:
    volume = canonical(*stored((1, 2, 0), (-1, -1, 1)))
    height, width = slice_at(volume, axis, 1).shape
    to_voxel = voxel_of_display(volume, axis, 1)
    first, last = (to_voxel @ (x, y, 0, 1) for x, y in ((0, 0), (width, height)))
    normal = {Axis.SAGITTAL: 0, Axis.CORONAL: 1, Axis.AXIAL: 2}[axis]
    for i, length in enumerate(volume.voxels.shape):
        expected = (1, 1) if i == normal else (length - 0.5, -0.5)
        assert (first[i], last[i]) == pytest.approx(expected)


def test_ct_windows_are_the_stated_ones() -> None:
    hu = np.array([-1350, -600, 150, -160, 40, 240])
    assert to_uint8(hu, *ct_window("lung")).tolist()[:3] == [0, 128, 255]
    assert to_uint8(hu, *ct_window("soft tissue")).tolist()[3:] == [0, 128, 255]
    assert (
        to_uint8(hu, *ct_window("mediastinum")).tolist() == to_uint8(hu, *ct_window("soft tissue")).tolist()
    )
    with pytest.raises(ValueError, match="choose one of lung"):
        to_uint8(hu, *ct_window("stomach"))


def test_mr_window_ignores_background_and_outliers() -> None:
    voxels = np.zeros((20, 20, 20))
    voxels[5:15, 5:15, 5:15] = np.linspace(100, 200, 1000).reshape(10, 10, 10)
    voxels[5, 5, 5] = 1e6
    low, high = mr_window(voxels)
    assert (low, high) == (pytest.approx(100, abs=2), pytest.approx(200, abs=2))
    assert mr_window(np.zeros((3, 3, 3))) == (0.0, 1.0)


def sides_case(**changes) -> CaseInfo:
    told = {
        "dataset": "d",
        "original": "c",
        "labels": {1: "left kidney", 2: "right kidney", 3: "tumor"},
        "modality": Modality.CT,
        "modality_detail": "00",
        "region": "abdomen",
        "exhaustive": True,
        "lesions": ("tumor",),
    }
    return CaseInfo(**{**told, **changes})


def test_a_label_in_two_pieces_is_one_object_and_a_lesion_two() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[2:6, 2:6] = labels[20:24, 2:6] = 1
    labels[2:6, 20:24] = labels[20:24, 20:24] = 3
    masks, absent = objects_of(sides_case(), labels, Axis.AXIAL)
    assert [name for name, _ in masks] == ["left kidney", "tumor", "tumor"]
    assert absent == ("right kidney",)


def test_a_speck_is_neither_present_nor_absent() -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[0, :5] = 1
    masks, absent = objects_of(sides_case(), labels, Axis.AXIAL, min_area=0.001)
    assert masks == () and absent == ("right kidney", "tumor")


@pytest.mark.parametrize("size", [4, 1], ids=["object", "speck"])
def test_a_sagittal_picture_does_not_call_the_twin_absent(size) -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[5 : 5 + size, 5 : 5 + size] = 1
    assert objects_of(sides_case(), labels, Axis.SAGITTAL, 0.01)[1] == ("tumor",)
    assert objects_of(sides_case(), labels, Axis.AXIAL, 0.01)[1] == ("right kidney", "tumor")


def test_nothing_is_absent_where_labels_are_not_exhaustive() -> None:
    assert objects_of(sides_case(exhaustive=False), np.zeros((9, 9), np.uint8), Axis.AXIAL) == ((), ())


def test_labels_on_another_grid_are_refused() -> None:
    image = canonical(np.ones((4, 4, 4)), np.eye(4))
    moved = canonical(np.ones((4, 4, 4), np.uint8), np.diag([1, 1, 2, 1]))
    with pytest.raises(ValueError, match="different grids"):
        next(masked_slices(sides_case(), image, moved))
