"""What the rows of a Med-GRIT split say about predictions: cases, objects of each image, mean boxes of labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.folder.publish import open_folder
from ..data.records import SINGLE_TASKS, Task
from ..hub.boxes import Box
from ..hub.grounding import Span, write
from .predictions import Prediction

MIDDLE = Box(0.25, 0.25, 0.75, 0.75)  # the answer of the baseline if a label is not in the training split

_Objects = tuple[tuple[str, Box], ...]


@dataclass(frozen=True)
class SplitRows:
    """The rows that predictions answer.

    predictions: with the case of each row.
    asked: by id, the labels asked for, and their boxes; a label that is not in the image has none.
    objects: by the name of an image, its objects.
    mean_boxes: of each (modality, label) of the training split; empty if the folder has none.
    """

    predictions: list[Prediction]
    asked: Mapping[int, tuple[tuple[str, ...], _Objects]]
    objects: Mapping[str, _Objects]
    mean_boxes: Mapping[tuple[str, str], Box]

    def baseline(self) -> list[Prediction]:
        """Answers without a look at the image: for each label the mean of its training boxes, else the middle."""
        return [replace(each, response=self._guess(each), error=None) for each in self.predictions]

    def _guess(self, prediction: Prediction) -> str:
        text, spans = "", []
        for label in self.asked[prediction.id][0]:
            box = self.mean_boxes.get((prediction.modality.value, label), MIDDLE)
            text += ", " if text else ""
            spans.append(Span(label, len(text), len(text) + len(label), (box,)))
            text += label
        return write(text, spans)


def split_rows(predictions: Sequence[Prediction], data: Path, task: Task, split: str) -> SplitRows:
    """The rows of a folder that predictions answer.

    Raises ValueError if the folder cannot be read, or if a prediction answers another question than the row of its id.
    """
    columns = ["image_id", "messages", "case_id", "objects"]
    rows = list(open_folder(data, task, split).select_columns(columns))
    joined = []
    for each in predictions:
        if each.id >= len(rows) or rows[each.id]["messages"][0]["content"] != each.question:
            raise ValueError(
                f"id {each.id} answers {each.question[:60]!r}, which is not row {each.id} of {task}, {split} in {data};"
                " give --data and --split of the predictions"
            )
        joined.append(replace(each, case_id=rows[each.id]["case_id"] or None))
    asked = {each.id: _asked(rows[each.id]["objects"]) for each in predictions}
    names = _tasks_of(data)
    everything = [row for name in names for row in _objects_of(data, name, split)]
    objects: dict[str, dict[tuple[str, Box], None]] = {}
    for row in everything:
        of_image = objects.setdefault(f"{row['image_id']}.png", {})
        of_image |= dict.fromkeys(_asked(row["objects"])[1])
    return SplitRows(
        joined, asked, {name: tuple(found) for name, found in objects.items()}, _means(data, task)
    )


def _asked(objects: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, ...], _Objects]:
    items = list(objects)
    labels = tuple(dict.fromkeys(item["label"] for item in items))
    return labels, tuple((item["label"], Box(*item["box"])) for item in items if item["box"])


def _tasks_of(data: Path) -> Sequence[str]:
    """The tasks of a folder: a published one keeps each in data/TASK."""
    return [task for task in SINGLE_TASKS if (data / "data" / task).is_dir()] or list(SINGLE_TASKS)


def _objects_of(data: Path, task: str, split: str) -> Iterable[Mapping[str, Any]]:
    return open_folder(data, task, split).select_columns(["image_id", "modality", "objects"])


def _means(data: Path, task: str) -> dict[tuple[str, str], Box]:
    try:
        rows = _objects_of(data, task, "train")
    except ValueError:  # a folder with a test split only
        return {}
    boxes: dict[tuple[str, str], dict[tuple[str, tuple[float, ...]], None]] = {}
    for row in rows:
        for label, box in _asked(row["objects"])[1]:
            boxes.setdefault((row["modality"], label), {})[row["image_id"], box.xyxy] = None
    return {
        key: Box(*(sum(corner) / len(found) for corner in zip(*(xyxy for _, xyxy in found), strict=True)))
        for key, found in boxes.items()
    }
