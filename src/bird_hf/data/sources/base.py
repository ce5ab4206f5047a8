"""The interface of all sources of images with masks.

A source lists its images without decoding them, and reads one image at a time. A listed image can be stored and read
later in another process: `Candidate.where` is JSON that only its source interprets.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...hub.boxes import Box
from ..records import ImageInfo, MaskedImage
from .archives import part_paths
from .description import Faulty
from .faults import Drop, FaultyImageError, check_mask, check_pixels, check_union

_ROUNDING_PX = 1e-6  # what a box loses as fractions of the image


@dataclass(frozen=True)
class Candidate:
    """An image that can be read.

    labels: the clean names of its objects, if they are known without decoding it. where: JSON, for the source.
    """

    info: ImageInfo
    labels: tuple[str, ...]
    where: Any


@dataclass(frozen=True)
class LeftOut:
    """An image that is dropped without being decoded. detail: the values, names or sizes that were found."""

    name: str
    reason: Drop
    detail: str = ""


class Source(Protocol):
    """A collection of images with masks."""

    kind: str
    pixels_are_free: (
        bool  # whether a published dataset may contain the images; phantoms always may be published
    )

    def listed(self) -> Iterator[Candidate | LeftOut]:
        """Yield every image, in any order, without decoding it."""

    def read(self, candidate: Candidate) -> MaskedImage:
        """Read pixels and masks. Raises FaultyImageError, with the reason, if one of them has a fault."""


def checked(
    info: ImageInfo,
    pixels: np.ndarray,
    masks: Sequence[tuple[str, np.ndarray]],
    absent: Sequence[str],
    boxes: Sequence[tuple[str, Box]] = (),
    faulty: Faulty = Faulty.DROP_IMAGE,
) -> MaskedImage:
    """A MaskedImage of pixels, masks and boxes without faults.

    faulty: whether a faulty object drops the image, or is dropped alone and its name is not absent. Raises
    FaultyImageError if the image has a fault, or no object without one is left.
    """
    check_pixels(pixels)
    height, width = pixels.shape[:2]
    whole_masks: list[tuple[str, np.ndarray]] = []
    whole_boxes: list[tuple[str, Box]] = []
    faults: dict[str, FaultyImageError] = {}  # by label
    for label, mask in masks:
        try:
            check_mask(mask, pixels.shape)
            whole_masks.append((label, mask))
        except FaultyImageError as error:
            faults.setdefault(label, _with_label(error, label))
    for label, box in boxes:
        try:
            check_box(box, (width, height))
            whole_boxes.append((label, box))
        except FaultyImageError as error:
            faults.setdefault(label, _with_label(error, label))
    if faults and (faulty is Faulty.DROP_IMAGE or not (whole_masks or whole_boxes)):
        raise next(iter(faults.values()))
    check_union(whole_masks)
    absent = tuple(label for label in absent if label not in faults)
    return MaskedImage(info, pixels, tuple(whole_masks), absent, tuple(whole_boxes))


def check_box(box: Box, image_wh: tuple[int, int]) -> None:
    """Raises FaultyImageError if a box has less than a pixel."""
    x1, y1, x2, y2 = box.to_pixels(image_wh)
    if min(x2 - x1, y2 - y1) < 1 - _ROUNDING_PX:
        raise FaultyImageError(Drop.UNREADABLE_BOX, f"{x2 - x1:.3g}x{y2 - y1:.3g} pixels, less than one")


def _with_label(error: FaultyImageError, label: str) -> FaultyImageError:
    """The same fault, its detail with the label."""
    return FaultyImageError(error.reason, f"{label}: {error.detail}" if error.detail else label)


def fingerprint(path: Path) -> str:
    """A hash of the names, sizes and modification times of a source's files, in any order; no file is read.

    path: a folder, with everything below it, or an archive, with all its parts.
    """
    if path.is_file():
        entries = [(part.name, part.stat()) for part in part_paths(path)]
        return f"{sum(_entry_hash(*entry) for entry in entries):x}"
    folders = [child for child in path.iterdir() if child.is_dir()]
    files = chain(files_below(path, deep=False), *map(files_below, folders))
    return f"{sum(_entry_hash(entry.name, entry.stat()) for entry in files):x}"


def files_below(folder: Path, deep: bool = True) -> Iterator[os.DirEntry[str]]:
    """Yield the files of a folder and, if `deep`, of all folders below it except hidden ones and symbolic links."""
    folders = [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_file():
                    yield entry
                elif deep and entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    folders.append(entry.path)


def _entry_hash(name: str, status: os.stat_result) -> int:
    text = f"{name}\0{status.st_size}\0{status.st_mtime_ns}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).digest(), "big")
