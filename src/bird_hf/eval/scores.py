"""Scores of single answers and of many: pure functions over boxes and words.

Visual grounding counts boxes, not questions: a reference box is found if any predicted box has an IoU above one
half with it, strictly (BiRD 5, Recall@0.5). A name is recalled if each of its words stands in the answer as a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..hub.boxes import Box

IOU_THRESHOLD = 0.5  # BiRD 5: IoU must exceed it
_WORD = re.compile(r"\w+(?:[-'’]\w+)*")


@dataclass(frozen=True)
class Recall:
    """How many of the things asked for were found."""

    hits: int = 0
    total: int = 0

    @property
    def score(self) -> float | None:
        """A fraction; None where nothing was asked for."""
        return self.hits / self.total if self.total else None


def grounding_recall(reference: Sequence[Box], predicted: Sequence[Box]) -> Recall:
    """How many reference boxes any predicted box overlaps with an IoU above one half."""
    hits = sum(any(box.iou(guess) > IOU_THRESHOLD for guess in predicted) for box in reference)
    return Recall(hits, len(reference))


def name_recall(name: str, answer: str) -> Recall:
    """Whether every word of a name is a word of the answer; case does not matter."""
    words = set(_WORD.findall(answer.lower()))
    return Recall(int(all(word in words for word in _WORD.findall(name.lower()))), 1)


def total(recalls: Iterable[Recall]) -> Recall:
    """The sum of many."""
    recalls = list(recalls)
    return Recall(sum(recall.hits for recall in recalls), sum(recall.total for recall in recalls))


def mean_score(recalls: Iterable[Recall]) -> float | None:
    """The unweighted mean over those that asked for anything: how the paper averages modalities."""
    scores = [recall.score for recall in recalls if recall.score is not None]
    return sum(scores) / len(scores) if scores else None


def strict_grounding_recall(reference: Sequence[Box], predicted: Sequence[Box]) -> Recall:
    """One to one, and false boxes are charged: hits over reference boxes plus boxes that serve none.

    Where nothing is to be found, saying so (no box) is one hit of one, and every box is a miss.
    """
    if not reference:
        return Recall(int(not predicted), max(1, len(predicted)))
    hits = _matched(reference, predicted)
    return Recall(hits, len(reference) + len(predicted) - hits)


def _matched(reference: Sequence[Box], predicted: Sequence[Box]) -> int:
    """The largest number of pairs above the threshold in which no box stands twice (augmenting paths)."""
    near = [
        [number for number, guess in enumerate(predicted) if box.iou(guess) > IOU_THRESHOLD]
        for box in reference
    ]
    taken: dict[int, int] = {}  # prediction -> reference

    def finds_one(place: int, tried: set[int]) -> bool:
        for number in near[place]:
            if number not in tried:
                tried.add(number)
                if number not in taken or finds_one(taken[number], tried):
                    taken[number] = place
                    return True
        return False

    return sum(finds_one(place, set()) for place in range(len(reference)))
