"""DICOM images: display, colours, transfer syntaxes, and a series as a volume."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from bird_hf.data.records import Axis, Modality
from bird_hf.data.sources.base import LeftOut
from bird_hf.data.sources.dicom.images import read_series, read_values
from bird_hf.data.sources.faults import Drop
from bird_hf.data.sources.open import open_source
from bird_hf.data.sources.volume_files import read_volume

from .example_files import (
    AXIAL,
    CENTRES,
    SHAPE,
    assert_sides,
    ball,
    example,
    listed,
    read_all,
    segmentation,
    series,
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize(
    "orientation", [AXIAL, (-1, 0, 0, 0, 1, 0), (0, 1, 0, 1, 0, 0), (0.98, 0.199, 0, -0.199, 0.98, 0)]
)
def test_sides_are_the_patients_however_the_slices_were_stored(tmp_path, kind, orientation):
    images = series(tmp_path / "a" / "b", orientation=orientation)
    segmentation(images, kind).save_as(tmp_path / "seg")
    candidates, left_out = listed(tmp_path)
    assert len(candidates) == 3 and not left_out
    middle = next(image for image in read_all(tmp_path) if image.info.slice_index == 1)
    assert_sides(middle)
    info = middle.info
    assert (info.modality, info.region, info.axis) == (Modality.CT, "abdomen", Axis.AXIAL)
    assert info.image_id.startswith("ct_00--dicom--") and info.image_id.endswith("--z_0001")


@pytest.mark.parametrize(
    ("orientation", "axis"),
    [((1, 0, 0, 0, 0, -1), Axis.CORONAL), ((0, 1, 0, 0, 0, -1), Axis.SAGITTAL)],
)
def test_other_planes(tmp_path, orientation, axis, monkeypatch):
    normal = {Axis.CORONAL: 1, Axis.SAGITTAL: 0}[axis]
    for name, at in CENTRES.items():
        monkeypatch.setitem(CENTRES, name, tuple(0 if i == normal else v for i, v in enumerate(at)))
    images = series(tmp_path, orientation=orientation, Modality="MR", BodyPartExamined="")
    segmentation(images).save_as(tmp_path / "seg.dcm")
    middle = next(image for image in read_all(tmp_path) if image.info.slice_index == 1)
    assert (middle.info.axis, middle.info.modality) == (axis, Modality.MR)
    assert middle.info.region == "abdomen"  # inferred from the labels
    assert_sides(middle)


def test_a_projection_is_displayed_as_stored_and_monochrome1_inverted(tmp_path):
    changed = {"Modality": "DX", "RescaleSlope": 1, "RescaleIntercept": 0, "BodyPartExamined": "CHEST"}
    (image,) = series(tmp_path, count=1, **changed)
    segmentation([image]).save_as(tmp_path / "seg.dcm")
    drawn = ball(image, "spleen")
    for tag in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(image, tag)
    shown = []
    for photometric in ("MONOCHROME2", "MONOCHROME1"):
        image.PhotometricInterpretation = photometric
        image.save_as(tmp_path / "9.dcm")
        shown += read_all(tmp_path)
    assert shown[0].info.image_id.startswith("x_ray--dicom--")
    assert shown[0].info.image_id.endswith("--2d_none") and shown[0].info.region == "chest"
    assert np.array_equal(shown[0].pixels, 255 - shown[1].pixels)
    assert np.array_equal(dict(shown[0].masks)["spleen"], drawn)


def test_colours_stay(tmp_path):
    image = example("SC_rgb_rle.dcm")
    image.Modality, image.StudyInstanceUID, image.SeriesInstanceUID = "ES", "1.2", "1.2.3"
    image.save_as(tmp_path / "photo.dcm")
    source = open_source(tmp_path)
    (item,) = source.listed()
    assert isinstance(item, LeftOut) and item.reason is Drop.NO_MASKS
    assert read_values(tmp_path / "photo.dcm")[1].shape == (image.Rows, image.Columns, 3)


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_bigendian.dcm"])
def test_other_transfer_syntaxes_hold_the_same_values(name):
    plain, other = (
        read_values(Path(get_testdata_file(n, download=False)))[1] for n in ("MR_small.dcm", name)
    )
    assert np.array_equal(plain, other)


def test_a_series_in_a_folder_is_a_volume(tmp_path):
    series(tmp_path, count=4)
    volume = read_volume(tmp_path)
    assert volume.voxels.shape == (SHAPE[1], SHAPE[0], 4) and volume.spacing_mm == pytest.approx((1, 1, 3))
    x, y = np.argwhere(volume.voxels[..., 2] == 100).mean(axis=0)
    assert volume.affine[:3, 2] == pytest.approx([0, 0, 3])
    assert (x, y) == pytest.approx((25.5, 28.5), abs=0.1)


def test_a_series_can_have_a_label_map(tmp_path):
    images = series(tmp_path / "images" / "p01", count=4)
    volume = read_volume(tmp_path / "images" / "p01")
    (tmp_path / "masks").mkdir()
    labels = (volume.voxels == 100).astype(np.uint8)
    nib.Nifti1Image(labels, volume.affine).to_filename(tmp_path / "masks" / "p01.nii.gz")
    (tmp_path / "labels.yaml").write_text(
        "{dataset: mine, modality: ct, region: abdomen, labels: {1: organ}, window: soft tissue}"
    )
    seen = read_all(tmp_path)
    shown = [bool(ball(image, "spleen").any()) for image in images]
    assert len(seen) == sum(shown) > 0 and seen[0].info.image_id.startswith("ct_00--mine--p01--z_")


@pytest.mark.parametrize("fault", ["gap", "two", "one", "none"])
def test_any_other_folder_is_refused_in_one_line(tmp_path, fault):
    if fault == "none":
        (tmp_path / "a.txt").touch()
    else:
        series(tmp_path, count=1 if fault == "one" else 5)
    if fault == "gap":
        (tmp_path / "8.dcm").unlink()
    if fault == "two":
        series(tmp_path, count=2)
    with pytest.raises(ValueError, match=r"DICOM series|evenly spaced|at least two slices") as caught:
        read_series(tmp_path)
    assert "\n" not in str(caught.value)
