"""The search for near-duplicate images."""

from __future__ import annotations

import numpy as np

from bird_hf.data.near_duplicates import MAX_DISTANCE, Looks, look_of
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
    looks = Looks()
    for number, word in enumerate(words):
        if number % 100 == 0:
            apart = np.bitwise_count(words[:number] ^ word).sum(axis=1, dtype=int)
            assert looks.like(word.tobytes()).tolist() == np.flatnonzero(apart <= MAX_DISTANCE).tolist()
        looks.add(word.tobytes())


def test_a_copy_looks_the_same_and_another_picture_does_not() -> None:
    looks = Looks()
    pictures = [draw_phantom(modality, seed, 96).pixels for modality in Modality for seed in range(3)]
    for picture in pictures:
        assert not looks.like(look_of(picture)).size
        looks.add(look_of(picture))
    for number, picture in enumerate(pictures):
        darker = (picture * 0.8 + 10).astype(np.uint8)
        larger = picture.repeat(2, axis=0).repeat(2, axis=1)
        assert looks.like(look_of(darker)).tolist() == [number]
        assert looks.like(look_of(larger)).tolist() == [number]
