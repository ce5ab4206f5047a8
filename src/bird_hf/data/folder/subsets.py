"""Nested subsets of a training split, to measure how much data is needed (BiRD, Table 1).

The subset of 20,000 turns is `chat_20k`; `vg_20k` are the visual grounding turns of the same images. A subset holds
whole images, and each subset is part of the next larger one. All have the same shares of modalities and datasets,
because images are published in an order in which every prefix has those shares.
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
    """An image to be published. stratum: the group whose share is kept. turns: the number of turns about it."""

    image_id: str
    stratum: Hashable
    turns: int


@dataclass
class Subset:
    """The first `images` images of a training split. shards, rows: by config, how many belong to the subset."""

    name: str
    images: int
    turns: int
    shards: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)


def stratified(images: Sequence[ImageOrder]) -> list[ImageOrder]:
    """Reorder images so that in every prefix the strata have about the shares that they have in the whole.

    Image i of the n images of a stratum is placed at (i + 1/2) / n of the list; within a stratum the order stays.
    """
    sizes = Counter(image.stratum for image in images)
    seen: Counter[Hashable] = Counter()
    places = []
    for number, image in enumerate(images):
        places.append(((seen[image.stratum] + 0.5) / sizes[image.stratum], number))
        seen[image.stratum] += 1
    return [images[number] for _, number in sorted(places)]


def cut(images: Sequence[ImageOrder], sizes: Sequence[int]) -> list[Subset]:
    """The subset of each size: the longest prefix of `images` with at most that many turns.

    A size larger than the whole split gives no subset, nor does one smaller than the first image.
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
    """ "20000,40000" -> (20000, 40000); "" -> (). Raises ValueError if these are not increasing whole numbers."""
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    if not all(word.isascii() and word.isdigit() and len(word) < 13 for word in words):
        raise ValueError(
            f"subsets {text!r} must be numbers of turns separated by commas, such as 20000,40000,80000"
        )
    sizes = tuple(map(int, words))
    if list(sizes) != sorted({*sizes} - {0}):
        raise ValueError(f"subsets {text!r} must be increasing and at least 1, such as 20000,40000,80000")
    return sizes
