"""COCO instance files: their images, categories and objects.

The file is not trusted: names in it are compared with the existing files and never opened.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from .faults import FaultyImageError
from .label_names import clean_label

MAX_FILE_BYTES = 2**30
_NO_CROWD = (None, 0, "0", "")  # 0 is equal to False and 0.0


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image of the file. size_wh: the width and height that the file states; None if it does not."""

    file_name: str
    size_wh: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class CocoObject:
    """An object of an image; segmentation and bbox are as the file has them.

    annotation: its id. category: the key of its category. crowd: it is a region of many objects.
    """

    annotation: str
    category: str
    segmentation: Any
    bbox: Any
    crowd: bool


@dataclass(frozen=True)
class CocoFile:
    """images and categories by key, which is an id as text; the objects of each image by the image's key."""

    dataset: str
    images: dict[str, CocoImage]
    categories: dict[str, str]
    objects: dict[str, list[CocoObject]]

    @classmethod
    def read(cls, folder: Path, name: str, dataset: str) -> CocoFile:
        """Read the file of that name in a folder. Raises ValueError, in one line, if it is not a COCO instance file."""
        path = folder / name
        if PurePath(name).name != name or not path.is_file():
            raise ValueError(f"annotations {name!r} must be a file beside labels.yaml in {folder}")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes; split it")
        try:
            content = json.loads(path.read_bytes())
            objects: dict[str, list[CocoObject]] = {}
            for number, entry in enumerate(content["annotations"]):
                objects.setdefault(_key(entry["image_id"]), []).append(_object(entry, number))
            images = _by_key((entry["id"], _image(entry)) for entry in content["images"])
            categories = _by_key((entry["id"], str(entry["name"])) for entry in content["categories"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path} is not a COCO instance file ({type(error).__name__}: {error}); it needs images, "
                "annotations and categories"
            ) from error
        return cls(dataset, images, categories, objects)

    @property
    def labels(self) -> list[str]:
        """The clean names of all categories that have one."""
        names = [self.name_of(category) for category in self.categories]
        return list(dict.fromkeys(name for name in names if name is not None))

    def labels_of(self, image: str) -> tuple[str, ...]:
        """The clean names of an image's objects."""
        names = [self.name_of(each.category) for each in self.objects.get(image, [])]
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def name_of(self, category: str) -> str | None:
        """The clean name of a category; None if it has none."""
        try:
            return clean_label(self.dataset, self.categories.get(category, ""))
        except FaultyImageError:
            return None

    def marked_wh(self, image: str) -> tuple[int, int] | None:
        """Width and height of the image that the marks were made on: as stated, else those of run lengths."""
        if (size_wh := self.images[image].size_wh) is not None:
            return size_wh
        for each in self.objects.get(image, []):
            size = each.segmentation.get("size") if isinstance(each.segmentation, dict) else None
            if isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size):
                return size[1], size[0]
        return None


def _key(value: Any) -> str:
    """An id of the file as text: 7, 7.0 and "7" are one id. Raises ValueError if it is no number and no text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"id {str(value)[:80]!r} is neither a number nor a text")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"id {value} is not finite")
        value = int(value) if value.is_integer() else value
    return str(value)


def _by_key(items: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """Values by the key of their id. Raises ValueError if one id has two values."""
    found: dict[str, Any] = {}
    for identifier, value in items:
        if found.setdefault(key := _key(identifier), value) != value:
            raise ValueError(f"id {key[:80]!r} is used twice, for {_shown(found[key])} and {_shown(value)}")
    return found


def _shown(value: CocoImage | str) -> str:
    return repr(value.file_name if isinstance(value, CocoImage) else value)[:80]


def _image(entry: dict[str, Any]) -> CocoImage:
    sides = [entry.get(name) for name in ("width", "height")]
    if any(side in (None, 0, "") for side in sides):
        return CocoImage(str(entry["file_name"]), None)
    numbers = [float(str(side)) for side in sides]
    if not all(side > 0 and side.is_integer() for side in numbers):
        raise ValueError(
            f"image {_key(entry['id'])[:80]} is {str(sides[0])[:40]}x{str(sides[1])[:40]} pixels"
        )
    return CocoImage(str(entry["file_name"]), (int(numbers[0]), int(numbers[1])))


def _object(entry: dict[str, Any], number: int) -> CocoObject:
    identifier = " ".join(str(entry.get("id", f"number {number + 1:,}")).split())[:40]
    crowd = entry.get("iscrowd") not in _NO_CROWD
    segmentation, bbox = entry.get("segmentation"), entry.get("bbox")
    return CocoObject(identifier, _key(entry["category_id"]), segmentation, bbox, crowd)
