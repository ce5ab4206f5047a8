"""Sampling by rank: equal shares, distance between slices, nested samples."""

from __future__ import annotations

import sqlite3
from collections import Counter

from bird_hf.data.build.sampling import pick
from bird_hf.data.draws import draw_of

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
    assert sorted(slices) == [*range(60)]  # and all of them if more are wanted


def test_a_small_sample_is_the_beginning_of_a_large_one() -> None:
    assert picked(ROWS, 20) == picked(ROWS, 200)[:20]


def test_the_seed_decides_and_the_order_of_the_source_does_not() -> None:
    assert picked(ROWS, 50) == picked(ROWS[::-1], 50)
    assert picked(ROWS, 50, seed=1) != picked(ROWS, 50)
