"""Boxes of an answer paired one to one with the boxes of its reference, under the strict rules.

A box may only be paired with a reference box of the same name. A box without a phrase has no wrong name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.records import Task
from ..hub.boxes import Box
from ..hub.grounding import GroundedText, read
from .names import names_nothing, same_name
from .outcomes import MAX_BOXES, Outcome, outcome_of_read
from .paper_rules import clean_response
from .recall import IOU_THRESHOLD, Recall

THRESHOLDS = (0.25, IOU_THRESHOLD, 0.75)


@dataclass(frozen=True)
class Pairing:
    """An answer compared with its reference.

    reference, predicted: the boxes; those of an unreadable answer are paired with none, so each is a false box.
    names: of each reference box; "" if the reference does not say it.
    found: whether each reference box is paired with an IoU above each threshold, (reference boxes, 3).
    ious: the IoU of each reference box with its partner, 0 without one; the pairs are those with the largest sum.
    named, judged: how many boxes have the right phrase, of those whose phrase can be judged.
    """

    outcome: Outcome
    reference: tuple[Box, ...]
    names: tuple[str, ...]
    predicted: tuple[Box, ...]
    found: NDArray[np.bool_]
    ious: NDArray[np.float64]
    named: int
    judged: int

    @property
    def recall(self) -> Recall:
        """Hits over reference boxes plus false boxes; for an absent object one of one if the answer says so."""
        if not self.reference:
            return Recall(int(self.outcome is Outcome.SAID_ABSENT), max(1, len(self.predicted)))
        return Recall(self.hits, len(self.reference) + self.false_boxes)

    @property
    def hits(self) -> int:
        """Reference boxes found with an IoU above one half."""
        return int(self.found[:, THRESHOLDS.index(IOU_THRESHOLD)].sum())

    @property
    def false_boxes(self) -> int:
        """Boxes without a partner with an IoU above one half."""
        return len(self.predicted) - self.hits


def pair(reference: str, response: str, labels: Sequence[tuple[str, Box]] = ()) -> Pairing:
    """Compare a response with a reference.

    labels: the objects asked for with their boxes, if they are known: names of reference boxes without a phrase.
    Raises ValueError if the reference holds more than 1,000 boxes.
    """
    wanted = _named_boxes(read(reference))
    if len(wanted) > MAX_BOXES:
        raise ValueError(f"a reference has {len(wanted):,} boxes; the limit is {MAX_BOXES:,}")
    wanted = [(_label_of(box, labels) if names_nothing(phrase) else phrase, box) for phrase, box in wanted]
    cleaned = clean_response(response)
    answer = read(cleaned)
    outcome = outcome_of_read(Task.VISUAL_GROUNDING, cleaned, answer)
    given = _named_boxes(answer)[:MAX_BOXES]
    readable = given if outcome is Outcome.ANSWERED else []
    asked = tuple(dict.fromkeys(name for name, _ in wanted))
    judged = [phrase for phrase, _ in readable if asked and all(asked) and not names_nothing(phrase)]
    ious = _ious(wanted, readable)
    return Pairing(
        outcome,
        tuple(box for _, box in wanted),
        tuple(name for name, _ in wanted),
        tuple(box for _, box in given),
        np.stack([_partners(ious > each) for each in THRESHOLDS], axis=1),
        assigned_weights(ious),
        sum(any(same_name(name, phrase) for name in asked) for phrase in judged),
        len(judged),
    )


def _named_boxes(answer: GroundedText) -> list[tuple[str, Box]]:
    return [(span.phrase, box) for span in answer.spans for box in span.boxes]


def _label_of(box: Box, labels: Sequence[tuple[str, Box]]) -> str:
    return next((name for name, each in labels if each.to_thousandths() == box.to_thousandths()), "")


def _ious(wanted: Sequence[tuple[str, Box]], given: Sequence[tuple[str, Box]]) -> NDArray[np.float64]:
    """IoUs, (reference boxes, predicted boxes); 0 if the names differ."""
    ious = np.zeros((len(wanted), len(given)))
    fits = {
        (name, phrase): may_pair(name, phrase)
        for name in {name for name, _ in wanted}
        for phrase in {phrase for phrase, _ in given}
    }
    for row, (name, box) in enumerate(wanted):
        ious[row] = [box.iou(guess) if fits[name, phrase] else 0.0 for phrase, guess in given]
    return ious


def may_pair(name: str, phrase: str) -> bool:
    """Whether a box with a phrase may be paired with a reference box of a name; either may be unknown."""
    return not name or names_nothing(phrase) or same_name(name, phrase)


def _partners(near: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows have a partner, if as many pairs as possible are made and no row or column occurs twice."""
    return assigned_weights(near.astype(float)) > 0


def assigned_weights(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weight of each row in the assignment with the largest sum; 0 for a row without a partner."""
    from scipy.optimize import linear_sum_assignment

    found = np.zeros(len(weights))
    rows, columns = linear_sum_assignment(weights, maximize=True)
    found[rows] = weights[rows, columns]
    return found
