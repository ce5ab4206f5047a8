"""Masks as COCO's run lengths: written, read back, and equal to those of pycocotools."""

from __future__ import annotations

import numpy as np
import pytest

from bird_hf.data.sources.coco import mask_of, pack_runs, runs_of, unpack_runs

RNG = np.random.default_rng(0)


def block(rows: slice, columns: slice, shape: tuple[int, int] = (9, 13)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


ALL, NONE = slice(None), slice(0, 0)
MASKS = [
    block(ALL, ALL),  # the whole image: the first run is 0
    block(NONE, NONE),  # nothing
    block(slice(0, 1), slice(0, 1)),  # the first pixel
    block(slice(8, 9), slice(12, 13)),  # the last pixel
    block(slice(4, 5), ALL),  # a row: many runs
    block(ALL, slice(4, 5)),  # a column: one run
    block(slice(2, 7), slice(3, 9)),
    block(ALL, ALL, (1, 1)),
    block(slice(0, 1), ALL, (1, 40)),
    block(slice(100, 900), slice(7, 8), (1000, 700)),  # runs of several characters
    RNG.random((31, 17)) < 0.5,  # noise: differences of both signs
    RNG.random((64, 64)) < 0.01,
    ~(RNG.random((64, 64)) < 0.01),
]


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_is_read_back_exactly(mask: np.ndarray) -> None:
    runs = runs_of(mask)
    assert unpack_runs(pack_runs(runs)) == runs and sum(runs) == mask.size
    size = [*mask.shape]
    assert np.array_equal(mask_of({"size": size, "counts": pack_runs(runs)}, mask.shape), mask)
    assert np.array_equal(mask_of({"size": size, "counts": runs}, mask.shape), mask)


@pytest.mark.parametrize("mask", MASKS)
def test_the_text_is_that_of_pycocotools(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert pack_runs(runs_of(mask)) == expected["counts"].decode()
