"""A tiny volume with one marked corner, stored in any orientation."""

from __future__ import annotations

import numpy as np

SHAPE = (4, 5, 6)


def patient() -> np.ndarray:
    """RAS+ voxels (4, 5, 6) with one mark in the right, anterior, superior corner and one beside it."""
    voxels = np.zeros(SHAPE, np.int16)
    voxels[-1, -1, -1], voxels[-2, -1, -1] = 100, 50
    return voxels


def stored(order: tuple[int, ...], signs: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The same patient, and its affine, as another scanner stores it: axes permuted, some reversed."""
    target = np.stack([np.array(order), np.array(signs)], axis=1)
    # axis n of the stored array runs along RAS axis target[n]
    voxels = np.transpose(patient(), order)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (ras, sign) in enumerate(target):
        affine[ras, axis] = sign * (ras + 1.0)
        if sign < 0:
            voxels = np.flip(voxels, axis)
            affine[ras, 3] = (ras + 1.0) * (SHAPE[ras] - 1)
    return np.ascontiguousarray(voxels), affine
