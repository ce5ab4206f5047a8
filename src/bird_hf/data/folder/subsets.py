"""Nested parts of a training split, for the question of how much data is needed (BiRD, Table 1).

A part of 20,000 turns is `chat_20k`, and `vg_20k` are the visual groundings of the same images. Each holds whole
images and lies inside the next; all have the same shares of modalities and datasets, because images are published in
an order of which every beginning has them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

SIZES = (20_000, 40_000, 80_000)  # turns; BiRD, Table 1


@dataclass(frozen=True)
class ImageOrder:
    """An image on its way to be published. stratum: what shares are kept of. turns: how many it has."""

    image_id: str
    stratum: Hashable
    turns: int


@dataclass
class Subset:
    """The first `images` of a training split. shards: files by config, the first ones; rows: of these."""

    name: str
    images: int
    turns: int
    shards: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)


def stratified(images: Sequence[ImageOrder]) -> list[ImageOrder]:
    """The same images in an order of which every beginning has the strata in the shares that they have in all.

    Image i of the n of a stratum has its place at (i + 1/2) / n of the whole; within a stratum the order stays.
    """
    sizes = Counter(image.stratum for image in images)
    seen: Counter[Hashable] = Counter()
    places = []
    for number, image in enumerate(images):
        places.append(((seen[image.stratum] + 0.5) / sizes[image.stratum], number))
        seen[image.stratum] += 1
    return [images[number] for _, number in sorted(places)]


def cut(images: Sequence[ImageOrder], sizes: Sequence[int]) -> list[Subset]:
    """For each size the images at the beginning that have at most so many turns together.

    A size that all images together do not reach has no subset, nor has one that not even the first image fits in.
    """
    running = [*accumulate(image.turns for image in images)]
    subsets = []
    for size in sizes:
        count = bisect_right(running, size)
        if count and size <= running[-1]:
            subsets.append(Subset(name_of(size), count, running[count - 1]))
    return subsets


def name_of(size: int) -> str:
    """20_000 -> "20k"."""
    return f"{size // 1000}k" if size % 1000 == 0 else str(size)


def read_sizes(text: str) -> tuple[int, ...]:
    """ "20000,40000" -> (20000, 40000); nothing -> (). Raises ValueError where these are no rising numbers."""
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    if not all(word.isascii() and word.isdigit() and len(word) < 13 for word in words):
        raise ValueError(f"subsets {text!r} must be numbers of turns with commas, such as 20000,40000,80000")
    sizes = tuple(map(int, words))
    if list(sizes) != sorted({*sizes} - {0}):
        raise ValueError(f"subsets {text!r} must rise from 1 on, such as 20000,40000,80000")
    return sizes
