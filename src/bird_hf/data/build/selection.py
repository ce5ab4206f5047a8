"""Which of the images that were read a dataset holds, and in which split: a stage of `build`, in flat memory."""

from __future__ import annotations

from collections import Counter

from ..near_duplicates import HashIndex
from ..sources.faults import Drop
from .split import Placed, check_no_leak, split_cases
from .state import BuildState


def choose(state: BuildState, limit: int, seed: int, test_share: float) -> None:
    """The first images by rank that are whole and look like none before them; their split by case, without a leak.

    To be called in a transaction. Raises ValueError where no image is whole, or the split leaks.
    """
    _take(state, limit)
    if not state.count("chosen"):
        faults = state.database.execute("SELECT fault, COUNT(*) FROM reads GROUP BY fault ORDER BY fault")
        raise ValueError(f"no image of the source is whole ({', '.join(f'{n} {why}' for why, n in faults)})")
    _split(state, seed, test_share)
    placed = state.database.execute(
        "SELECT image_id, case_id, look, split FROM chosen JOIN reads USING (image_id) JOIN images USING (image_id) "
        "ORDER BY rank"
    )
    check_no_leak(Placed(*row) for row in placed)


def _take(state: BuildState, limit: int) -> None:
    looks, taken = HashIndex(), 0
    whole = state.each(
        "SELECT image_id FROM picked JOIN reads USING (image_id) WHERE fault IS NULL ORDER BY rank",
        "rank, look FROM {} JOIN picked USING (image_id) JOIN reads USING (image_id)",
    )
    for image_id, rank, look in whole:
        if taken == limit:
            break
        if looks.near(look).size:
            state.database.execute(
                "UPDATE reads SET fault = ? WHERE image_id = ?", (Drop.NEAR_DUPLICATE, image_id)
            )
            continue
        looks.add(look)
        taken += 1
        state.database.execute("INSERT INTO chosen VALUES (?, ?, NULL)", (image_id, rank))


def _split(state: BuildState, seed: int, test_share: float) -> None:
    cases: dict[str, Counter[tuple[str, str]]] = {}
    for case_id, modality, dataset, count in state.database.execute(
        "SELECT case_id, modality, dataset, COUNT(*) FROM chosen JOIN images USING (image_id) "
        "GROUP BY case_id, modality, dataset"
    ):
        cases.setdefault(case_id, Counter())[modality, dataset] = count
    splits = split_cases(cases, seed, test_share)
    state.database.execute("CREATE TEMP TABLE sides (case_id TEXT PRIMARY KEY, side TEXT)")
    state.database.executemany("INSERT INTO sides VALUES (?, ?)", splits.items())
    state.database.execute(
        "UPDATE chosen SET split = (SELECT side FROM images JOIN sides USING (case_id) "
        "WHERE images.image_id = chosen.image_id)"
    )
    state.database.execute("DROP TABLE sides")
