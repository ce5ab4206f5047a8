"""COCO instance files: images, categories, and each object's polygons or run lengths -> masks.

The file is not trusted: names in it are compared with the existing files and never opened, and sizes are checked
before anything is unpacked. For this reason masks are not made by pycocotools: NaN or very large coordinates hang or
crash the process there, and run lengths that do not fill the image leave uninitialised memory in the mask. Its
polygons also cover other pixels; `fill_polygon` takes the pixels whose centres are inside, as boxes do. For valid run
lengths the masks are equal, which the tests check.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from .faults import Drop, FaultyImageError
from .label_names import clean_label

MAX_FILE_BYTES = 2**30
_MAX_CORNERS = 100_000
_MAX_COORDINATE = 2**31  # pixels; far beyond any image, and far below an overflow


@dataclass(frozen=True)
class CocoFile:
    """images: id -> file name. objects: image id -> (category id, segmentation) of each object."""

    dataset: str
    images: dict[int, str]
    categories: dict[int, str]
    objects: dict[int, list[tuple[int, Any]]]

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
            objects: dict[int, list[tuple[int, Any]]] = {}
            for entry in content["annotations"]:
                item = (int(entry["category_id"]), entry.get("segmentation"))
                objects.setdefault(int(entry["image_id"]), []).append(item)
            images = {int(entry["id"]): str(entry["file_name"]) for entry in content["images"]}
            categories = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path} is not a COCO instance file ({type(error).__name__}: {error}); it needs images, "
                "annotations and categories"
            ) from error
        return cls(dataset, images, categories, objects)

    @property
    def labels(self) -> list[str]:
        """The clean names of all categories that have one."""
        names = [self._name(category) for category in self.categories]
        return list(dict.fromkeys(name for name in names if name is not None))

    def labels_of(self, image_id: int) -> tuple[str, ...]:
        """The clean names of an image's objects."""
        names = [self._name(category) for category, _ in self.objects.get(image_id, [])]
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def masks_of(self, image_id: int, shape: tuple[int, ...]) -> list[tuple[str, np.ndarray]]:
        """(name, mask (H, W) bool) of each object. Raises FaultyImageError if a name or a mask is unusable."""
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
