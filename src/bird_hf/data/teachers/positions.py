"""Sizes and positions of objects in words, and whether the words of an answer are right about a box.

"Left" and "right" are the patient's. Images without a patient's side (endoscopy, dermoscopy, fundus, ultrasound, X-ray)
are described by the clock face.
"""

from __future__ import annotations

import math
import re
from typing import Literal

from ...hub.boxes import Box
from ..records import Axis

# Upper bounds of the share of the image that a small, a medium-sized ... object covers.
_SIZES = ((0.01, "tiny"), (0.04, "small"), (0.15, "medium-sized"), (math.inf, "large"))
MIDDLE = 0.08  # distance from the middle of the image, below which an object is on neither side
# (left of the picture, right of it), (top, bottom): the radiological display of docs/coordinates.md
FACING = ("on the patient's right", "on the patient's left")
_DIRECTIONS = {
    Axis.AXIAL: (FACING, ("anterior", "posterior")),
    Axis.CORONAL: (FACING, ("superior", "inferior")),
    Axis.SAGITTAL: (("anterior", "posterior"), ("superior", "inferior")),
}
# Objects nearer than this to the border of two words are not described in training.
_SIZE_MARGIN = 1.15  # ratio
_SIDE_MARGIN = 0.015  # share of the image
_CLOCK_MARGIN = 5.0  # degrees of 30

WordKind = Literal["size", "side", "direction", "clock"]
_CLOCK = re.compile(r"\b(\d{1,2}) o'?clock\b|\bin the (?:centre|center)\b", re.IGNORECASE)
_SIZE = re.compile(r"\b(tiny|small|medium(?=[- ]sized)|large)\b", re.IGNORECASE)
_SIDE = re.compile(r"\bpatient'?s (left|right)\b", re.IGNORECASE)
_DIRECTION = re.compile(r"\b(anterior|posterior|superior|inferior)\b", re.IGNORECASE)


def size_of(area: float) -> str:
    """Return the word for the size of an object from its share of the image."""
    return next(word for bound, word in _SIZES if area < bound)


def place_of(box: Box, axis: Axis) -> str:
    """Return the position of a box in words: patient directions for slices, the clock face for other images."""
    across, down = _offset(box)
    if axis not in _DIRECTIONS:
        if math.hypot(across, down) < 2 * MIDDLE:
            return "in the centre"
        hour = round(math.degrees(math.atan2(across, -down)) / 30) % 12 or 12
        return f"toward {hour} o'clock"
    (near_x, far_x), (near_y, far_y) = _DIRECTIONS[axis]
    words = []
    if abs(down) >= MIDDLE:
        words.append(near_y if down < 0 else far_y)
    if abs(across) >= MIDDLE:
        words.append(near_x if across < 0 else far_x)
    return " and ".join(words) or "in the middle"


def shows_sides(axis: Axis) -> bool:
    """Return whether images of an axis show the patient's left and right."""
    return axis in _DIRECTIONS and _DIRECTIONS[axis][0] is FACING


def is_borderline(box: Box, area: float, axis: Axis) -> bool:
    """Return whether an object is near the border of two sizes or of two positions, so that either word would do."""
    if any(bound / _SIZE_MARGIN < area < bound * _SIZE_MARGIN for bound, _ in _SIZES):
        return True
    across, down = _offset(box)
    if axis in _DIRECTIONS:
        return any(abs(abs(value) - MIDDLE) < _SIDE_MARGIN for value in (across, down))
    away = math.hypot(across, down) - 2 * MIDDLE
    from_hour = math.degrees(math.atan2(across, -down)) % 30
    near_hours = away >= 0 and abs(from_hour - 15) < _CLOCK_MARGIN
    return abs(away) < 2 * _SIDE_MARGIN or near_hours


def describes(answer: str, box: Box, area: float, axis: Axis) -> dict[WordKind, bool]:
    """Return whether the words of an answer are right about an object: its size, and its side and direction or hour.

    Kinds that do not apply are left out: a sagittal slice shows no side, and only images that are not slices have a
    clock. A word that is missing although it applies is wrong. area: share of the image.
    """
    size = _SIZE.search(answer)
    right: dict[WordKind, bool] = {
        "size": bool(size) and size_of(area).startswith(size[0].lower()) if size else False
    }
    place = place_of(box, axis)
    if axis not in _DIRECTIONS:
        right["clock"] = _hours(answer) == _hours(place)
        return right
    if shows_sides(axis):
        right["side"] = _words(_SIDE, answer) == _words(_SIDE, place)
    right["direction"] = _words(_DIRECTION, answer) == _words(_DIRECTION, place)
    return right


def _offset(box: Box) -> tuple[float, float]:
    x, y = box.centre
    return x - 0.5, y - 0.5


def _words(pattern: re.Pattern[str], text: str) -> set[str]:
    return {word.lower() for word in pattern.findall(text)}


def _hours(text: str) -> set[str]:
    """The hours that a text names; "" stands for the centre."""
    return {found[1] or "" for found in _CLOCK.finditer(text)}
