"""Choose the images of the dataset among those that were read, and their splits: a stage of `build`, in flat memory."""

from __future__ import annotations

from ..near_duplicates import HashIndex
from ..sources.faults import Drop
from .split import check_no_leak, split_cases
from .state import BuildState


class NoUsableImageError(ValueError):
    """Raised for a source of which no image can be taken."""


def choose(state: BuildState, limit: int, seed: int, test_share: float) -> None:
    """Choose the first `limit` images by rank that are whole and near-duplicates of none before; split them by case.

    Call it in a transaction. Raises NoUsableImageError if no image is whole, and ValueError if the split leaks.
    """
    _take(state, limit)
    if not state.count("chosen"):
        faults = ", ".join(f"{count} {fault}" for fault, count in state.fault_counts().items())
        raise NoUsableImageError(f"no image of the source is whole ({faults})")
    state.set_splits(split_cases(state.case_sizes(), seed, test_share))
    check_no_leak(state.placed_images())


def _take(state: BuildState, limit: int) -> None:
    seen = HashIndex()
    taken: list[str] = []  # by their number in the index
    for image_id, rank, image_hash in state.whole_images():
        if len(taken) == limit:
            break
        if (near := seen.near(image_hash)).size:
            state.drop_read(image_id, Drop.NEAR_DUPLICATE, f"looks like {taken[near[0]]}")
            continue
        seen.add(image_hash)
        taken.append(image_id)
        state.add_chosen(image_id, rank)
