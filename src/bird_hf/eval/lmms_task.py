"""The functions of the lmms-eval tasks that `bird data export --to lmms-eval` writes.

An answer is read in the dialect of the export (`dialect.json`), never by guessing a scale, and scored by the rules of
`bird score`. A value of a sample is a dictionary or a number; `mean_over_modalities` and `mean` make the metric of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..asking.bird_text import bird_text
from ..data.records import Task
from ..dialects import read_dialect
from ..hub.boxes import Box
from ..hub.grounding import GroundedText, read
from ..hub.pixels import open_image
from .outcomes import Outcome, outcome_of
from .recall import Recall, mean_score, total
from .score import recall_rule

_THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)  # lmms-eval's for RefCOCO, where the IoU may equal them


class LmmsTask:
    """The functions of a task folder, which holds `dialect.json`, the rows and their pictures."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.dialect = folder, read_dialect(folder)

    def doc_to_visual(self, doc: Mapping[str, Any]) -> list[Image.Image]:
        """The picture of a row, upright. Raises ValueError if it is outside the folder, or cannot be read."""
        path = (self.folder / doc["image"]).resolve()
        if "/" in doc["image"].removeprefix("images/") or ".." in Path(doc["image"]).parts:
            raise ValueError(f"{doc['image'][:80]!r} is no picture of {self.folder}")
        return [open_image(path)]

    def doc_to_text(self, doc: Mapping[str, Any], lmms_eval_specific_kwargs: Any = None) -> str:
        """The question, as the model is asked."""
        return str(doc["question"])

    def doc_to_target(self, doc: Mapping[str, Any]) -> str:
        """The answer, as the model is to say it."""
        return str(doc["answer"])

    def process_vg(self, doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
        """The values of a visual grounding row by metric."""
        answer = self._read(doc, results)
        response = bird_text(answer)
        values: dict[str, Any] = {
            "recall@0.5_paper": _counts(doc, Task.VISUAL_GROUNDING, "paper", response),
            "recall@0.5_strict": _counts(doc, Task.VISUAL_GROUNDING, "strict", response),
            "unreadable_rate": float(outcome_of(Task.VISUAL_GROUNDING, response) is Outcome.UNREADABLE),
        }
        return values | _one_box(read(doc["reference"]).boxes, answer.boxes)

    def process_roc(self, doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
        """The values of a referring object classification row by metric."""
        response = bird_text(self._read(doc, results))
        return {
            "name_recall_paper": _counts(doc, Task.REFERRING_CLASSIFICATION, "paper", response),
            "name_recall_strict": _counts(doc, Task.REFERRING_CLASSIFICATION, "strict", response),
            "unreadable_rate": float(
                outcome_of(Task.REFERRING_CLASSIFICATION, response) is Outcome.UNREADABLE
            ),
        }

    def _read(self, doc: Mapping[str, Any], results: Sequence[str]) -> GroundedText:
        width, height = doc["image_wh"]
        return self.dialect.read(results[0] if results else "", image_wh=(width, height))


def mean_over_modalities(values: Sequence[Mapping[str, Any]]) -> float:
    """The paper's average: recall of each modality, and their unweighted mean; NaN if nothing was asked for."""
    groups: dict[str, list[Recall]] = {}
    for value in values:
        groups.setdefault(value["modality"], []).append(Recall(value["hits"], value["total"]))
    score = mean_score(map(total, groups.values()))
    return math.nan if score is None else score


def mean(values: Sequence[float | None]) -> float:
    """The mean over rows that have a value; NaN if none has."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan


def _counts(doc: Mapping[str, Any], task: Task, rules: str, response: str) -> dict[str, Any]:
    found = recall_rule(task, rules)(doc["reference"], response)
    return {"hits": found.hits, "total": found.total, "modality": doc["modality"]}


def _one_box(wanted: Sequence[Box], found: Sequence[Box]) -> dict[str, float | None]:
    """lmms-eval's measures of RefCOCO: the first box of the answer; None for rows that do not ask for one box."""
    if len(wanted) != 1:
        names = ("IoU", *(f"ACC@{threshold}" for threshold in _THRESHOLDS), "Center_ACC")
        return dict.fromkeys(names)
    iou = wanted[0].iou(found[0]) if found else 0.0
    values: dict[str, float | None] = {"IoU": iou}
    values |= {f"ACC@{threshold}": float(iou >= threshold) for threshold in _THRESHOLDS}
    return values | {"Center_ACC": float(bool(found) and _holds_centre(wanted[0], found[0]))}


def _holds_centre(box: Box, other: Box) -> bool:
    x, y = (other.x1 + other.x2) / 2, (other.y1 + other.y2) / 2
    return box.x1 <= x <= box.x2 and box.y1 <= y <= box.y2
