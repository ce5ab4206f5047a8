"""Splits by case, and the search for leaks."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bird_hf.data.build.split import PlacedImage, check_no_leak, find_leaks, split_cases
from bird_hf.data.near_duplicates import difference_hash
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality


def test_cases_stay_whole_and_every_stratum_has_its_share() -> None:
    rng = np.random.default_rng(0)
    cases = {
        f"{modality}/{number}": Counter({(modality, f"{modality}{number % 2}"): int(rng.integers(1, 9))})
        for modality in ("ct", "mr", "pet")
        for number in range(120)
    }
    splits = split_cases(cases, seed=0)
    assert splits == split_cases(dict(reversed(cases.items())), seed=0)
    assert splits != split_cases(cases, seed=1)
    for modality in ("ct", "mr", "pet"):
        images = Counter[str]()
        for case_id, counts in cases.items():
            if case_id.startswith(modality):
                images[splits[case_id]] += sum(counts.values())
        assert images["test"] / images.total() == pytest.approx(0.12, abs=0.02)


def test_many_small_strata_have_their_share_together() -> None:
    cases = {f"d{n}/0": Counter({("ct", f"d{n:03d}"): 3}) for n in range(100)}
    assert Counter(split_cases(cases, 0).values())["test"] == 12


@pytest.mark.parametrize(("sizes", "test"), [([5], 0), ([50, 50], 1), ([40, 3, 50], 1)])
def test_a_few_cases_leave_a_test_where_there_are_two(sizes: list[int], test: int) -> None:
    cases = {f"d/{n}": Counter({("ct", "d"): size}) for n, size in enumerate(sizes)}
    assert Counter(split_cases(cases, 0).values())["test"] == test


HASHES = [difference_hash(draw_phantom(Modality.CT, seed, 64).pixels) for seed in range(3)]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (
            PlacedImage("ct--d--case1--x_1", "d/case1", HASHES[1], "test"),
            "case d/case1 is in train and in test",
        ),
        (PlacedImage("ct--ACDC--patient001_frame12--x_1", "?", HASHES[1], "test"), "patient ACDC/patient001"),
        (PlacedImage("ct--e--case2--x_1", "e/case2", HASHES[0], "test"), "looks like ct--d--case1"),
    ],
)
def test_a_leak_is_refused_and_named(other: PlacedImage, says: str) -> None:
    images = [
        PlacedImage("ct--d--case1--x_1", "d/case1", HASHES[0], "train"),
        PlacedImage("ct--ACDC--patient001_frame01--x_1", "ACDC/patient001", HASHES[2], "train"),
    ]
    assert find_leaks(images) == []
    with pytest.raises(ValueError, match=says):
        check_no_leak([*images, other])
