"""What the same rows cost laid out in four ways: packed over images, a row an image, a row a turn, padded to 2048."""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .flops import Work, sum_of
from .lengths import Lengths, RowLength

ORIGINAL_LENGTH = 2048  # Qwen-VL's script pads every sample to it
PACKED, ROW, TURN, ORIGINAL = "images packed", "row an image", "row a turn", "row a turn, padded to 2048"
_BATCHES = 200  # simulated, of rows drawn at random


@dataclass(frozen=True)
class Layout:
    """An epoch in one layout.

    work: what is computed. sequences: rows of batches. padding: the share of tokens that are padding. largest: what
    the largest micro-batch computes. longest: tokens of its rows, padding included.
    """

    name: str
    work: Work
    sequences: float
    padding: float
    largest: Work
    longest: int


def layouts(lengths: Lengths, batch: int, max_length: int | None) -> list[Layout]:
    """The four layouts, for micro-batches of `batch` rows (of sequences, if images are packed)."""
    limit = max_length or max(row.tokens for row in lengths.rows)
    turns = [turn for row in lengths.rows for turn in _one_turn_rows(row)]
    scale = lengths.total / len(lengths.rows)
    return [
        _layout(PACKED, best_fit(lengths.rows, limit), scale, batch, limit),
        _layout(ROW, [[row] for row in lengths.rows], scale, batch, None),
        _layout(TURN, [[turn] for turn in turns], scale, batch, None),
        _layout(ORIGINAL, [[turn] for turn in turns], scale, batch, ORIGINAL_LENGTH),
    ]


def best_fit(rows: Sequence[RowLength], limit: int) -> list[list[RowLength]]:
    """Sequences of whole rows, each of at most `limit` tokens: each row, longest first, into the fullest that fits."""
    sequences: list[list[RowLength]] = []
    room: list[tuple[int, int]] = []  # tokens left and the number of a sequence, sorted
    for row in sorted(rows, key=lambda each: each.tokens, reverse=True):
        place = bisect_left(room, (row.tokens, -1))
        if place < len(room):
            left, number = room.pop(place)
            sequences[number].append(row)
        else:
            left, number = max(limit, row.tokens), len(sequences)
            sequences.append([row])
        insort(room, (left - row.tokens, number))
    return sequences


def _one_turn_rows(row: RowLength) -> Iterator[RowLength]:
    for turn, answer in zip(row.turns, row.answers, strict=True):
        yield RowLength(row.prefix, (turn,), (answer,), row.images)


def _layout(
    name: str, sequences: Sequence[Sequence[RowLength]], scale: float, batch: int, pad_to: int | None
) -> Layout:
    """Batches are drawn at random with a fixed seed, and padded to their longest row, or to `pad_to`.

    Packed sequences are counted without padding, since they differ little in length.
    """
    batches = list(_batches(sequences, batch))
    works = [_work(each, pad_to=None if name == PACKED else pad_to) for each in batches]
    if name == PACKED:
        total, seen = sum_of([_work([each], 0) for each in sequences]), sequences
    else:
        total, seen = sum_of(works), [sequence for each in batches for sequence in each]
    real = sum(row.tokens for sequence in seen for row in sequence)
    largest = max(works, key=lambda work: work.tokens)
    return Layout(
        name,
        total.times(scale * len(sequences) / len(seen)),
        scale * len(sequences),
        max(0.0, 1 - real / total.tokens),
        largest,
        round(largest.tokens / batch),
    )


def _batches(sequences: Sequence[Sequence[RowLength]], size: int) -> Iterator[Sequence[Sequence[RowLength]]]:
    draw = random.Random(0)
    if len(sequences) <= size * _BATCHES:  # each once; fewer rows than a batch are repeated
        order = draw.sample(range(len(sequences)), len(sequences))
        order += [draw.choice(order) for _ in range(-len(order) % size)]
    else:
        order = draw.sample(range(len(sequences)), size * _BATCHES)
    for start in range(0, len(order), size):
        yield [sequences[place] for place in order[start : start + size]]


def _work(batch: Sequence[Sequence[RowLength]], pad_to: int | None) -> Work:
    """Of one batch, padded to `pad_to` tokens, or to its longest sequence if that is None."""
    sizes = [sum(row.tokens for row in sequence) for sequence in batch]
    length = max(sizes) if pad_to is None else pad_to
    rows = [row for sequence in batch for row in sequence]
    attended = sum(_attended(row) for row in rows)
    padded = sum(max(length, size) for size in sizes)
    if pad_to == ORIGINAL_LENGTH:  # a causal mask over padding too
        attended = sum(max(length, size) ** 2 / 2 for size in sizes)
    return Work(sum(row.images for row in rows), padded, sum(sum(row.answers) for row in rows), attended)


def _attended(row: RowLength) -> float:
    """Pairs of positions: each turn sees the prefix and itself."""
    within = row.prefix * (row.prefix + 1) / 2
    return within + sum(turn * row.prefix + turn * (turn + 1) / 2 for turn in row.turns)
