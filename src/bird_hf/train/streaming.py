"""Rows of a streamed dataset: their order, and those that are too long, whose lengths are not known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import IterableDataset

from .collate import DROP, GroundingCollator
from .packing import RowLengths
from .recipe import BirdSFTConfig
from .rows import image_cells, says_image


def streamed_rows(
    dataset: IterableDataset, collator: GroundingCollator, args: BirdSFTConfig
) -> IterableDataset:
    """Rows in an order that is new in each epoch, as far as a buffer allows; without those to be dropped.

    Raises ValueError if the recipe balances rows, or says no number of steps.
    """
    if args.balance_by is not None:
        raise ValueError(
            "balance_by needs all rows, and the dataset is streamed; give each part a weight in datasets instead"
        )
    if args.max_steps < 1:
        raise ValueError("the dataset is streamed, so its number of rows is not known; set max_steps")
    if collator.too_long == DROP and collator.max_length is not None:
        dataset = dataset.filter(lambda row: _fits(row, collator))
    seed = args.seed if args.data_seed is None else args.data_seed
    return dataset.shuffle(seed=seed, buffer_size=args.streaming_buffer)


def _fits(row: Mapping[str, Any], collator: GroundingCollator) -> bool:
    images = len(image_cells(row)) or int(collator.images_dir is not None and says_image(row))
    lengths = RowLengths.of([collator.tokens_of(row, images)])
    assert collator.max_length is not None
    return bool(lengths.longest(collator.max_turns)[0] <= collator.max_length)
