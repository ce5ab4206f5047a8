"""Volumes: the patient's sides survive every header, and the embedded cases are what they say."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest

from bird_hf.data.embedded.atlas_names import AAL_LABELS, AAL_NAMES, english_name
from bird_hf.data.embedded.cases import EMBEDDED_CASES, load_case, volumes_folder
from bird_hf.data.records import Axis, Modality
from bird_hf.data.sources.volume_files import read_volume
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
)

EYE = np.eye(3)
SHAPE = (4, 5, 6)
SIGNS = list(itertools.product((1, -1), repeat=3))
ORDERS = list(itertools.permutations(range(3)))
CASES = {case.name: case for case in EMBEDDED_CASES}


def patient() -> np.ndarray:
    """RAS+ voxels (4, 5, 6) with one mark in the corner most right, anterior, superior, one beside it."""
    voxels = np.zeros(SHAPE, np.int16)
    voxels[-1, -1, -1], voxels[-2, -1, -1] = 100, 50
    return voxels


def stored(order: tuple[int, ...], signs: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The same patient as another scanner stores it: axes in another order, some the other way round."""
    target = np.stack([np.array(order), np.array(signs)], axis=1)
    # the orientation of the stored array: its axis n runs along RAS axis target[n]
    voxels = np.transpose(patient(), order)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (ras, sign) in enumerate(target):
        affine[ras, axis] = sign * (ras + 1.0)
        if sign < 0:
            voxels = np.flip(voxels, axis)
            affine[ras, 3] = (ras + 1.0) * (SHAPE[ras] - 1)
    return np.ascontiguousarray(voxels), affine


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("order", ORDERS)
def test_nifti_of_any_orientation_is_the_same_patient(tmp_path: Path, order, signs) -> None:
    voxels, affine = stored(order, signs)
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "v.nii.gz")
    volume = read_volume(tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(volume.voxels, patient())
    assert volume.spacing_mm == pytest.approx((1, 2, 3))
    np.testing.assert_allclose(volume.affine, np.diag([1, 2, 3, 1]), atol=1e-5)


SPACES = [("left-posterior-superior", (-1, -1, 1)), ("RAS", (1, 1, 1)), ("LAS", (-1, 1, 1))]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("order", ORDERS)
def test_nrrd_of_any_orientation_is_the_same_patient(tmp_path: Path, order, signs, space) -> None:
    voxels, affine = stored(order, signs)
    affine = np.diag([*space[1], 1]) @ affine
    header = {"space": space[0], "space directions": affine[:3, :3].T, "space origin": affine[:3, 3]}
    nrrd.write(str(tmp_path / "v.nrrd"), voxels, header)
    np.testing.assert_array_equal(read_volume(tmp_path / "v.nrrd").voxels, patient())


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.float32, np.float64])
def test_any_real_type_is_read_as_it_is(tmp_path: Path, dtype) -> None:
    nib.save(nib.Nifti1Image(patient().astype(dtype), np.eye(4), dtype=dtype), tmp_path / "v.nii")
    assert read_volume(tmp_path / "v.nii").voxels.dtype == dtype


def faulty_files(folder: Path) -> dict[str, str]:
    """File name -> words that its error must hold."""
    bare = nib.Nifti1Image(patient(), None)
    bare.header["qform_code"] = bare.header["sform_code"] = 0
    nib.save(bare, folder / "bare.nii")
    nrrd.write(str(folder / "bare.nrrd"), patient())
    nrrd.write(str(folder / "scanner.nrrd"), patient(), {"space": "scanner-xyz", "space directions": EYE})
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 999, (20, 20, 20)).astype(np.int16)
    nib.save(nib.Nifti1Image(noise, np.eye(4)), folder / "whole.nii.gz")
    nrrd.write(str(folder / "whole.nrrd"), noise, {"space": "RAS", "space directions": np.eye(3)})
    for kind in ("nii.gz", "nrrd"):
        data = (folder / f"whole.{kind}").read_bytes()
        (folder / f"cut.{kind}").write_bytes(data[: len(data) // 2])
        (folder / f"empty.{kind}").write_bytes(b"")
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 3), np.int16), np.eye(4)), folder / "film.nii")
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.complex64), np.eye(4)), folder / "complex.nii")
    (folder / "text.nii").write_text("no volume")
    (folder / "photo.png").write_bytes(b"png")
    return {
        "bare.nii": "no orientation",
        "bare.nrrd": "no anatomical orientation",
        "scanner.nrrd": "no anatomical orientation",
        "cut.nii.gz": "is it whole",
        "cut.nrrd": "is it whole",
        "empty.nii.gz": "is it whole",
        "empty.nrrd": "is it whole",
        "film.nii": "no 3-D volume",
        "complex.nii": "neither integers nor floats",
        "text.nii": "is it whole",
        "photo.png": "give .nii",
        "gone.nii": "no such file",
    }


def test_a_faulty_file_is_refused_in_one_clear_line(tmp_path: Path) -> None:
    for name, words in faulty_files(tmp_path).items():
        with pytest.raises(ValueError, match=words) as caught:
            read_volume(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_volume_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path, monkeypatch) -> None:
    nib.save(nib.Nifti1Image(patient(), np.eye(4)), tmp_path / "v.nii")
    nrrd.write(str(tmp_path / "v.nrrd"), patient(), {"space": "RAS", "space directions": EYE})
    monkeypatch.setattr("bird_hf.data.sources.volume_files.MAX_VOXELS", 100)
    for name in ("v.nii", "v.nrrd"):
        with pytest.raises(ValueError, match="beyond the limit of 100"):
            read_volume(tmp_path / name)


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


def test_a_plane_or_slice_that_is_not_there_is_named() -> None:
    volume = Volume(patient(), (1.0, 1.0, 1.0), np.eye(4))
    with pytest.raises(ValueError, match=r"outside 0\.\.5"):
        slice_at(volume, Axis.AXIAL, 6)
    with pytest.raises(ValueError, match="no plane"):
        slice_at(volume, Axis.PLANAR, 0)


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


def test_aal_names_are_unique_and_pairs_differ_in_the_side_only() -> None:
    assert len(AAL_NAMES) == len(set(AAL_LABELS.values())) == 116
    for aal, name in AAL_NAMES.items():
        if aal.endswith("_L"):
            assert name.startswith("left ")
            assert english_name(aal[:-1] + "R") == "right " + name.removeprefix("left ")
        elif not aal.endswith("_R"):
            assert aal.startswith("Vermis") and name.split()[0] == "vermis"
    assert [AAL_LABELS[n] for n in (71, 78, 116)] == ["left caudate", "right thalamus", "vermis lobule 10"]
    with pytest.raises(ValueError, match="Thalamus"):
        english_name("Thalamus")


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
