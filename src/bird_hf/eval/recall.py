"""Recall of boxes and names: counts, and pure functions over words.

Visual grounding counts boxes, not questions: a reference box is found if a predicted box has an IoU above one half
with it (BiRD 5, Recall@0.5). A name is found if each of its words is a word of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

IOU_THRESHOLD = 0.5  # BiRD 5: the IoU must exceed it
_WORD = re.compile(r"\w+(?:[-'’]\w+)*")


@dataclass(frozen=True)
class Recall:
    """How many of the things asked for were found."""

    hits: int = 0
    total: int = 0

    @property
    def score(self) -> float | None:
        """A fraction; None if nothing was asked for."""
        return self.hits / self.total if self.total else None


def name_recall(name: str, answer: str) -> Recall:
    """Whether every word of a name is a word of the answer, ignoring case."""
    words = set(_WORD.findall(answer.lower()))
    return Recall(int(all(word in words for word in _WORD.findall(name.lower()))), 1)


def total(recalls: Iterable[Recall]) -> Recall:
    """Hits and totals, summed."""
    recalls = list(recalls)
    return Recall(sum(recall.hits for recall in recalls), sum(recall.total for recall in recalls))


def mean_score(recalls: Iterable[Recall]) -> float | None:
    """The unweighted mean over those with a score, as the paper averages modalities; None if there are none."""
    scores = [recall.score for recall in recalls if recall.score is not None]
    return sum(scores) / len(scores) if scores else None
