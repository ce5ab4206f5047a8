"""Near-duplicate images: a perceptual hash, and an index of the hashes seen so far.

The hash is the difference hash of the grey image at 17 x 16: one bit per pair of horizontal neighbours, set if the
image becomes brighter. Scale, contrast and compression hardly change it.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

HASH_SIDE = 16
# Of 256 bits. Copies, rescaled versions and neighbouring slices are within this distance.
MAX_DISTANCE = 10
_GROUPS = MAX_DISTANCE + 1
_LONGEST_GROUP = -(-(HASH_SIDE**2) // _GROUPS)
_WEIGHTS = 1 << np.arange(_LONGEST_GROUP, dtype=np.uint32)
_UNSORTED = 4096  # new hashes that are compared one by one before all are sorted again
_LEAST_RISE = 0.5  # grey levels: uniform areas stay uniform when an image is compressed again


def difference_hash(pixels: np.ndarray) -> bytes:
    """The hash of an image (H, W) or (H, W, 3) uint8: 32 bytes."""
    grey = Image.fromarray(pixels).convert("L").convert("F")
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BICUBIC))
    return np.packbits(np.diff(small, axis=1) > _LEAST_RISE).tobytes()


class HashIndex:
    """Hashes numbered in the order they were added, and a search that does not compare with all of them.

    Two hashes that differ in at most 10 bits agree in at least one of 11 groups of bits, so only hashes that share a
    group are compared. A group is every 11th bit, and so covers the whole image, because many images have the same
    dark borders. The newest hashes are not sorted by group yet, and are all compared.
    """

    def __init__(self) -> None:
        self._words = np.zeros((_UNSORTED, 4), np.uint64)
        self._groups = np.zeros((_UNSORTED, _GROUPS), np.uint32)
        self._count = 0
        self._order = np.zeros((_GROUPS, 0), np.uint32)  # numbers, sorted by each group's value
        self._values = np.zeros((_GROUPS, 0), np.uint32)  # the groups' values, in that order

    def add(self, image_hash: bytes) -> None:
        """Add a hash of 32 bytes; its number is the number of hashes added before it."""
        if self._count == len(self._words):
            self._words = np.concatenate([self._words, np.zeros_like(self._words)])
            self._groups = np.concatenate([self._groups, np.zeros_like(self._groups)])
        self._words[self._count] = np.frombuffer(image_hash, np.uint64)
        self._groups[self._count] = _groups_of(image_hash)
        self._count += 1
        if self._count - self._order.shape[1] == _UNSORTED:
            groups = self._groups[: self._count].T
            self._order = np.argsort(groups, axis=1).astype(np.uint32)
            self._values = np.take_along_axis(groups, self._order, axis=1)

    def near(self, image_hash: bytes) -> np.ndarray:
        """The numbers of the hashes within MAX_DISTANCE bits of this one, in ascending order."""
        sorted_count = self._order.shape[1]
        found = [np.arange(sorted_count, self._count, dtype=np.uint32)]
        for value, values, order in zip(_groups_of(image_hash), self._values, self._order, strict=True):
            found.append(order[np.searchsorted(values, value) : np.searchsorted(values, value, "right")])
        numbers = np.unique(np.concatenate(found))
        bits = np.bitwise_count(self._words[numbers] ^ np.frombuffer(image_hash, np.uint64))
        return numbers[bits.sum(axis=1, dtype=np.int64) <= MAX_DISTANCE]


def _groups_of(image_hash: bytes) -> np.ndarray:
    """The values (11,) uint32 of a hash's groups of 23 or 24 bits."""
    bits = np.zeros((_LONGEST_GROUP, _GROUPS), np.uint32)
    bits.ravel()[: 8 * len(image_hash)] = np.unpackbits(np.frombuffer(image_hash, np.uint8))
    return _WEIGHTS @ bits
