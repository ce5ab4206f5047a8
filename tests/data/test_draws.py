"""Pseudo-random numbers depend on the seed and the name, and on nothing else."""

from __future__ import annotations

import numpy as np

from bird_hf.data.draws import draw_of


def test_a_draw_is_the_same_everywhere_and_at_any_time() -> None:
    # The samples and splits of published datasets depend on this value.
    assert draw_of(0, "ct_00--LIDC--1--z_0001") == 2_474_651_658_419_657_415


def test_seed_and_name_are_kept_apart() -> None:
    assert draw_of(1, "2") != draw_of(12, "")
    assert len({draw_of(seed, name) for seed in range(20) for name in "abcdefghij"}) == 200


def test_draws_are_uniform_below_2_to_the_63() -> None:
    draws = np.array([draw_of(7, str(number)) for number in range(4000)]) / 2**63
    assert draws.min() >= 0 and draws.max() < 1
    counts = np.histogram(draws, 10, (0, 1))[0]
    assert counts.min() > 320 and counts.max() < 480  # 400 each
