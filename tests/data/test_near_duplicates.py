"""The index finds what a comparison with every hash finds, and copies have near hashes."""

from __future__ import annotations

import numpy as np

from bird_hf.data.near_duplicates import MAX_DISTANCE, HashIndex, difference_hash
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality


def test_a_search_finds_all_that_a_comparison_with_every_look_finds() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 256, (40, 32), np.uint8)
    kinds[:20, :24] = 0  # dark pictures have most bits in common
    bits = np.unpackbits(kinds[rng.integers(0, 40, 9000)], axis=1)
    for row, flipped in zip(bits, rng.integers(0, 20, len(bits)), strict=True):
        row[rng.choice(256, flipped, replace=False)] ^= 1
    words = np.packbits(bits, axis=1)
    index = HashIndex()
    for number, word in enumerate(words):
        if number % 100 == 0:
            apart = np.bitwise_count(words[:number] ^ word).sum(axis=1, dtype=int)
            assert index.near(word.tobytes()).tolist() == np.flatnonzero(apart <= MAX_DISTANCE).tolist()
        index.add(word.tobytes())


def test_a_copy_looks_the_same_and_another_picture_does_not() -> None:
    index = HashIndex()
    pictures = [draw_phantom(modality, seed, 96).pixels for modality in Modality for seed in range(3)]
    for picture in pictures:
        assert not index.near(difference_hash(picture)).size
        index.add(difference_hash(picture))
    for number, picture in enumerate(pictures):
        darker = (picture * 0.8 + 10).astype(np.uint8)
        larger = picture.repeat(2, axis=0).repeat(2, axis=1)
        assert index.near(difference_hash(darker)).tolist() == [number]
        assert index.near(difference_hash(larger)).tolist() == [number]
