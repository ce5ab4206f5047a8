"""Sampling by rank: even shares, distance between slices, nested samples; and the split by case, with its audit."""

from __future__ import annotations

import sqlite3
from collections import Counter

import numpy as np
import pytest

from bird_hf.data.build.sampling import pick
from bird_hf.data.build.split import PlacedImage, check_no_leak, find_leaks, split_cases
from bird_hf.data.draws import draw_of
from bird_hf.data.near_duplicates import MAX_DISTANCE, Looks, look_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality

COLUMNS = "image_id, modality, dataset, rarest, case_id, volume, slice, draw"


def picked(rows: list[tuple], count: int, seed: int = 0) -> list[str]:
    """The image ids of a sample in the order of their ranks. rows: (modality, dataset, rarest, case, slice)."""
    database = sqlite3.connect(":memory:")
    database.execute(f"CREATE TABLE images ({COLUMNS})")
    database.execute("CREATE TABLE picked (image_id, rank)")
    for modality, dataset, rarest, case, index in rows:
        image_id = f"{modality}--{dataset}--{case}--{index}"
        volume = f"{modality}--{dataset}--{case}" if index is not None else image_id
        row = (image_id, modality, dataset, rarest, case, volume, index, draw_of(seed, image_id))
        database.execute("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    pick(database, count)
    return [image_id for (image_id,) in database.execute("SELECT image_id FROM picked ORDER BY rank")]


# 3,000 slices of CT in 30 volumes, 60 of MR in one, and 12 photographs.
ROWS = (
    [("ct", f"ct{case % 3}", "liver", f"case{case}", index) for case in range(30) for index in range(100)]
    + [("mr", "mr0", "tumor", "head", index) for index in range(60)]
    + [("fundus", "eyes", "optic disc", f"eye{case}", None) for case in range(12)]
)


def test_modalities_datasets_and_cases_have_even_shares() -> None:
    sample = picked(ROWS, 36)
    assert Counter(name.split("--")[0] for name in sample) == {"ct": 12, "mr": 12, "fundus": 12}
    of_ct = [name.split("--") for name in sample if name.startswith("ct")]
    assert Counter(parts[1] for parts in of_ct) == {"ct0": 4, "ct1": 4, "ct2": 4}
    assert len({parts[2] for parts in of_ct}) == 12


def test_rare_classes_come_as_often_as_frequent_ones() -> None:
    rows = [("ct", "d", "rare" if index < 5 else "common", f"case{index}", None) for index in range(200)]
    assert sum(int(name.split("case")[1].split("--")[0]) < 5 for name in picked(rows, 10)) == 5


def test_neighbouring_slices_are_taken_last() -> None:
    slices = [int(name.rsplit("--", 1)[1]) for name in picked(ROWS, 10**6) if name.startswith("mr")]
    assert len({index // 5 for index in slices[:12]}) == 12  # one of each five
    assert sorted(slices) == [*range(60)]  # and all of them where more are wanted


def test_a_small_sample_is_the_beginning_of_a_large_one() -> None:
    assert picked(ROWS, 20) == picked(ROWS, 200)[:20]


def test_the_seed_decides_and_the_order_of_the_source_does_not() -> None:
    assert picked(ROWS, 50) == picked(ROWS[::-1], 50)
    assert picked(ROWS, 50, seed=1) != picked(ROWS, 50)


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


LOOKS = [look_of(draw_phantom(Modality.CT, seed, 64).pixels) for seed in range(3)]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (PlacedImage("ct--d--case1--x_1", "d/case1", LOOKS[1], "test"), "case d/case1 is in train and in test"),
        (PlacedImage("ct--ACDC--patient001_frame12--x_1", "?", LOOKS[1], "test"), "patient ACDC/patient001"),
        (PlacedImage("ct--e--case2--x_1", "e/case2", LOOKS[0], "test"), "looks like ct--d--case1"),
    ],
)
def test_a_leak_is_refused_and_named(other: PlacedImage, says: str) -> None:
    images = [
        PlacedImage("ct--d--case1--x_1", "d/case1", LOOKS[0], "train"),
        PlacedImage("ct--ACDC--patient001_frame01--x_1", "ACDC/patient001", LOOKS[2], "train"),
    ]
    assert find_leaks(images) == []
    with pytest.raises(ValueError, match=says):
        check_no_leak([*images, other])


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
