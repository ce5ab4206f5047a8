"""Headers of NIfTI and NRRD files, with what is needed to read their voxels.

A header is not trusted: at most a megabyte of it is read, and a path in it is never opened.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..volumes import MAX_VOXELS

VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd")
MAX_FILE_VOXELS = 16 * MAX_VOXELS  # of all channels; they are unpacked, but only one is kept
_MAX_HEADER_BYTES = 2**20
_MAX_OFFSET = 2**26  # bytes before the voxels of a NIfTI file: its extensions
_GZIP_START = b"\x1f\x8b"
# How much larger than the file its voxels can be.
_MOST_UNPACKED = {"raw": 1, "gzip": 1032, "bzip2": 2**21, "text": 1}

# NRRD's `space` -> the signs that convert it to RAS+. Spaces that are not anatomical (scanner-xyz) are refused.
_NRRD_SIGNS = {
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "ras": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "las": (-1.0, 1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "lps": (-1.0, -1.0, 1.0),
}
_NRRD_PACKINGS = {
    "raw": "raw",
    "gzip": "gzip",
    "gz": "gzip",
    "bzip2": "bzip2",
    "bz2": "bzip2",
} | dict.fromkeys(("ascii", "text", "txt"), "text")
_NRRD_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_TYPE_OF = {name: code for code, names in _NRRD_TYPES.items() for name in names.split(", ")}
_DATA_FILE = re.compile(rb"\s*data\s*file\s*:", re.IGNORECASE)
_SKIP = {"lineskip", "line skip", "byteskip", "byte skip"}

# Raised by the two libraries, besides their own errors, for truncated files and files of another kind.
_BROKEN = (
    OSError,
    EOFError,
    ArithmeticError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    StopIteration,
    zlib.error,
)


class UnusableVolumeError(ValueError):
    """A complete file that cannot be used; its message is shown unchanged."""


class ChannelUnknownError(UnusableVolumeError):
    """A file has several channels and none is chosen, or not the one that is."""


@dataclass(frozen=True, kw_only=True)
class VolumeHeader:
    """What a file says about its voxels.

    shape: as the file stores them, the first axis fastest; at most one of the axes is one of channels, not of space.
    offset: bytes before the voxels, in the unpacked file if `whole_packed`, else in the file. packing: raw, gzip,
    bzip2 or text. scaling: slope and intercept; None if the stored values are the values. affine: (4, 4) voxel index of
    the three axes of space, in the order of the file -> RAS+ millimetres; None if the file has no orientation.
    """

    shape: tuple[int, ...]
    channel_axis: int | None
    dtype: np.dtype
    offset: int
    packing: str
    whole_packed: bool
    scaling: tuple[float, float] | None
    affine: np.ndarray | None

    @property
    def channels(self) -> int:
        return 1 if self.channel_axis is None else self.shape[self.channel_axis]

    @property
    def space_shape(self) -> tuple[int, ...]:
        return tuple(size for axis, size in enumerate(self.shape) if axis != self.channel_axis)


def read_volume_header(path: Path) -> VolumeHeader:
    """Read the header of a NIfTI (.nii, .nii.gz) or NRRD (.nrrd) file.

    Raises ValueError, in one line, if the file is of another kind or truncated, if its voxels are in another file, or
    if it has too many.
    """
    import nrrd
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    is_nrrd = path.name.lower().endswith(".nrrd")
    if not is_nrrd and not path.name.lower().endswith(VOLUME_ENDINGS):
        raise ValueError(
            f"{path} is not a volume file that can be read; give .nii, .nii.gz, .nrrd or a folder of DICOM files"
        )
    try:
        with np.errstate(all="ignore"):  # of numbers that are not finite; the affine is checked later
            header = _nrrd_header(path) if is_nrrd else _nifti_header(path)
    except UnusableVolumeError:
        raise
    except (*_BROKEN, HeaderDataError, WrapStructError, nrrd.NRRDError) as error:
        raise unreadable(path, error) from error
    _check_size(header, path)
    return header


def unreadable(path: Path, error: BaseException) -> ValueError:
    """The error, in one line, for a file that is truncated or of another kind."""
    kind = "NRRD" if path.name.lower().endswith(".nrrd") else "NIfTI"
    line = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return ValueError(f"{path}: cannot be read as {kind} ({line}); is it complete?")


def no_orientation(path: Path) -> UnusableVolumeError:
    """The error for a file whose header does not say where left and right are."""
    if path.name.lower().endswith(".nrrd"):
        return UnusableVolumeError(
            f"{path}: the header has no anatomical orientation (space and space directions); set one"
        )
    return UnusableVolumeError(f"{path}: the header has no orientation (sform and qform code 0); set one")


def _nifti_header(path: Path) -> VolumeHeader:
    import nibabel as nib

    with path.open("rb") as file:
        packed = file.read(2) == _GZIP_START
    with gzip.open(path) if packed else path.open("rb") as file:
        start = file.read(nib.Nifti2Header.template_dtype.itemsize)
    longer = 540 in (int.from_bytes(start[:4], order) for order in ("little", "big"))
    kind = nib.Nifti2Header if longer else nib.Nifti1Header
    header: Any = kind(start[: kind.template_dtype.itemsize])
    offset = header.get_data_offset()
    if header["magic"].item() != header.single_magic:
        raise UnusableVolumeError(f"{path}: its voxels are in a separate file; save both as one .nii")
    if not header.single_vox_offset <= offset <= _MAX_OFFSET:
        raise ValueError(f"voxels at byte {offset}")
    shape = tuple(int(size) for size in header.get_data_shape())
    slope, inter = header.get_slope_inter()
    scaling = None if slope is None or (slope, inter) == (1.0, 0.0) else (slope, inter)
    oriented = int(header["sform_code"]) != 0 or int(header["qform_code"]) != 0
    channels = [axis for axis in range(3, len(shape)) if shape[axis] > 1]
    if len(shape) < 3 or len(channels) > 1:
        raise UnusableVolumeError(f"{path}: shape {shape} is not a 3-D volume; save one volume per file")
    return VolumeHeader(
        shape=(*shape[:3], *(shape[axis] for axis in channels)),
        channel_axis=3 if channels else None,
        dtype=header.get_data_dtype(),
        offset=offset,
        packing="gzip" if packed else "raw",
        whole_packed=True,
        scaling=scaling,
        affine=header.get_best_affine() if oriented else None,
    )


def _nrrd_header(path: Path) -> VolumeHeader:
    import nrrd

    lines, offset = _nrrd_lines(path)
    if any(_DATA_FILE.match(line) for line in lines):
        raise UnusableVolumeError(f"{path}: its voxels are in a separate file; save both as one .nrrd")
    header = nrrd.read_header(lines)
    shape = tuple(int(size) for size in header["sizes"])
    if len(shape) != header["dimension"]:
        raise ValueError(f"dimension {header['dimension']}, sizes {shape}")
    if any(header.get(name) for name in _SKIP):
        raise UnusableVolumeError(f"{path}: bytes or lines before its voxels are skipped; save it again")
    packing, code = _NRRD_PACKINGS[header["encoding"].lower()], _TYPE_OF[header["type"]]
    dtype = np.dtype(code)
    if dtype.itemsize > 1 and packing != "text":
        dtype = np.dtype({"little": "<", "big": ">"}[header["endian"].lower()] + code)
    affine, channel_axis = _nrrd_affine(header, shape, path)
    return VolumeHeader(
        shape=shape,
        channel_axis=channel_axis,
        dtype=dtype,
        offset=offset,
        packing=packing,
        whole_packed=False,
        scaling=None,
        affine=affine,
    )


def _nrrd_lines(path: Path) -> tuple[list[bytes], int]:
    """The lines of an NRRD header, and the position of the voxels behind its blank line."""
    with path.open("rb") as file:
        lines, position = [], 0
        while line := file.readline(_MAX_HEADER_BYTES - position):
            position += len(line)
            if not line.strip():
                break
            lines.append(line)
    if position == _MAX_HEADER_BYTES:
        raise ValueError("its header is larger than a megabyte")
    return lines, position


def _nrrd_affine(
    header: Mapping[str, Any], shape: tuple[int, ...], path: Path
) -> tuple[np.ndarray | None, int | None]:
    """(4, 4) voxel index -> RAS+ millimetres, from `space`, `space directions` and `space origin`; the channel axis.

    A channel axis has no direction in space. The affine is None if there is no anatomical space.
    """
    space = str(header.get("space", "")).lower()
    given = header.get("space directions")
    if space not in _NRRD_SIGNS or given is None:
        if len(shape) != 3:
            raise no_orientation(path)
        return None, None
    directions = np.asarray(given, dtype=float)
    placed = ~np.isnan(directions.reshape(len(directions), -1)).all(axis=1)
    if directions.shape != (len(shape), 3) or placed.sum() != 3 or len(shape) > 4:
        raise UnusableVolumeError(f"{path}: {len(shape)} axes are not a 3-D volume; save one volume per file")
    affine = np.eye(4)
    affine[:3, :3] = directions[placed].T  # NRRD has one row per axis
    affine[:3, 3] = np.asarray(header.get("space origin", np.zeros(3)), dtype=float)
    channel_axis = int(np.flatnonzero(~placed)[0]) if len(shape) == 4 else None
    return np.diag([*_NRRD_SIGNS[space], 1.0]) @ affine, channel_axis


def _check_size(header: VolumeHeader, path: Path) -> None:
    """Raises ValueError if there are too many voxels, or more than the file can hold."""
    if min(header.shape) < 1:
        raise UnusableVolumeError(f"{path}: shape {header.shape} has no voxels")
    voxels = int(np.prod(header.space_shape, dtype=object))
    if voxels > MAX_VOXELS or voxels * header.channels > MAX_FILE_VOXELS:
        raise UnusableVolumeError(
            f"{path}: {header.shape} voxels are more than the limit of {MAX_VOXELS:,}; crop it first"
        )
    size = path.stat().st_size - (0 if header.whole_packed and header.packing != "raw" else header.offset)
    stored = voxels * header.channels * (1 if header.packing == "text" else header.dtype.itemsize)
    if stored > max(size, 0) * _MOST_UNPACKED[header.packing]:
        raise unreadable(path, ValueError(f"{stored:,} bytes of voxels are not in it"))
