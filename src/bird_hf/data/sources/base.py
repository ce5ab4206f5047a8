"""Where images and masks come from: one small interface over every kind of source.

A source lists its images cheaply, without reading a pixel, and reads one at a time. What it lists can be stored and
read again in another process: `Candidate.where` is JSON, and means something to that source only.
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

from ..records import ImageInfo, MaskedImage
from .archives import part_paths
from .faults import Drop, check_mask, check_pixels, check_union


@dataclass(frozen=True)
class Candidate:
    """An image that can be read. labels: the clean names of what it shows, as far as they are known by now."""

    info: ImageInfo
    labels: tuple[str, ...]
    where: Any


@dataclass(frozen=True)
class LeftOut:
    """An image that is dropped already by what is listed of it."""

    name: str
    reason: Drop


class Source(Protocol):
    """A collection of images with masks."""

    kind: str
    pixels_are_free: bool  # whether a dataset may hold copies of the images; phantoms always may be copied

    def listed(self) -> Iterator[Candidate | LeftOut]:
        """Every image, in any order; nothing is decoded."""

    def read(self, candidate: Candidate) -> MaskedImage:
        """Pixels and masks. Raises FaultyImageError with the reason where one of them cannot be trusted."""


def checked(
    info: ImageInfo, pixels: np.ndarray, masks: Sequence[tuple[str, np.ndarray]], absent: Sequence[str]
) -> MaskedImage:
    """A MaskedImage without faults. Raises FaultyImageError."""
    check_pixels(pixels)
    for _, mask in masks:
        check_mask(mask, pixels.shape)
    check_union(masks)
    return MaskedImage(info, pixels, tuple(masks), tuple(absent))


def fingerprint(path: Path) -> str:
    """What changes when a source's files do: a hash of their names, sizes and times, whatever order the disk has.

    Nothing is read. Files are those of the folder itself and all below it.
    """
    if path.is_file():
        entries = [(part.name, part.stat()) for part in part_paths(path)]
        return f"{sum(_entry_hash(*entry) for entry in entries):x}"
    folders = [child for child in path.iterdir() if child.is_dir()]
    files = chain(files_below(path, deep=False), *map(files_below, folders))
    return f"{sum(_entry_hash(entry.name, entry.stat()) for entry in files):x}"


def files_below(folder: Path, deep: bool = True) -> Iterator[os.DirEntry[str]]:
    """The files of a folder and, if `deep`, of all folders below it but hidden ones and links."""
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as found:
            for entry in found:
                if entry.is_file():
                    yield entry
                elif deep and entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    waiting.append(entry.path)


def _entry_hash(name: str, status: os.stat_result) -> int:
    text = f"{name}\0{status.st_size}\0{status.st_mtime_ns}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).digest(), "big")
