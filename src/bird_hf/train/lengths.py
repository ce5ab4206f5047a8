"""Lengths of a dataset's rows in tokens, read from its Parquet files without its images, or assumed.

A row is an image with its turns. Its length is that of its prefix (everything up to the image) and those of its turns,
so the tokens of each way of laying out the same rows follow from it; see `layouts.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import DownloadMode, load_dataset_builder
from datasets.exceptions import DatasetsError
from transformers import Qwen2Tokenizer

from ..hub.grounding import GROUNDING_TOKENS
from ..hub.processing_bird import BirdProcessor
from ..progress import progress_bar
from .collate import IGNORED, PREFIX, GroundingCollator

SAMPLED_ROWS = 2000  # more rows do not change a mean length by a hundredth

# What the paper publishes, and nothing of lengths.
PAPER_IMAGES, PAPER_TURNS = 60_000, 240_000  # BiRD 4.2
# Lengths of the made-up rows of benchmarks/gpu.py by Qwen's tokenizer; tests/train/test_lengths.py counts them again.
ASSUMED_PREFIX, ASSUMED_TURN, ASSUMED_ANSWER = 277, 66, 45
# On our texts Qwen's tokenizer writes 5 to 12 tokens for 100 pieces of its own first splitting more.
_TOKENS_PER_PIECE = 1.08
_TAG = re.compile("(" + "|".join(map(re.escape, GROUNDING_TOKENS)) + ")")
_SYSTEM_TOKENS, _PICTURE_TOKENS = (
    14,
    7,
)  # of Qwen's: system turn and user's start; "Picture 1: <img>", "</img>"
_TURN_TOKENS = 7  # line feed after the image, <|im_end|> twice, line feed, <|im_start|>assistant, line feed


@dataclass(frozen=True)
class RowLength:
    """Tokens of a row: of the prefix that all turns see, of each turn, and of each turn's answer."""

    prefix: int
    turns: tuple[int, ...]
    answers: tuple[int, ...]
    images: int = 1

    @property
    def tokens(self) -> int:
        return self.prefix + sum(self.turns)


@dataclass(frozen=True)
class Lengths:
    """Lengths of `rows`, which stand for `total` rows of an epoch. `source`: one line that says where they are from."""

    rows: tuple[RowLength, ...]
    total: int
    source: str
    assumed: bool = False


def paper_lengths(num_queries: int, reason: str) -> Lengths:
    """The paper's counts, with assumed lengths; `reason`: why there are no others."""
    turns = PAPER_TURNS // PAPER_IMAGES
    row = RowLength(ASSUMED_PREFIX - 256 + num_queries, (ASSUMED_TURN,) * turns, (ASSUMED_ANSWER,) * turns)
    source = (
        f"{reason}; assumed: the paper's {PAPER_IMAGES:,} images with {PAPER_TURNS:,} turns (BiRD 4.2), "
        f"{ASSUMED_TURN} tokens a turn (the paper states no lengths)"
    )
    return Lengths((row,) * 256, PAPER_IMAGES, source, assumed=True)


def read_lengths(
    folder: Path,
    config: str | None,
    split: str,
    measure: Callable[[Mapping[str, Any]], RowLength],
    limit: int = SAMPLED_ROWS,
) -> Lengths:
    """Lengths of the rows of a dataset folder; of more than `limit` rows, that many evenly spaced ones are measured.

    Raises ValueError if the folder is no dataset of Parquet files with the column `messages`.
    """
    files = _parquet_files(folder, config, split)
    counts = [pq.ParquetFile(file).metadata.num_rows for file in files]
    total = sum(counts)
    if not total:
        raise ValueError(f"{folder} has no rows in split {split!r}; build it with `bird data build`")
    step = max(1.0, total / limit)
    wanted = {int(number * step) for number in range(min(total, limit))}
    rows = _chosen_rows(files, counts, wanted)
    shown = progress_bar(rows, total=len(wanted), desc="lengths", unit="row", leave=False)
    measured = tuple(measure(row) for row in shown)
    sampled = f", {len(measured):,} of them measured" if len(measured) < total else ", all measured"
    return Lengths(measured, total, f"{folder} ({config or 'default'}, {split}): {total:,} rows{sampled}")


def _parquet_files(folder: Path, config: str | None, split: str) -> list[str]:
    try:
        builder = load_dataset_builder(
            str(folder), config, download_mode=DownloadMode.REUSE_DATASET_IF_EXISTS
        )
        files = (builder.config.data_files or {}).get(split)
    except (ValueError, OSError, DatasetsError) as error:
        raise ValueError(f"{folder} is not a dataset with a config {config!r} ({error})") from error
    if not files:
        raise ValueError(f"{folder} has no split {split!r} in config {config or 'default'}")
    if other := [file for file in files if not str(file).endswith(".parquet")]:
        raise ValueError(f"{other[0]} is not a Parquet file, whose rows could be measured without images")
    return [str(file) for file in files]


def _chosen_rows(files: list[str], counts: list[int], wanted: set[int]) -> Iterator[dict[str, Any]]:
    """The wanted rows by their number over all files, without their images; one batch is in memory at a time."""
    start = 0
    for file, count in zip(files, counts, strict=True):
        with pq.ParquetFile(file) as parquet:
            names = set(parquet.schema_arrow.names)
            if "messages" not in names:
                raise ValueError(f"{file} has no column messages; see the card of a Med-GRIT folder")
            columns = [name for name in ("image_id", "messages", "independent") if name in names]
            has_image = "image" in names
            number = start
            for batch in parquet.iter_batches(batch_size=256, columns=columns):
                places = [place for place in range(len(batch)) if number + place in wanted]
                for row in batch.take(places).to_pylist():
                    yield row | {"image": True if has_image else None}
                number += len(batch)
        start += count


def exact(processor: BirdProcessor, max_turns: int | None) -> Callable[[Mapping[str, Any]], RowLength]:
    """Measures rows as training packs them."""
    collator = GroundingCollator(processor, max_turns=max_turns)

    def measure(row: Mapping[str, Any]) -> RowLength:
        packed = collator.pack(dict(row))
        count = max(packed.turns)
        turns, answers = [0] * (count + 1), [0] * (count + 1)
        for turn, label in zip(packed.turns, packed.labels, strict=True):
            turns[turn] += 1
            answers[turn] += label != IGNORED
        return RowLength(
            turns[PREFIX], tuple(turns[1:]), tuple(answers[1:]), int(row.get("image") is not None)
        )

    return measure


def estimated(num_queries: int, max_turns: int | None) -> Callable[[Mapping[str, Any]], RowLength]:
    """Measures rows nearly as Qwen's tokenizer would, which need not be there.

    Qwen's tokenizer first splits a text into words, single digits and punctuation, and then some words further. The
    first splitting needs no vocabulary; the second is a share, measured on our texts.
    """
    splitter = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer

    def tokens(text: str) -> float:
        parts = _TAG.split(text)
        pieces = sum(len(splitter.pre_tokenize_str(part)) for part in parts[::2])
        return _TOKENS_PER_PIECE * pieces + len(parts) // 2

    def measure(row: Mapping[str, Any]) -> RowLength:
        has_image = row.get("image") is not None
        start = _SYSTEM_TOKENS + (_PICTURE_TOKENS + num_queries if has_image else 0)
        # Without an image, turns share nothing: each begins anew.
        prefix, of_turn = (start, _TURN_TOKENS) if has_image else (0, start + _TURN_TOKENS)
        texts = [(message["role"], tokens(message["content"])) for message in row["messages"]]
        # A turn ends with an answer of the assistant; what comes before it is its question.
        turns, answers, asked = [], [], 0.0
        for role, count in texts:
            asked += count
            if role == "assistant":
                turns.append(round(asked) + of_turn)
                answers.append(round(count) + 1)
                asked = 0.0
        if not row.get("independent", False):
            turns, answers = [sum(turns)], [sum(answers)]
        return RowLength(prefix, tuple(turns[:max_turns]), tuple(answers[:max_turns]), int(has_image))

    return measure
