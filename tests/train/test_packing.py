"""A step trains the same rows however they are packed, on any number of processes, in every run of its seed."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest

from bird_hf.train.packing import (
    PAIRS,
    ROWS,
    PackedSteps,
    Piece,
    RowLengths,
    best_fit_decreasing,
    split_turns,
)

CAPACITY = 1000


def made_lengths(rows=57, seed=0) -> RowLengths:
    """Rows of 1 to 9 turns, some of them text only, and each sixth a conversation of several answers."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(rows):
        turns = 1 if number % 6 == 0 else int(draw.integers(1, 10))
        answers = [3] if number % 6 == 0 else [1] * turns
        made.append((0 if number % 11 == 0 else 260, draw.integers(5, 80, turns).tolist(), answers))
    return RowLengths.of(made)


def made_steps(**fields) -> PackedSteps:
    return PackedSteps(**({"lengths": made_lengths(), "max_length": CAPACITY, "per_step": 16} | fields))


def learnt(batches) -> Counter:
    """The (row, turns) that some micro-batches train."""
    pieces = (piece for batch in batches for sequence in batch for piece in sequence)
    return Counter((piece.row, piece.turns) for piece in pieces if piece.is_learnt)


# --- best fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "bins"),
    [
        ([], []),
        ([4], [[0]]),
        ([5, 5], [[0, 1]]),
        ([6, 5], [[0], [1]]),
        ([3, 7, 6, 4], [[1, 0], [2, 3]]),  # the longest first
        ([6, 7, 3], [[1, 2], [0]]),  # 3 goes where the least room is left
        ([12, 1], [[0], [1]]),  # too long: alone
        ([5, 5, 5, 5], [[0, 1], [2, 3]]),  # equal lengths in their order
    ],
)
def test_best_fit_decreasing(lengths, bins):
    assert best_fit_decreasing(lengths, 10) == bins


def test_sequences_are_nearly_full():
    lengths = np.random.default_rng(3).integers(270, 800, 512).tolist()
    bins = best_fit_decreasing(lengths, 2048)
    assert sorted(place for places in bins for place in places) == list(range(512))
    assert max(sum(lengths[place] for place in places) for places in bins) <= 2048
    assert sum(lengths) / (2048 * len(bins)) > 0.95


@pytest.mark.parametrize(
    ("prefix", "turns", "parts"),
    [
        (4, [3, 3], [((0, 1), 10)]),
        (4, [3, 4], [((0,), 7), ((1,), 8)]),  # each part has the prefix
        (4, [3, 3, 1, 5], [((0, 1), 10), ((2, 3), 10)]),
        (4, [9, 1], [((0,), 13), ((1,), 5)]),  # nothing can shorten a turn
        (0, [5, 5, 5], [((0, 1), 10), ((2,), 5)]),
    ],
)
def test_turns_are_split_between_them_and_not_within(prefix, turns, parts):
    assert list(split_turns(prefix, turns, 10)) == parts
    assert list(split_turns(prefix, turns, None)) == [(tuple(range(len(turns))), prefix + sum(turns))]


# --- steps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("processes", "sequences", "unit"), [*product((1, 2, 3, 8), (1, 3), (ROWS, PAIRS))])
def test_steps_are_the_same_on_any_number_of_processes(processes, sequences, unit):
    one, many = made_steps(unit=unit), made_steps(unit=unit, processes=processes, sequences=sequences)
    assert list(one.steps()) == list(many.steps())
    dealt = list(many)
    assert len(dealt) == len(many) == processes * len(one)
    for number, pieces in enumerate(many.steps()):
        of_step = dealt[number * processes : (number + 1) * processes]
        assert sum((learnt(batches) for batches in of_step), Counter()) == Counter(
            (piece.row, piece.turns) for piece in pieces
        )


@pytest.mark.parametrize(("processes", "sequences"), [*product((1, 2, 3, 8), (1, 2, 4))])
def test_every_process_has_as_many_micro_batches_and_none_is_empty(processes, sequences):
    steps = made_steps(processes=processes, sequences=sequences)
    dealt = list(steps)
    for start in range(0, len(dealt), processes):
        of_step = dealt[start : start + processes]
        assert len({len(batches) for batches in of_step}) == 1
        for batch in (batch for batches in of_step for batch in batches):
            assert 1 <= len(batch) <= sequences
            assert all(0 < sum(piece.length for piece in sequence) <= CAPACITY for sequence in batch)


def test_a_process_without_a_row_computes_one_that_is_not_learnt():
    steps = made_steps(lengths=made_lengths(2), per_step=2, processes=5)
    pieces = [piece for batches in steps for batch in batches for sequence in batch for piece in sequence]
    assert sorted(piece.is_learnt for piece in pieces) == [False, False, False, True, True]


def test_each_epoch_has_every_row_once_in_another_order():
    steps = made_steps()
    orders = []
    for epoch in (0, 1):
        steps.set_epoch(epoch)
        orders.append([piece.row for pieces in steps.steps() for piece in pieces])
        assert sorted(orders[-1]) == list(range(57))
    assert orders[0] != orders[1]
    assert [piece.row for pieces in made_steps(epoch=1).steps() for piece in pieces] == orders[1]
    assert [piece.row for pieces in made_steps(seed=5).steps() for piece in pieces] not in orders


def test_a_step_is_exactly_its_number_of_rows():
    assert [len(pieces) for pieces in made_steps(per_step=16).steps()] == [16, 16, 16, 9]
    assert len(made_steps(per_step=57)) == 1 and len(made_steps(per_step=100)) == 1


@pytest.mark.parametrize("max_turns", [None, 3])
def test_a_step_of_pairs_is_off_by_less_than_a_row_and_right_on_the_whole(max_turns):
    steps = made_steps(unit=PAIRS, per_step=20, max_turns=max_turns)
    pairs = steps.lengths.pairs(max_turns)
    total = 0
    for epoch in range(3):
        steps.set_epoch(epoch)
        found = [sum(pairs[piece.row] for piece in pieces) for pieces in steps.steps()]
        assert sum(found) == pairs.sum() and len(found) == len(steps)
        for number, count in enumerate(found[:-1], start=1):
            total = sum(found[:number])
            assert abs(total - 20 * number) < pairs.max() and abs(count - 20) < pairs.max()


def test_pairs_are_answers_and_drawn_turns():
    lengths = RowLengths.of([(9, [5, 5, 5], [1, 1, 1]), (9, [30], [4]), (0, [5, 5], [1, 1])])
    assert lengths.pairs(None).tolist() == [3, 4, 2]
    assert lengths.pairs(2).tolist() == [2, 4, 2]


def test_a_row_with_more_pairs_than_a_step_is_refused():
    with pytest.raises(ValueError, match="a row has 9 question-answer pairs and global_batch_size is 8"):
        made_steps(unit=PAIRS, per_step=8)


# --- drawn turns, and rows that are too long ------------------------------------------------------------------


def test_turns_are_drawn_anew_each_epoch_and_lengths_are_those_of_the_drawn():
    steps = made_steps(max_turns=2)
    drawn = []
    for epoch in (0, 1, 0):
        steps.set_epoch(epoch)
        pieces = [piece for of_step in steps.steps() for piece in of_step]
        drawn.append({piece.row: piece.turns for piece in pieces})
        for piece in pieces:
            turns = steps.lengths.turns_of(piece.row)
            assert len(piece.turns) == len(set(piece.turns)) == min(2, len(turns))
            assert piece.length == steps.lengths.prefixes[piece.row] + turns[list(piece.turns)].sum()
    assert drawn[0] == drawn[2] != drawn[1]


def test_a_row_that_is_too_long_is_split_within_its_step():
    lengths = RowLengths.of([(260, [300, 300, 300, 300], [1] * 4), (260, [50], [1])])
    (pieces,) = made_steps(lengths=lengths, per_step=2).steps()
    assert sorted(pieces) == [Piece(0, (0, 1), 860), Piece(0, (2, 3), 860), Piece(1, (0,), 310)]


def test_the_most_tokens_of_a_row_and_of_a_turn():
    lengths = RowLengths.of([(10, [1, 5, 3], [1, 1, 1]), (0, [7], [2])])
    assert lengths.longest(None).tolist() == [19, 7]
    assert lengths.longest(2).tolist() == [18, 7]
    assert lengths.longest_turns().tolist() == [15, 7]
    assert lengths.select([1]).longest(None).tolist() == [7]
