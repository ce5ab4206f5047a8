"""Which rows a step trains, and which of them share a sequence.

A step takes a fixed number of rows (or of question-answer pairs), and packs them into as few sequences as hold them.
Nothing is carried over into the next step, so a step trains what it would train without packing. Rows, and the turns
that are drawn of them, follow from the seed and the epoch alone. How sequences are dealt to processes depends on their
number, which changes no loss: it is a mean over the tokens of the whole step.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

ROWS, PAIRS = "rows", "pairs"


class Piece(NamedTuple):
    """Some turns of a row, behind its prefix. Without `is_learnt` it fills a process that has nothing else to do."""

    row: int
    turns: tuple[int, ...]
    length: int
    is_learnt: bool = True


PackedSequence = list[Piece]
MicroBatch = list[PackedSequence]  # what a process computes at once


@dataclass(frozen=True)
class RowLengths:
    """Tokens of rows.

    prefixes (N,): of what all turns of a row share, 0 if there are no such tokens. starts (N + 1,): where the turns of
    each row begin in `turns`, the lengths of all turns, and in `answers`, how many answers each holds: one if turns are
    independent, else those of the conversation.
    """

    prefixes: np.ndarray
    starts: np.ndarray
    turns: np.ndarray
    answers: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[tuple[int, Sequence[int], Sequence[int]]]) -> RowLengths:
        """From (prefix, turns, answers) of each row."""
        counts = [len(turns) for _, turns, _ in rows]
        return cls(
            np.array([prefix for prefix, _, _ in rows], dtype=np.int64),
            np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
            np.array([length for _, turns, _ in rows for length in turns], dtype=np.int64),
            np.array([count for _, _, answers in rows for count in answers], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.prefixes)

    def turns_of(self, row: int) -> np.ndarray:
        return self.turns[self.starts[row] : self.starts[row + 1]]

    def answers_of(self, row: int) -> np.ndarray:
        return self.answers[self.starts[row] : self.starts[row + 1]]

    def select(self, rows: Sequence[int]) -> RowLengths:
        return RowLengths.of(
            [(self.prefixes[row], self.turns_of(row).tolist(), self.answers_of(row).tolist()) for row in rows]
        )

    def pairs(self, max_turns: int | None) -> np.ndarray:
        """Question-answer pairs of each row if `max_turns` of its turns are drawn, (N,)."""
        turns = np.diff(self.starts)
        pairs = np.add.reduceat(self.answers, self.starts[:-1])
        return pairs if max_turns is None else np.where(turns > max_turns, max_turns, pairs)

    def longest(self, max_turns: int | None) -> np.ndarray:
        """The most tokens that each row can have if `max_turns` of its turns are drawn, (N,)."""
        totals = []
        for row, prefix in enumerate(self.prefixes):
            turns = self.turns_of(row)
            if max_turns is not None and len(turns) > max_turns:
                turns = np.sort(turns)[-max_turns:]
            totals.append(prefix + turns.sum())
        return np.array(totals, dtype=np.int64)

    def longest_turns(self) -> np.ndarray:
        """Tokens of each row's longest turn behind its prefix, (N,): what no split can make shorter."""
        longest = [self.turns_of(row).max(initial=0) for row in range(len(self))]
        return self.prefixes + np.array(longest, dtype=np.int64)


def split_turns(
    prefix: int, lengths: Sequence[int], max_length: int | None
) -> Iterator[tuple[tuple[int, ...], int]]:
    """Divide the turns of a row, in their order, into parts of at most `max_length` tokens, the prefix included.

    Gives the places of each part's turns and its tokens. A turn that is too long alone is a part of its own.
    """
    part: list[int] = []
    length = prefix
    for place, turn in enumerate(lengths):
        if part and max_length is not None and length + turn > max_length:
            yield tuple(part), length
            part, length = [], prefix
        part.append(place)
        length += int(turn)
    yield tuple(part), length


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put lengths into bins of a capacity, the longest first, each where the least room is left.

    Gives the places of the lengths in each bin. A length above the capacity has a bin of its own.
    """
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room, bin), sorted
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        found = bisect_left(rooms, (lengths[place], -1))
        if found == len(rooms):
            bins.append([place])
            insort(rooms, (capacity - lengths[place], len(bins) - 1))
        else:
            room, number = rooms.pop(found)
            bins[number].append(place)
            insort(rooms, (room - lengths[place], number))
    return bins


@dataclass
class PackedSteps:
    """The steps of each epoch: a batch sampler of what each process computes in each step.

    lengths: of the rows. max_length: of a sequence. per_step: rows or pairs of a step, as `unit` says. sequences: the
    most that a process computes at once. Iterating gives, for every step, the micro-batches of process 0, then of
    process 1, and so on: as many for each, and none of them empty.
    """

    lengths: RowLengths
    max_length: int
    per_step: int
    unit: str = ROWS
    sequences: int = 1
    processes: int = 1
    max_turns: int | None = None
    seed: int = 0
    epoch: int = 0

    batch_size = None  # accelerate: batches differ in size
    drop_last = False

    def __post_init__(self) -> None:
        sizes = self._sizes()
        if sizes.max() > self.per_step:
            raise ValueError(
                f"a row has {sizes.max()} question-answer pairs and global_batch_size is {self.per_step}; raise it, or "
                "set max_turns"
            )
        self._total = int(sizes.sum())

    def __len__(self) -> int:
        """Steps of an epoch times processes."""
        return -(-self._total // self.per_step) * self.processes

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        for pieces in self.steps():
            yield from self.deal(pieces)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def steps(self) -> Iterator[list[Piece]]:
        """What each step of the epoch trains, on any number of processes."""
        draw = np.random.default_rng((self.seed, self.epoch))
        order = draw.permutation(len(self.lengths))
        step_of = (np.cumsum(self._sizes()[order]) - 1) // self.per_step  # the step in which a row ends
        count = len(self) // self.processes
        bounds = np.searchsorted(step_of, np.arange(count + 1))
        for start, end in pairwise(bounds):
            yield [piece for row in order[start:end] for piece in self._pieces(int(row), draw)]

    def deal(self, pieces: Sequence[Piece]) -> list[list[MicroBatch]]:
        """Pack the pieces of a step, and deal the sequences to processes, those of like length at the same time."""
        packed = [
            [pieces[place] for place in places]
            for places in best_fit_decreasing([piece.length for piece in pieces], self.max_length)
        ]
        rounds = max(1, -(-len(packed) // (self.processes * self.sequences)))
        while len(packed) < rounds * self.processes:
            _add_a_sequence(packed, pieces)
        packed.sort(key=lambda sequence: -sum(piece.length for piece in sequence))
        cuts = [number * len(packed) // rounds for number in range(rounds + 1)]
        at_once = [packed[start:end] for start, end in pairwise(cuts)]
        return [[group[process :: self.processes] for group in at_once] for process in range(self.processes)]

    def _sizes(self) -> np.ndarray:
        """How much each row counts in a step, (N,)."""
        return (
            self.lengths.pairs(self.max_turns) if self.unit == PAIRS else np.ones(len(self.lengths), np.int64)
        )

    def _pieces(self, row: int, draw: np.random.Generator) -> Iterator[Piece]:
        turns = self.lengths.turns_of(row)
        chosen = np.arange(len(turns))
        if self.max_turns is not None and len(turns) > self.max_turns:
            chosen = draw.permutation(len(turns))[: self.max_turns]
        parts = split_turns(int(self.lengths.prefixes[row]), turns[chosen].tolist(), self.max_length)
        for places, length in parts:
            yield Piece(row, tuple(int(chosen[place]) for place in places), length)


def _add_a_sequence(packed: list[PackedSequence], pieces: Sequence[Piece]) -> None:
    """One sequence more: half of the longest that holds several pieces, or a copy that is not learnt."""
    divisible = [sequence for sequence in packed if len(sequence) > 1]
    if not divisible:
        packed.append([min(pieces, key=lambda piece: piece.length)._replace(is_learnt=False)])
        return
    longest = max(divisible, key=lambda sequence: sum(piece.length for piece in sequence))
    half = longest[1::2]  # pieces stand from long to short
    del longest[1::2]
    packed.append(half)


class StepRows:
    """The rows of micro-batches, as a dataset: `dataset[micro_batch]` pairs each piece with its row."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, batch: MicroBatch) -> list[list[tuple[Piece, Mapping[str, Any]]]]:
        return [[(piece, self.rows[piece.row]) for piece in sequence] for sequence in batch]
