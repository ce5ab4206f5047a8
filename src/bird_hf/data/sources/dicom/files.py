"""Reads DICOM files that are not trusted: only the needed header elements, and pixels within size limits.

A header names a patient, so error messages never quote it: they contain the reason and the type of the exception only.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ....hub.pixels import MAX_PIXELS, MAX_SIDE_PX, MIN_SIDE_PX
from ..faults import Drop, FaultyImageError

MAX_FILE_BYTES = 2**30
_MAX_HEADER_BYTES = 2**25  # of a segmentation; ten thousand frames need a fifth of it
_MAX_VALUES = 2**28  # in all frames of a file
_PREAMBLE = 128
_DEFLATED = "1.2.840.10008.1.2.1.99"  # the header is compressed, so a small file can unpack to any size


def is_dicom(path: Path) -> bool:
    """Whether a file starts with the DICOM preamble."""
    try:
        with path.open("rb") as file:
            return file.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except OSError:
        return False


def read_header(path: Path, reason: Drop, tags: Sequence[str] | None = None) -> Any:
    """Read the header elements `tags` of a file, or all but the pixels if `tags` is None.

    Raises FaultyImageError with `reason` if the file cannot be read, and with NEEDS_PYLIBJPEG if no installed decoder
    supports its compression.
    """
    import pydicom
    from pydicom.pixels import get_decoder

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError("too large")
        with _quiet():
            syntax = pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID
            if syntax == _DEFLATED:
                raise ValueError("a compressed header")
            names = None if tags is None else [*tags]
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=names)
            if "Rows" in header and not get_decoder(syntax).is_available:
                raise FaultyImageError(Drop.NEEDS_PYLIBJPEG)
    except FaultyImageError:
        raise
    except Exception as error:  # damaged files raise many kinds of errors
        raise FaultyImageError(reason, type(error).__name__) from error
    return header


def check_header_size(path: Path, header: Any) -> None:
    """Raises FaultyImageError if the whole header of a segmentation is too large to read."""
    frames = int(header.get("NumberOfFrames") or 1)
    bits = frames * int(header.Rows) * int(header.Columns) * int(header.BitsAllocated)
    pixels = 0 if header.file_meta.TransferSyntaxUID.is_compressed else bits // 8
    if path.stat().st_size - pixels > _MAX_HEADER_BYTES:
        raise FaultyImageError(Drop.UNREADABLE_MASK, "its header is too large")


def read_pixels(path: Path, reason: Drop) -> tuple[Any, np.ndarray]:
    """The header and the stored values of a file: (H, W), (H, W, 3), or (N, H, W) for several frames.

    Raises FaultyImageError with `reason` if the file cannot be read or its header announces too many pixels.
    """
    import pydicom
    from pydicom.pixels import apply_color_lut, pixel_array

    sizes = read_header(path, reason, ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"))
    try:
        height, width = int(sizes.Rows), int(sizes.Columns)
        frames, samples = int(sizes.get("NumberOfFrames") or 1), int(sizes.get("SamplesPerPixel") or 1)
        if min(height, width) < MIN_SIDE_PX or max(height, width) > MAX_SIDE_PX:
            raise ValueError("its sides are out of bounds")
        if height * width > MAX_PIXELS or not 0 < frames * height * width * samples <= _MAX_VALUES:
            raise ValueError("too many pixels")
        with _quiet():
            header = pydicom.dcmread(path)
            values = pixel_array(header)
            if header.PhotometricInterpretation == "PALETTE COLOR":
                values = apply_color_lut(values, header)
    except Exception as error:
        raise FaultyImageError(reason, type(error).__name__) from error
    return header, values


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress pydicom's warnings and logs, because they quote header values."""
    from pydicom import config

    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
