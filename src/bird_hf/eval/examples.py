"""The worst, the median and the best answers to grounding questions, to be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ..hub.grounding import Span, read
from .outcomes import Outcome
from .pairing import Pairing, pair
from .paper_rules import clean_response
from .predictions import Prediction

SHOWN = 3  # answers of each rank
BOXES_SHOWN = 50  # of an answer
_TEXT_CHARS = 300
_NAME_CHARS = 120


class Rank(StrEnum):
    """Where an answer stands among all answers of its run."""

    WORST = "worst"
    MEDIAN = "median"
    BEST = "best"


@dataclass(frozen=True)
class Example:
    """An answer with its score. Texts are without tags, and cut; spans hold the boxes, at most 50."""

    rank: Rank
    prediction: Prediction
    score: float
    outcome: Outcome
    question: str
    answer: str
    reference: str
    answered: tuple[Span, ...]
    wanted: tuple[Span, ...]

    def as_json(self) -> dict[str, object]:
        """The example as a report.json holds it; boxes in thousandths."""
        return {
            "rank": self.rank.value,
            "id": self.prediction.id,
            "image": self.prediction.image[:_NAME_CHARS],
            "score": self.score,
            "outcome": self.outcome.value,
            "question": self.question,
            "answer": self.answer,
            "reference": self.reference,
            "boxes": _boxes(self.answered),
            "reference_boxes": _boxes(self.wanted),
        }


def examples_of(predictions: Sequence[Prediction], shown: int = SHOWN) -> list[Example]:
    """`shown` answers to VG questions of each rank, of different modalities as far as there are.

    The score of an answer is the sum of the IoUs of its pairs over the larger number of boxes (pairing.py); of an
    absent object 1 if the answer says so, else 0. Among equal scores the smaller id comes first.
    """
    scored = [
        (_score(pairing), each, pairing)
        for each in predictions
        for pairing in [pair(each.annotation, each.response)]
    ]
    ordered = sorted(scored, key=lambda item: (item[0], item[1].id))
    middle = len(ordered) // 2
    around = sorted(range(len(ordered)), key=lambda place: abs(place - middle))
    orders: Mapping[Rank, list[int]] = {
        Rank.WORST: [*range(len(ordered))],
        Rank.BEST: [*range(len(ordered) - 1, -1, -1)],
        Rank.MEDIAN: around,
    }
    used: set[int] = set()
    chosen: dict[Rank, list[int]] = {}
    for rank, places in orders.items():  # a file of few answers shows each once
        chosen[rank] = _varied([place for place in places if place not in used], ordered, shown)
        used |= {*chosen[rank]}
    return [_example(rank, *ordered[place]) for rank in Rank for place in chosen[rank]]


def _varied(
    places: Sequence[int], ordered: Sequence[tuple[float, Prediction, Pairing]], shown: int
) -> list[int]:
    """The first places, those of a modality that was not yet taken first."""
    first: dict[str, int] = {}
    for place in places:
        first.setdefault(ordered[place][1].modality, place)
        if len(first) == shown:
            break
    others = [place for place in places[: 2 * shown] if place not in first.values()]
    return [*first.values(), *others][:shown]


def _score(pairing: Pairing) -> float:
    if not pairing.reference:
        return float(pairing.outcome is Outcome.SAID_ABSENT)
    return float(pairing.ious.sum()) / max(len(pairing.reference), len(pairing.predicted))


def _example(rank: Rank, score: float, prediction: Prediction, pairing: Pairing) -> Example:
    answer, wanted = read(clean_response(prediction.response)), read(prediction.annotation)
    return Example(
        rank,
        prediction,
        score,
        pairing.outcome,
        shortened(read(prediction.question[:_READ_CHARS]).text),
        shortened(answer.text),
        shortened(wanted.text),
        _cut(answer.spans),
        _cut(wanted.spans),
    )


def shortened(text: str, limit: int = _TEXT_CHARS) -> str:
    """A text on one line, cut to a number of characters."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit and len(text) <= 4 * limit else f"{line[:limit]} ..."


def _cut(spans: Sequence[Span]) -> tuple[Span, ...]:
    boxed = [span for span in spans if span.boxes][:BOXES_SHOWN]
    return tuple(
        Span(phrase, 0, len(phrase), span.boxes[:BOXES_SHOWN])
        for span in boxed
        for phrase in [shortened(span.phrase, 40)]
    )


def _boxes(spans: Sequence[Span]) -> list[dict[str, object]]:
    return [
        {"phrase": span.phrase, "box": list(box.to_thousandths())} for span in spans for box in span.boxes
    ]


_READ_CHARS = 10_000
