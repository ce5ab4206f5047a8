"""Reads volumes from NIfTI and NRRD files and from folders with a DICOM series.

Of a file with several channels only one is kept, and no more bytes are unpacked than its header says, so memory is
bounded by one channel whatever the file holds.
"""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..volumes import Volume, canonical
from .dicom.images import read_series
from .volume_headers import (
    ChannelUnknownError,
    UnusableVolumeError,
    VolumeHeader,
    no_orientation,
    read_volume_header,
    unreadable,
)

_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class StoredVolume:
    """voxels: (X, Y, Z) in the order of the file. affine: (4, 4) index -> RAS+ millimetres; None if it has none."""

    voxels: np.ndarray
    affine: np.ndarray | None


def read_volume(path: str | Path, channel: int | None = None) -> Volume:
    """Read a NIfTI (.nii, .nii.gz) or NRRD (.nrrd) file, or a folder with a DICOM series, of up to MAX_VOXELS.

    channel: of a file with a fourth axis, 0 for the first. Raises ValueError, in one line, if the file is of another
    kind or truncated, if its header has no anatomical orientation (left and right are never guessed), or if it has
    several channels and none is chosen (ChannelUnknownError).
    """
    path = Path(path)
    if path.is_dir():
        return read_series(path)
    stored = read_stored(path, channel)
    if stored.affine is None:
        raise no_orientation(path)
    return canonical(stored.voxels, stored.affine, str(path))


def read_stored(path: Path, channel: int | None = None) -> StoredVolume:
    """Read the voxels of a NIfTI or NRRD file in the order in which it stores them, with or without an orientation.

    Raises ValueError as `read_volume` does.
    """
    header = read_volume_header(path)
    if header.dtype.kind not in "iufb":
        raise UnusableVolumeError(f"{path}: voxels of type {header.dtype} are neither integers nor floats")
    if header.channels > 1 and channel is None:
        raise ChannelUnknownError(
            f"{path}: shape {header.shape} is not a 3-D volume; choose one of its channels with `channel`, "
            f"0 to {header.channels - 1}, in labels.yaml"
        )
    if channel is not None and channel >= header.channels:
        raise ChannelUnknownError(f"{path}: shape {header.shape} has no channel {channel}; the first is 0")
    try:
        voxels = _voxels(path, header, channel or 0)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise unreadable(path, error) from error
    if header.scaling is not None:
        voxels = _scaled(voxels, header.scaling)
    return StoredVolume(voxels, header.affine)


def _scaled(voxels: np.ndarray, scaling: tuple[float, float]) -> np.ndarray:
    from nibabel.volumeutils import apply_read_scaling

    return np.asarray(apply_read_scaling(voxels, np.float64(scaling[0]), np.float64(scaling[1]))).astype(
        np.float32
    )


def _voxels(path: Path, header: VolumeHeader, channel: int) -> np.ndarray:
    """One channel (X, Y, Z) in the order of the file. Raises EOFError if the file ends too early."""
    axis = len(header.shape) if header.channel_axis is None else header.channel_axis
    inner, outer = (int(np.prod(sizes)) for sizes in (header.shape[:axis], header.shape[axis + 1 :]))
    kept = np.empty((outer, inner), header.dtype)
    with _stream(path, header) as file:
        if header.packing == "text":
            # numpy reads text from a file and stops after `count` numbers.
            values = np.fromfile(file, header.dtype, count=kept.size * header.channels, sep=" ")
            kept[:] = values.reshape(outer, header.channels, inner)[:, channel]
        elif header.channels == 1:
            _fill(file, kept)
            file.read(1)  # at the end of a packed file, its checksum is compared
        else:
            _fill_channel(file, kept, header.channels, channel)
    return kept.reshape(-1).reshape(header.space_shape, order="F")


@contextmanager
def _stream(path: Path, header: VolumeHeader) -> Iterator[IO[bytes]]:
    """The unpacked bytes of a file, from its first voxel on."""
    with path.open("rb") as file:
        file.seek(0 if header.whole_packed and header.packing != "raw" else header.offset)
        if header.packing in ("raw", "text"):
            yield file
            return
        packed: Any = gzip.GzipFile(fileobj=file) if header.packing == "gzip" else bz2.BZ2File(file)
        with closing(packed):
            if header.whole_packed:
                packed.seek(header.offset)
            yield packed


def _fill(file: IO[bytes], array: np.ndarray) -> None:
    """Read the bytes of a contiguous array."""
    left = array.reshape(-1).view(np.uint8).data
    while left:
        piece = file.read(min(_CHUNK_BYTES, len(left)))
        if not piece:
            raise EOFError(f"{len(left):,} bytes are missing")
        left[: len(piece)] = piece
        left = left[len(piece) :]


def _fill_channel(file: IO[bytes], kept: np.ndarray, channels: int, channel: int) -> None:
    """Read kept (outer, inner) of a file that stores (outer, channels, inner), the last axis fastest."""
    row_bytes = kept.shape[1] * kept.itemsize
    at_once = _CHUNK_BYTES // (channels * row_bytes)
    if not at_once:  # one row of all channels is long: the other channels are skipped
        for row in kept:
            file.seek(channel * row_bytes, 1)
            _fill(file, row)
            file.seek((channels - 1 - channel) * row_bytes, 1)
        return
    for first in range(0, len(kept), at_once):
        rows = kept[first : first + at_once]
        block = np.empty((len(rows), channels, kept.shape[1]), kept.dtype)
        _fill(file, block)
        rows[:] = block[:, channel]
