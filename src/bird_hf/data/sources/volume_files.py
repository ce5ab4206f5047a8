"""Reads volumes from NIfTI and NRRD files and from folders with a DICOM series."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..volumes import MAX_VOXELS, Volume, canonical
from .dicom.images import read_series

# NRRD's `space` -> the signs that convert it to RAS+. Spaces that are not anatomical (scanner-xyz) are refused.
_NRRD_SIGNS = {
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "ras": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "las": (-1.0, 1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "lps": (-1.0, -1.0, 1.0),
}

# Raised by the two readers, besides their own errors, for truncated files and files of another kind.
_BROKEN = (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, StopIteration, zlib.error)


def read_volume(path: str | Path) -> Volume:
    """Read a 3-D NIfTI (.nii, .nii.gz) or NRRD (.nrrd) file, or a folder with a DICOM series, of up to MAX_VOXELS.

    Raises ValueError, in one line, if the file is of another kind or truncated, or if its header has no anatomical
    orientation: left and right are never guessed.
    """
    path = Path(path)
    if path.is_dir():
        return read_series(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        voxels, affine = _read_nifti(path)
    elif name.endswith(".nrrd"):
        voxels, affine = _read_nrrd(path)
    else:
        raise ValueError(
            f"{path} is not a volume file that can be read; give .nii, .nii.gz, .nrrd or a folder of DICOM files"
        )
    return canonical(voxels, affine, str(path))


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError

    try:
        image = nib.load(path)
        header, affine, shape = image.header, image.affine, tuple(image.shape)
        if "sform_code" not in header or (int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0):
            raise _UnusableError(f"{path}: the header has no orientation (sform and qform code 0); set one")
        _check_size(shape, path)
        voxels = np.asanyarray(image.dataobj)
        if (image.dataobj.slope, image.dataobj.inter) != (1.0, 0.0):  # nibabel scales to float64
            voxels = voxels.astype(np.float32)
    except _UnusableError:
        raise
    except (*_BROKEN, ImageFileError) as error:
        raise ValueError(
            f"{path}: cannot be read as NIfTI ({_first_line(error)}); is it complete?"
        ) from error
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    return voxels, affine


def _read_nrrd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import nrrd

    try:
        with path.open("rb") as file:
            header = nrrd.read_header(file)
            affine = _nrrd_affine(header, path)
            _check_size(tuple(int(n) for n in header["sizes"]), path)
            if "data file" in header or "datafile" in header:
                raise _UnusableError(f"{path}: its voxels are in a separate file; save both as one .nrrd")
            voxels = nrrd.read_data(header, file, str(path), index_order="F")
    except _UnusableError:
        raise
    except (*_BROKEN, nrrd.NRRDError) as error:
        raise ValueError(f"{path}: cannot be read as NRRD ({_first_line(error)}); is it complete?") from error
    return voxels, affine


class _UnusableError(ValueError):
    """A complete file that cannot be used; its message is shown unchanged."""


def _nrrd_affine(header: Mapping[str, object], path: Path) -> np.ndarray:
    """(4, 4) voxel index -> RAS+ millimetres, from `space`, `space directions` and `space origin`."""
    space = str(header.get("space", "")).lower()
    directions = header.get("space directions")
    if space not in _NRRD_SIGNS or directions is None:
        raise _UnusableError(
            f"{path}: the header has no anatomical orientation (space {space or 'missing'!r}); "
            "save it with a space such as left-posterior-superior and its directions"
        )
    directions = np.asarray(directions, dtype=float)
    if directions.shape != (3, 3):
        raise _UnusableError(f"{path}: {len(directions)} axes are not a 3-D volume; save one volume per file")
    affine = np.eye(4)
    affine[:3, :3] = directions.T  # NRRD has one row per axis
    affine[:3, 3] = np.asarray(header.get("space origin", np.zeros(3)), dtype=float)
    return np.diag([*_NRRD_SIGNS[space], 1.0]) @ affine


def _check_size(shape: tuple[int, ...], path: Path) -> None:
    if int(np.prod(shape, dtype=np.int64)) > MAX_VOXELS:
        raise _UnusableError(
            f"{path}: {shape} voxels are more than the limit of {MAX_VOXELS:,}; crop it first"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
