"""COCO instance files: images, categories, and each object's outline as polygons or run lengths -> masks.

The file is hostile: names are compared with the files that are there and never opened, and sizes are checked before
anything is unpacked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from .faults import Drop, FaultyImageError
from .label_names import clean_label

MAX_FILE_BYTES = 2**30
_MOST_CORNERS = 100_000


@dataclass(frozen=True)
class CocoFile:
    """images: id -> file name. objects: image id -> (category id, segmentation) of each object."""

    dataset: str
    images: dict[int, str]
    categories: dict[int, str]
    objects: dict[int, list[tuple[int, Any]]]

    @classmethod
    def read(cls, folder: Path, name: str, dataset: str) -> CocoFile:
        """The file of that plain name in a folder. Raises ValueError in one line where it is no COCO instance file."""
        path = folder / name
        if PurePath(name).name != name or not path.is_file():
            raise ValueError(f"annotations {name!r} must be a file beside labels.yaml in {folder}")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{path} is beyond the limit of {MAX_FILE_BYTES:,} bytes; cut it in parts")
        try:
            content = json.loads(path.read_bytes())
            objects: dict[int, list[tuple[int, Any]]] = {}
            for entry in content["annotations"]:
                item = (int(entry["category_id"]), entry.get("segmentation"))
                objects.setdefault(int(entry["image_id"]), []).append(item)
            images = {int(entry["id"]): str(entry["file_name"]) for entry in content["images"]}
            categories = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path} is no COCO instance file ({type(error).__name__}: {error}); it needs images, annotations "
                "and categories"
            ) from error
        return cls(dataset, images, categories, objects)

    @property
    def labels(self) -> list[str]:
        """The clean names of the categories that have one."""
        names = [self._name(category) for category in self.categories]
        return list(dict.fromkeys(name for name in names if name is not None))

    def labels_of(self, image_id: int) -> tuple[str, ...]:
        """The clean names of what an image shows."""
        names = [self._name(category) for category, _ in self.objects.get(image_id, [])]
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def masks_of(self, image_id: int, shape: tuple[int, ...]) -> list[tuple[str, np.ndarray]]:
        """(name, mask (H, W) bool) of each object. Raises FaultyImageError where one cannot be told."""
        masks = []
        for category, segmentation in self.objects.get(image_id, []):
            if (name := self._name(category)) is None:
                raise FaultyImageError(Drop.UNNAMED_CLASS, f"category {category}")
            try:
                masks.append((name, mask_of(segmentation, shape)))
            except FaultyImageError:
                raise
            except (ValueError, KeyError, TypeError, OverflowError) as error:
                raise FaultyImageError(Drop.UNREADABLE_MASK, str(error)) from error
        return masks

    def _name(self, category: int) -> str | None:
        try:
            return clean_label(self.dataset, self.categories.get(category, ""))
        except FaultyImageError:
            return None


def mask_of(segmentation: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A COCO segmentation -> (H, W) bool: a list of polygons, or run lengths as numbers or as a string."""
    if isinstance(segmentation, list) and segmentation:
        mask = np.zeros(shape, bool)
        for polygon in segmentation:
            mask |= fill_polygon(polygon, shape)
        return mask
    if not isinstance(segmentation, dict):
        raise ValueError("an object without an outline")
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
    # Runs go down the columns, and begin with background.
    return np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(shape[1], shape[0]).T


def fill_polygon(corners_xy: list[float], shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool: the pixels whose centres are inside [x1, y1, x2, y2, ...], by the even-odd rule."""
    corners = np.array(corners_xy, dtype=np.float64).reshape(-1, 2)
    if not 3 <= len(corners) <= _MOST_CORNERS or not np.isfinite(corners).all():
        raise ValueError("a polygon needs three corners or more, all of them numbers")
    height, width = shape
    crossings = np.zeros((height, width + 1), np.int32)  # where a row, from left to right, enters or leaves
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        top, bottom = sorted((y1, y2))
        rows = np.arange(*np.clip(np.ceil([top - 0.5, bottom - 0.5]), 0, height).astype(int))
        if rows.size:
            x = x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1)
            np.add.at(crossings, (rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)), 1)
    return (np.cumsum(crossings, axis=1)[:, :width] % 2).astype(bool)


def unpack_runs(text: str) -> list[int]:
    """COCO's string of run lengths: 5 bits a character, lowest first; from the fourth on, differences to two before."""
    runs: list[int] = []
    value = shift = 0
    for character in text.encode("ascii"):
        bits = character - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("run lengths that are none")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("run lengths that are cut off")
    return runs
