"""The tokens of every row, counted before the first step: what cannot be trained is said then, not midway."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from datasets.fingerprint import Hasher

from .collate import DROP, HOW_TO_GIVE_IMAGES, SPLIT, GroundingCollator, too_long_message
from .packing import RowLengths
from .rows import joined_path, name_of, says_image

_COLUMNS = ("image_id", "messages", "independent", "image_wh")
_ROWS_PER_BATCH = 1000

log = logging.getLogger(__name__)


def measured_rows(
    dataset: Dataset, collator: GroundingCollator, processes: int | None = None
) -> tuple[Dataset, RowLengths]:
    """The rows of a dataset that a collator can train, and their lengths.

    Rows that are too long are left out and counted if the collator's `too_long` is "drop". Lengths are kept in the
    cache of `datasets`. Raises ValueError, naming the first or the longest row, for rows that cannot be trained.
    """
    images = _checked_images(dataset, collator)
    lengths = _lengths_of(dataset, images, collator, processes)
    if collator.max_length is None:
        return dataset, lengths
    totals = lengths.longest_turns() if collator.too_long == SPLIT else lengths.longest(collator.max_turns)
    over = np.flatnonzero(totals > collator.max_length)
    if not len(over):
        return dataset, lengths
    if collator.too_long != DROP:
        longest = int(totals.argmax())
        name = name_of(dataset.select_columns(_columns(dataset))[longest])
        said = too_long_message(name, int(totals[longest]), collator.max_length, collator.too_long)
        raise ValueError(f"{said}. It is the longest of {len(over)} of {len(dataset)} rows that are too long")
    kept = np.flatnonzero(totals <= collator.max_length)
    if not len(kept):
        raise ValueError(
            f"all {len(dataset)} rows have more than {collator.max_length} tokens; raise max_length"
        )
    log.warning(
        "%d of %d rows are left out: they have more than %d tokens",
        len(over),
        len(dataset),
        collator.max_length,
    )
    return dataset.select(kept), lengths.select(kept.tolist())


def _columns(dataset: Dataset) -> list[str]:
    return [name for name in _COLUMNS if name in dataset.column_names]


def images_of(dataset: Dataset) -> np.ndarray:
    """Number of images in each row, (N,), found without decoding them."""
    counts = np.zeros(len(dataset), dtype=np.int64)
    for column in {"image", "images"} & set(dataset.column_names):
        start = 0
        for table in dataset.select_columns([column]).with_format("arrow").iter(_ROWS_PER_BATCH):
            cells = table[column]
            if column == "image":
                found = pc.cast(cells.is_valid(), pa.int64())
            else:
                found = pc.fill_null(pc.cast(pc.list_value_length(cells), pa.int64()), 0)
            counts[start : start + len(table)] += found.to_numpy()
            start += len(table)
    return counts


def _checked_images(dataset: Dataset, collator: GroundingCollator) -> np.ndarray:
    """Number of images in each row, (N,), those of the user's own copy included."""
    images = images_of(dataset)
    if collator.images_dir is not None:
        _check_files(dataset, images, collator.images_dir)
        return np.maximum(images, 1)
    if collator.needs_image and not images.all():
        missing = np.flatnonzero(images == 0)
        first = name_of(dataset.select_columns(_columns(dataset))[int(missing[0])])
        raise ValueError(
            f"{len(missing)} of {len(dataset)} rows have no image, the first of them {first}; {HOW_TO_GIVE_IMAGES}"
        )
    return images


def _check_files(dataset: Dataset, images: np.ndarray, folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(
            f"images_dir {folder} is not a folder; give the one that contains IMAGE_ID.png files"
        )
    rows = dataset.select_columns(_columns(dataset))
    missing = [
        path
        for number in np.flatnonzero(images == 0)
        if says_image(row := rows[int(number)] | {"image": None})
        and not (path := joined_path(row, folder)).is_file()
    ]
    if missing:
        raise ValueError(
            f"images_dir lacks the images of {len(missing)} of {len(dataset)} rows, the first of them {missing[0]}"
        )


def _lengths_of(
    dataset: Dataset, images: np.ndarray, collator: GroundingCollator, processes: int | None
) -> RowLengths:
    def count(row: Mapping[str, Any], number: int) -> dict[str, Any]:
        return collator.tokens_of(row, int(images[number]))._asdict()

    processor = collator.processor
    tokenizer = processor.tokenizer.backend_tokenizer.to_str()
    fingerprint = Hasher.hash(
        [
            dataset._fingerprint,
            images.tobytes(),
            tokenizer,
            processor.chat_template,
            processor.num_queries,
            processor.lowercase_questions,
        ]
    )
    columns = _columns(dataset)
    counted = dataset.select_columns(columns).map(
        count,
        with_indices=True,
        remove_columns=columns,
        num_proc=processes if len(dataset) > _ROWS_PER_BATCH else None,
        new_fingerprint=fingerprint,
        desc="Counting the tokens of rows",
    )
    table = counted.with_format("arrow")[:]
    turns, answers = (table[name].combine_chunks() for name in ("turns", "answers"))
    return RowLengths(
        table["prefix"].to_numpy().astype(np.int64),
        turns.offsets.to_numpy().astype(np.int64),
        turns.values.to_numpy().astype(np.int64),
        answers.values.to_numpy().astype(np.int64),
    )
