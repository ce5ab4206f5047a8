"""The boxes and texts of a row, by the field that they stand in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Numbers = tuple[float, float, float, float]
Corners = tuple[float, float, float, float]

# Columns or keys of one number each, in the order in which they are written; `plain_name` makes others to these.
NAMED_NUMBERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("xmin", "ymin", "width", "height"),
    ("left", "top", "width", "height"),
    ("cx", "cy", "w", "h"),
    ("xcenter", "ycenter", "width", "height"),
)
_BOX_PREFIX = re.compile(r"\A(?:boundingbox|bndbox|bbox|box)")
_NO_LETTERS = re.compile(r"[\W_]+")
SIZE_NAMES = (
    ("image_width", "image_height"),
    ("original_width", "original_height"),
    ("img_width", "img_height"),
    ("width", "height"),
)
IMAGE_NAMES = (
    "image",
    "images",
    "file_name",
    "filename",
    "image_path",
    "img",
    "image_id",
    "patientid",
    "dicom_id",
)
_BOX_KEY = re.compile(r"(?:\w*_)?(?:b?box(?:es)?|bounding_box(?:es)?|bndbox|rect|xyxy|xywh)(?:_\w+)?")
_NO_TEXT = {*IMAGE_NAMES, "id", "path", "bytes", "counts", "segmentation", "size", "case_id", "instance_id"}
_DEEPEST = 8
_MOST_VALUES = 20_000  # of a row
_LARGEST_NUMBER = 1e9
_LONGEST_TEXT = 100_000  # characters that are searched

_NUMBER = r"(-?[0-9]{1,9}(?:\.[0-9]{1,17})?)"
_GAP = r"\s{0,3}"
_COMMA = rf"{_GAP},{_GAP}"
_BRACKETED = re.compile(
    rf"[\[(]{_GAP}{_NUMBER}{_COMMA}{_NUMBER}{_GAP}\)?{_COMMA}\(?{_GAP}{_NUMBER}{_COMMA}{_NUMBER}{_GAP}[\])]"
)
_ALONE = re.compile(rf"{_GAP}{_NUMBER}{_COMMA}{_NUMBER}{_COMMA}{_NUMBER}{_COMMA}{_NUMBER}{_GAP}")
_LOCATIONS = re.compile(r"<loc_?([0-9]{1,4})>" * 4)
_OTHER_TOKENS = re.compile(r"<patch_index_[0-9]{1,4}>|<x[0-9]{1,2}><y[0-9]{1,2}>")


@dataclass(frozen=True)
class RowContent:
    """What a row holds. boxes and texts: (field, value). broken: fields with values that are not finite numbers."""

    boxes: list[tuple[str, Numbers]]
    texts: list[tuple[str, str]]
    broken: list[str]


def content_of(row: Mapping[str, Any]) -> RowContent:
    """The boxes and the texts of a row, at any depth down to eight."""
    found = RowContent([], [], [])
    left = _MOST_VALUES
    waiting: list[tuple[str, str, Any, int]] = [("", "", row, 0)]
    while waiting and left:
        left -= 1
        field, key, value, depth = waiting.pop()
        if isinstance(value, str):
            if key.lower() not in _NO_TEXT:
                found.texts.append((field, value[:_LONGEST_TEXT]))
        elif isinstance(value, Mapping):
            named = named_numbers(value)
            if named is not None:
                columns = f"({', '.join(named)})"
                _add_box(found, f"{field} {columns}".lstrip(), [value[name] for name in named])
            if depth < _DEEPEST:
                inner = [
                    (f"{field}.{name}" if field else str(name), str(name), each, depth + 1)
                    for name, each in value.items()
                ]
                waiting += reversed([each for each in inner if named is None or each[1] not in named])
        elif isinstance(value, list):
            if (
                _BOX_KEY.fullmatch(key.lower())
                and len(value) == 4
                and not isinstance(value[0], list | Mapping)
            ):
                _add_box(found, field, value)
            elif depth < _DEEPEST:
                inside = field if field.endswith("[]") else f"{field}[]"
                waiting += [(inside, key, each, depth + 1) for each in reversed(value[:left])]
    return found


def named_numbers(row: Mapping[str, Any]) -> tuple[str, str, str, str] | None:
    """The four names under which a mapping has the numbers of a box, as it spells them; None if it has none."""
    plain = {plain_name(str(name)): name for name in row}
    for names in NAMED_NUMBERS:
        if plain.keys() >= {*names}:
            a, b, c, d = (plain[name] for name in names)
            return a, b, c, d
    return None


@lru_cache(maxsize=1024)
def plain_name(name: str) -> str:
    """A column's name as it is compared: `X Min`, `x_min` and `bbox_xmin` are `xmin`."""
    return _BOX_PREFIX.sub("", _NO_LETTERS.sub("", name.lower()), count=1)


def size_of(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height of the picture as a row states them."""
    pair = row.get("image_wh")
    if isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2:
        return checked_size(*pair)
    lower = {str(name).strip().lower(): name for name in row}
    boxed = {str(name).lower() for name in named_numbers(row) or ()}
    for names in SIZE_NAMES:
        if all(name in lower for name in names) and not boxed & {*names}:
            return checked_size(*(row[lower[name]] for name in names))
    return None


def checked_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Two whole numbers from 1 to a million; else None."""
    sides = [number_of(side) for side in (width, height)]
    if any(side is None or not 1 <= side <= 1e6 or side % 1 for side in sides):
        return None
    return int(sides[0] or 0), int(sides[1] or 0)


def image_of(row: Mapping[str, Any]) -> Any:
    """The image of a row: a name, or {"bytes", "path"}; None if it has none, or several."""
    lower = {str(name).strip().lower(): name for name in row}
    for name in IMAGE_NAMES:
        value = row.get(lower.get(name, ""))
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else None
        if isinstance(value, str | Mapping) and value:
            return value
        if type(value) is int:
            return str(value)
    return None


def number_of(value: Any) -> float | None:
    """A finite number of at most a billion, from a number or its digits; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)[:60]) > 50:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) <= _LARGEST_NUMBER else None


def boxes_in(text: str) -> list[Numbers]:
    """Four numbers in brackets, four location tokens, or a text of four numbers alone."""
    groups = [each.groups() for pattern in (_BRACKETED, _LOCATIONS) for each in pattern.finditer(text)]
    if not groups and (alone := _ALONE.fullmatch(text)):
        groups = [alone.groups()]
    found = []
    for group in groups:
        a, b, c, d = map(float, group)
        found.append((a, b, c, d))
    return found


def may_hold_boxes(text: str) -> bool:
    """Whether a text holds what `boxes_in` finds, or tokens of other models."""
    return bool(boxes_in(text) or _OTHER_TOKENS.search(text))


def _add_box(found: RowContent, field: str, values: Sequence[Any]) -> None:
    numbers = [number_of(value) for value in values]
    if all(value is None or value == "" for value in values):
        return  # an absent object
    if any(number is None for number in numbers):
        found.broken.append(field)
        return
    a, b, c, d = (number or 0.0 for number in numbers)
    found.boxes.append((field, (a, b, c, d)))
