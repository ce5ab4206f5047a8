"""Reads DICOM files that are not trusted: only the needed header elements, and pixels within size limits.

A header names a patient, so error messages never quote it: they contain the reason, sizes, names of the DICOM standard
and the type of the exception only.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ....extras import missing_extra
from ....hub.pixels import MAX_PIXELS, MAX_SIDE_PX, MIN_SIDE_PX
from ..faults import Drop, FaultyImageError

MAX_FILE_BYTES = 2**30
MAX_FRAMES = 100_000
_MAX_HEADER_BYTES = 2**25  # of an object with many frames; ten thousand frames need a fifth of it
_MAX_VALUES = 2**28  # in all frames that are decoded together
_PREAMBLE = 128
_DEFLATED = "1.2.840.10008.1.2.1.99"  # the header is compressed, so a small file can unpack to any size
_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"  # little endian, not compressed
_MAX_META_BYTES = 2**16
# The first elements of a file without a preamble: group 2 (file meta) or 8 (identification), with a short value.
_FIRST_GROUPS = (0x0002, 0x0008)
_MAX_FIRST_VALUE = 64
_VR = re.compile(rb"UL|UI|OB|SH|CS|AE|DA|TM|DT|IS|LO|SQ")
_ENCAPSULATED = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"  # where compressed pixels begin
_DISPLAY_TAGS = (0x20500020,)  # Presentation LUT Shape; group 0028 is always read


def require_pydicom(path: Path) -> None:
    """Raises ValueError, in one line that says what to install, if pydicom is missing."""
    if find_spec("pydicom") is None:
        raise ValueError(f"{path} holds DICOM, which needs pydicom; {missing_extra('medical')}")


def is_dicom(path: Path) -> bool:
    """Whether a file starts with the DICOM preamble, or without one as only a DICOM dataset does."""
    try:
        with path.open("rb") as file:
            head = file.read(_PREAMBLE + 4)
    except OSError:
        return False
    return head[_PREAMBLE:] == b"DICM" or _is_bare(head)


def _is_bare(head: bytes) -> bool:
    """Whether two plausible elements of group 2 or 8, in order and in one encoding, start a file without a preamble."""
    at, last, explicit = 0, 0, head[4:6].isalpha()
    for _ in range(2):
        if len(head) < at + 8:
            return False
        group, element = struct.unpack_from("<HH", head, at)
        if explicit:
            if not _VR.fullmatch(head, at + 4, at + 6) or head[at + 4 : at + 6] == b"SQ":
                return False
            wide = head[at + 4 : at + 6] == b"OB"
            length = struct.unpack_from("<I" if wide else "<H", head, at + (8 if wide else 6))[0]
            at += 12 if wide else 8
        else:
            (length,) = struct.unpack_from("<I", head, at + 4)
            at += 8
        tag = group << 16 | element
        if group not in _FIRST_GROUPS or tag <= last or element > 0x1155 or length > _MAX_FIRST_VALUE:
            return False
        at, last = at + length, tag
    return True


def transfer_syntax(path: Path) -> Any:
    """The encoding of a file as a pydicom UID. Raises an error of any kind if the file is no DICOM."""
    import pydicom

    with path.open("rb") as file:
        head = file.read(_MAX_META_BYTES)
    if head[_PREAMBLE : _PREAMBLE + 4] == b"DICM":
        return pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID
    if not _is_bare(head):
        raise ValueError("not DICOM")
    meta = pydicom.filereader.read_dataset(
        io.BytesIO(head), False, True, stop_when=lambda tag, vr, length: tag.group != 2
    )
    guessed = _EXPLICIT if head[4:6].isalpha() else _IMPLICIT
    return meta.get("TransferSyntaxUID") or pydicom.uid.UID(guessed)


def read_header(path: Path, reason: Drop, tags: Sequence[str] | None = None) -> Any:
    """Read the header elements `tags` of a file, or all but the pixels if `tags` is None.

    Raises FaultyImageError with `reason` if the file cannot be read, and with NEEDS_PYLIBJPEG if no installed decoder
    supports its compression.
    """
    import pydicom

    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise FaultyImageError(reason, f"{size:,} bytes, the limit is {MAX_FILE_BYTES:,}")
        with quiet():
            syntax = transfer_syntax(path)
            if syntax == _DEFLATED:
                raise FaultyImageError(reason, "a compressed header")
            names = None if tags is None else [*tags]
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=names, force=True)
            header.file_meta.TransferSyntaxUID = syntax
            if "Rows" in header:
                _check_decoder(syntax, reason)
    except FaultyImageError:
        raise
    except Exception as error:  # damaged files raise many kinds of errors
        raise FaultyImageError(reason, type(error).__name__) from error
    return header


def _check_decoder(syntax: Any, reason: Drop) -> None:
    """Raises FaultyImageError if the pixels of a transfer syntax cannot be decoded."""
    from pydicom.pixels import get_decoder

    name = "an unknown compression" if syntax.name == syntax else str(syntax.name)
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:  # video
        raise FaultyImageError(reason, f"{name} cannot be decoded; save it as single frames") from None
    if not available:
        raise FaultyImageError(Drop.NEEDS_PYLIBJPEG, name)


def check_header_size(path: Path, header: Any, reason: Drop) -> None:
    """Raises FaultyImageError if the whole header of an object with many frames is too large to read."""
    if header.file_meta.TransferSyntaxUID.is_compressed:
        with path.open("rb") as file:
            small = _ENCAPSULATED in file.read(_MAX_HEADER_BYTES)
    else:
        frames = int(header.get("NumberOfFrames") or 1)
        bits = frames * int(header.Rows) * int(header.Columns) * int(header.BitsAllocated)
        bits *= int(header.get("SamplesPerPixel") or 1)
        small = path.stat().st_size - bits // 8 <= _MAX_HEADER_BYTES
    if not small:
        raise FaultyImageError(reason, "its header is too large")


def read_pixels(path: Path, reason: Drop, frame: int | None = None) -> tuple[Any, np.ndarray]:
    """The header and the stored values of a file: (H, W), (H, W, 3), or (N, H, W) for several frames.

    frame: the only one to decode, from 0; its header has only what the display of an image needs. Raises
    FaultyImageError with `reason` if the file cannot be read or its header announces too many pixels.
    """
    import pydicom
    from pydicom.pixels import apply_color_lut, pixel_array

    sizes = read_header(path, reason, ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"))
    try:
        _check_sizes(sizes, frame, reason)
        with quiet():
            if frame is None:
                header = pydicom.dcmread(path, force=True)
                header.file_meta.TransferSyntaxUID = sizes.file_meta.TransferSyntaxUID
                values = pixel_array(header)
            else:
                header = pydicom.Dataset()
                syntax = sizes.file_meta.TransferSyntaxUID
                options = {"specific_tags": [*_DISPLAY_TAGS], "transfer_syntax_uid": syntax}
                values = pixel_array(path, ds_out=header, index=frame, **options)
                header.file_meta.TransferSyntaxUID = syntax
            if header.PhotometricInterpretation == "PALETTE COLOR":
                values = apply_color_lut(values, header)
    except FaultyImageError:
        raise
    except Exception as error:
        raise FaultyImageError(reason, type(error).__name__) from error
    return header, values


def _check_sizes(sizes: Any, frame: int | None, reason: Drop) -> None:
    """Raises FaultyImageError if a header announces too many pixels, or no such frame."""
    height, width = int(sizes.Rows), int(sizes.Columns)
    frames, samples = int(sizes.get("NumberOfFrames") or 1), int(sizes.get("SamplesPerPixel") or 1)
    size = f"{width} x {height} pixels"
    if min(height, width) < MIN_SIDE_PX or max(height, width) > MAX_SIDE_PX:
        raise FaultyImageError(reason, f"{size}; sides must be {MIN_SIDE_PX} to {MAX_SIDE_PX}")
    decoded = frames if frame is None else 1
    if height * width > MAX_PIXELS or not 0 < decoded * height * width * samples <= _MAX_VALUES:
        raise FaultyImageError(reason, f"{decoded} frames of {size} and {samples} samples are too many")
    if frame is not None and not 0 <= frame < frames:
        raise FaultyImageError(reason, f"frame {frame} of {frames}")


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress pydicom's warnings and logs, because they quote header values: of accessed elements too."""
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
