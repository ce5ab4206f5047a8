"""Volume files: the same patient from every header, and one clear line for a faulty file."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest

from bird_hf.data.sources.volume_files import read_volume

from ..marked_volume import patient, stored

EYE = np.eye(3)

SIGNS = list(itertools.product((1, -1), repeat=3))

ORDERS = list(itertools.permutations(range(3)))


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
    """File name -> words that its error must contain."""
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
        "cut.nii.gz": "is it complete",
        "cut.nrrd": "is it complete",
        "empty.nii.gz": "is it complete",
        "empty.nrrd": "is it complete",
        "film.nii": "not a 3-D volume",
        "complex.nii": "neither integers nor floats",
        "text.nii": "is it complete",
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
    monkeypatch.setattr("bird_hf.data.sources.volume_headers.MAX_VOXELS", 100)
    for name in ("v.nii", "v.nrrd"):
        with pytest.raises(ValueError, match="more than the limit of 100"):
            read_volume(tmp_path / name)
