"""Which pictures look the same: a perceptual hash, and those that were seen before.

The hash is the difference hash of the grey picture at 17 x 16: one bit for each pair of neighbours, set where the
picture becomes brighter. Scale, contrast and compression leave it nearly as it was.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

HASH_SIDE = 16
# Of 256 bits. Below it are copies, other sizes of one picture, and slices next to each other.
MAX_DISTANCE = 10
_LEAST_RISE = 0.5  # grey levels: even ground stays even when it is stored anew


def look_of(pixels: np.ndarray) -> bytes:
    """The hash of a picture (H, W) or (H, W, 3) uint8: 32 bytes."""
    grey = Image.fromarray(pixels).convert("L").convert("F")
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BICUBIC))
    return np.packbits(np.diff(small, axis=1) > _LEAST_RISE).tobytes()


class Looks:
    """The looks of pictures by number of arrival; a search compares with all of them, which numpy does fast."""

    def __init__(self) -> None:
        self._words = np.zeros((1024, 4), np.uint64)
        self._count = 0

    def add(self, look: bytes) -> None:
        if self._count == len(self._words):
            self._words = np.concatenate([self._words, np.zeros_like(self._words)])
        self._words[self._count] = np.frombuffer(look, np.uint64)
        self._count += 1

    def like(self, look: bytes) -> np.ndarray:
        """The numbers of those that look like this one, in the order of their arrival."""
        bits = np.bitwise_count(self._words[: self._count] ^ np.frombuffer(look, np.uint64))
        return np.flatnonzero(bits.sum(axis=1, dtype=np.int64) <= MAX_DISTANCE)
