"""The marks of COCO objects: polygons or run lengths -> masks, and boxes.

They are not trusted: sizes are checked before anything is unpacked. For this reason masks are not made by pycocotools:
NaN or very large coordinates hang or crash the process there, and run lengths that do not fill the image leave
uninitialised memory in the mask. Its polygons also cover other pixels; `fill_polygon` takes the pixels whose centres
are inside, as boxes do. For valid run lengths the masks are equal, which the tests check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .faults import Drop, FaultyImageError

_MAX_CORNERS = 100_000
_MAX_COORDINATE = 2**31  # pixels; far beyond any image, and far below an overflow


def mask_of(segmentation: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A COCO segmentation -> (H, W) bool.

    segmentation: a list of polygons, or run lengths as numbers or as a compressed string. Raises ValueError,
    FaultyImageError, KeyError, TypeError or OverflowError if it is malformed.
    """
    if isinstance(segmentation, list) and segmentation:
        mask = np.zeros(shape, bool)
        for polygon in segmentation:
            mask |= fill_polygon(polygon, shape)
        return mask
    if not isinstance(segmentation, dict):
        raise ValueError("an object without a segmentation")
    counts = segmentation["counts"]
    runs = np.array(unpack_runs(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    if [*segmentation["size"]] != [*shape]:
        raise FaultyImageError(Drop.SHAPE_MISMATCH, f"run lengths of {segmentation['size']}, image {shape}")
    if (
        runs.ndim != 1
        or (runs < 0).any()
        or (runs > shape[0] * shape[1]).any()
        or runs.sum() != shape[0] * shape[1]
    ):
        raise ValueError("run lengths do not add up to the image")
    # Runs go down the columns and begin with the background.
    return np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(shape[1], shape[0]).T


def has_outline(segmentation: Any) -> bool:
    """Whether a segmentation holds anything: objects with boxes only have null, [] or [[]] there."""
    return any(segmentation) if isinstance(segmentation, list) else bool(segmentation)


def corners_of(bbox: Any) -> tuple[float, float, float, float]:
    """A COCO bbox [x, y, width, height] -> half-open corners x1, y1, x2, y2 in pixels.

    Raises FaultyImageError if it is not four numbers with a positive width and height.
    """
    given = bbox if isinstance(bbox, list) else []
    numbers = [value for value in given if type(value) in (int, float) and abs(value) < _MAX_COORDINATE]
    if len(given) != 4 or len(numbers) != 4 or min(numbers[2:]) <= 0:
        raise FaultyImageError(Drop.UNREADABLE_BOX, f"bbox {str(bbox)[:80]}")
    x, y, width, height = map(float, numbers)
    return x, y, x + width, y + height


def fill_polygon(corners_xy: list[float], shape: tuple[int, ...]) -> np.ndarray:
    """The pixels (H, W) bool whose centres are inside the polygon [x1, y1, x2, y2, ...], by the even-odd rule.

    Raises ValueError if there are too few or too many corners, or a coordinate is not a number or too large.
    """
    corners = np.array(corners_xy, dtype=np.float64).reshape(-1, 2)
    # A comparison with NaN is False, so NaN is refused too.
    if not 3 <= len(corners) <= _MAX_CORNERS or not (np.abs(corners) < _MAX_COORDINATE).all():
        raise ValueError(
            f"a polygon needs 3 to {_MAX_CORNERS:,} corners, all of them numbers below {_MAX_COORDINATE:,}"
        )
    height, width = shape
    crossings = np.zeros((height, width + 1), np.int32)  # edges crossed by each row, by column
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        top, bottom = sorted((y1, y2))
        rows = np.arange(*np.clip(np.ceil([top - 0.5, bottom - 0.5]), 0, height).astype(int))
        if rows.size:
            x = x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1)
            np.add.at(crossings, (rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)), 1)
    return (np.cumsum(crossings, axis=1)[:, :width] % 2).astype(bool)


def unpack_runs(text: str) -> list[int]:
    """COCO's compressed run lengths -> numbers. Raises ValueError if the string is malformed.

    Each character holds 5 bits, lowest first. From the fourth run on, a number is the difference to the run two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text.encode("ascii"):
        bits = character - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("the string of run lengths is malformed")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the string of run lengths is cut off")
    return runs


def runs_of(mask: np.ndarray) -> list[int]:
    """The run lengths of a mask (H, W) bool as `mask_of` reads them: down the columns, the background first."""
    values = np.concatenate([[False], mask.T.ravel()])
    starts = np.flatnonzero(values[1:] != values[:-1])
    return np.diff(starts, prepend=0, append=mask.size).tolist()


def pack_runs(runs: Sequence[int]) -> str:
    """Numbers -> COCO's compressed run lengths, which `unpack_runs` reads."""
    packed = bytearray()
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            packed.append(48 + (bits | 32 if more else bits))
    return packed.decode("ascii")
