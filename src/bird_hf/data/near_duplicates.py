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
_GROUPS = MAX_DISTANCE + 1
_LONGEST_GROUP = -(-(HASH_SIDE**2) // _GROUPS)
_WEIGHTS = 1 << np.arange(_LONGEST_GROUP, dtype=np.uint32)
_NEWEST = 4096  # looks that are compared one by one, before all are put in order again
_LEAST_RISE = 0.5  # grey levels: even ground stays even when it is stored anew


def look_of(pixels: np.ndarray) -> bytes:
    """The hash of a picture (H, W) or (H, W, 3) uint8: 32 bytes."""
    grey = Image.fromarray(pixels).convert("L").convert("F")
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BICUBIC))
    return np.packbits(np.diff(small, axis=1) > _LEAST_RISE).tobytes()


class Looks:
    """The looks of pictures by number of arrival, and a search among them that does not compare with all.

    Two looks that differ in at most 10 bits have one of 11 groups of bits in common, so only those that share a group
    are compared. A group is every 11th bit: bits of the whole picture, since many pictures have the same dark edges.
    The newest are not in order by group yet, and are all compared.
    """

    def __init__(self) -> None:
        self._words = np.zeros((_NEWEST, 4), np.uint64)
        self._groups = np.zeros((_NEWEST, _GROUPS), np.uint32)
        self._count = 0
        self._order = np.zeros((_GROUPS, 0), np.uint32)  # numbers, by each group's value
        self._values = np.zeros((_GROUPS, 0), np.uint32)  # of the groups, in that order

    def add(self, look: bytes) -> None:
        if self._count == len(self._words):
            self._words = np.concatenate([self._words, np.zeros_like(self._words)])
            self._groups = np.concatenate([self._groups, np.zeros_like(self._groups)])
        self._words[self._count] = np.frombuffer(look, np.uint64)
        self._groups[self._count] = _groups_of(look)
        self._count += 1
        if self._count - self._order.shape[1] == _NEWEST:
            groups = self._groups[: self._count].T
            self._order = np.argsort(groups, axis=1).astype(np.uint32)
            self._values = np.take_along_axis(groups, self._order, axis=1)

    def like(self, look: bytes) -> np.ndarray:
        """The numbers of those that look like this one, in the order of their arrival."""
        old = self._order.shape[1]
        near = [np.arange(old, self._count, dtype=np.uint32)]
        for value, values, order in zip(_groups_of(look), self._values, self._order, strict=True):
            near.append(order[np.searchsorted(values, value) : np.searchsorted(values, value, "right")])
        numbers = np.unique(np.concatenate(near))
        bits = np.bitwise_count(self._words[numbers] ^ np.frombuffer(look, np.uint64))
        return numbers[bits.sum(axis=1, dtype=np.int64) <= MAX_DISTANCE]


def _groups_of(look: bytes) -> np.ndarray:
    """The values (11,) uint32 of the groups of a look: 23 or 24 bits each."""
    bits = np.zeros((_LONGEST_GROUP, _GROUPS), np.uint32)
    bits.ravel()[: 8 * len(look)] = np.unpackbits(np.frombuffer(look, np.uint8))
    return _WEIGHTS @ bits
