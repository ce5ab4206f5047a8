"""Visual grounding beyond one recall: several thresholds, false boxes, absent objects, sides, labels and sizes.

Every row is a fraction with the number of things that it counts, the number of cases, and an interval over cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..hub.boxes import Box
from .intervals import draw_sums, interval_of, ratio
from .names import twin_of
from .outcomes import Outcome
from .pairing import THRESHOLDS, Pairing
from .recall import IOU_THRESHOLD

# Upper ends of the size classes, as shares of the image's area.
SIZES: Mapping[str, float] = {"<1 %": 0.01, "1-5 %": 0.05, "5-20 %": 0.2, ">20 %": 1.0}


@dataclass(frozen=True)
class Grounded:
    """An answer to a VG question that was compared with its reference.

    labels: of each reference box; "" if not known.
    others: the objects of the image, (label, box); None if they are not known.
    """

    pairing: Pairing
    modality: str
    case: str
    labels: tuple[str, ...]
    others: tuple[tuple[str, Box], ...] | None = field(default=None, repr=False)


# The (hits, total) of one answer in a row; a row counts the answers whose total is above 0.
_Count = Callable[[Grounded], tuple[float, float]]


def grounding_scores(answers: Sequence[Grounded]) -> dict[str, Any]:
    """The rows of the strict VG table: `all`, `modalities`, `labels` and `sizes`.

    Each holds measures by name as {"score", "n", "cases", "interval"}; a score is None if nothing was counted.
    `laterality_known` says whether the objects of the images were known; without them confusion is not computed.
    """
    known = any(each.others is not None for each in answers)
    by_modality = _grouped((each.modality, each) for each in answers)
    labels = sorted({label for each in answers for label in each.labels if label})
    of_label = {label: [each for each in answers if label in each.labels] for label in labels}
    return {
        "laterality_known": known,
        "all": measures(answers),
        "modalities": {name: measures(group) for name, group in by_modality.items()},
        "labels": {label: _boxes(group, _has_label(label)) for label, group in of_label.items()},
        "sizes": {name: _boxes(answers, _has_size(name)) for name in SIZES},
    }


def measures(answers: Sequence[Grounded]) -> dict[str, Any]:
    """The measures of some answers, by name."""
    found = _boxes(answers, lambda each: np.ones(len(each.pairing.reference), bool))
    found["f1@0.5"] = _row(answers, _f1)
    found["false_boxes_per_answer"] = _row(answers, lambda each: (each.pairing.false_boxes, 1))
    found["rejection_rate"] = _row(answers, _rejected)
    found["false_box_rate"] = _row(answers, _boxed)
    found["phrase_fidelity"] = _row(answers, lambda each: (each.pairing.named, each.pairing.judged))
    found["unreadable_rate"] = _row(answers, lambda each: (each.pairing.outcome is Outcome.UNREADABLE, 1))
    if any(each.others is not None for each in answers):
        found["laterality_confusion"] = _row(answers, _confused)
    return found


def _boxes(answers: Sequence[Grounded], chosen: Callable[[Grounded], np.ndarray]) -> dict[str, Any]:
    """Recall at each threshold and the mean IoU of chosen reference boxes; one without a partner has IoU 0."""
    rows: dict[str, Any] = {}
    for place, threshold in enumerate(THRESHOLDS):
        rows[f"recall@{threshold:g}"] = _row(answers, _found_of(chosen, place))
    rows["mean_iou"] = _row(answers, lambda each: (_sum(each.pairing.ious, chosen(each)), chosen(each).sum()))
    return rows


def _found_of(chosen: Callable[[Grounded], np.ndarray], place: int) -> _Count:
    return lambda each: (_sum(each.pairing.found[:, place], chosen(each)), chosen(each).sum())


def _sum(values: np.ndarray, chosen: np.ndarray) -> float:
    return float(values[chosen].sum())


def _has_label(label: str) -> Callable[[Grounded], np.ndarray]:
    return lambda each: np.array([name == label for name in each.labels], bool)


def _has_size(name: str) -> Callable[[Grounded], np.ndarray]:
    return lambda each: np.array([size_of(box) == name for box in each.pairing.reference], bool)


def size_of(box: Box) -> str:
    """The size class of a box, by its share of the image's area; a share on an edge is in the larger class."""
    return next((name for name, end in SIZES.items() if box.area < end), list(SIZES)[-1])


def _f1(each: Grounded) -> tuple[float, float]:
    return 2 * each.pairing.hits, len(each.pairing.reference) + len(each.pairing.predicted)


def _rejected(each: Grounded) -> tuple[float, float]:
    absent = not each.pairing.reference
    return absent and each.pairing.outcome is Outcome.SAID_ABSENT, absent


def _boxed(each: Grounded) -> tuple[float, float]:
    absent = not each.pairing.reference
    return absent and bool(each.pairing.predicted), absent


def _confused(each: Grounded) -> tuple[float, float]:
    """Whether a box lies on the twin of an object asked for; of questions whose image shows the twin as well.

    It lies there if its IoU with the twin is above one half, and larger than with each box asked for.
    """
    twins = {twin for label in each.labels if (twin := twin_of(label))} - {*each.labels}
    boxes = [box for label, box in each.others or () if label in twins]
    confused = any(
        max(box.iou(twin) for twin in boxes) > max(IOU_THRESHOLD, *map(box.iou, each.pairing.reference))
        for box in each.pairing.predicted
        if boxes and each.pairing.outcome is Outcome.ANSWERED
    )
    return confused, bool(boxes)


def _row(answers: Sequence[Grounded], count: _Count) -> dict[str, Any]:
    counts = np.array([count(each) for each in answers], float).reshape(-1, 2)
    asked = counts[:, 1] > 0
    total = counts[:, 1].sum()
    cases = [each.case for each, used in zip(answers, asked, strict=True) if used]
    number = len(set(cases))
    row: dict[str, Any] = {"score": None, "n": int(total), "cases": number, "interval": None}
    if number:
        sums = draw_sums(counts[asked], cases)
        row["score"] = float(counts[asked, 0].sum() / total)
        row["interval"] = interval_of(ratio(sums[:, 0], sums[:, 1]), number)
    return row


def _grouped(pairs: Any) -> dict[str, list[Grounded]]:
    groups: dict[str, list[Grounded]] = {}
    for name, each in pairs:
        groups.setdefault(name, []).append(each)
    return groups
