"""Count turns, images, boxes and labels of a Med-GRIT folder. Rows are read a few at a time, without pixels."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from ...hub.boxes import Box
from ...markdown import table
from ..records import SINGLE_TASKS, Modality, Task
from .shards import shards_of, stream_rows

# Upper edges of the bins of box areas (share of the image), about logarithmic: many boxes are smaller than one percent.
AREA_EDGES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_LABELS_SHOWN = 30


@dataclass
class Statistics:
    """Counts of a folder. An object counts once per image, whatever the number of turns about it."""

    turns: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # (split, modality, task)
    images: Counter[tuple[str, str]] = field(default_factory=Counter)  # (split, modality)
    synthetic: Counter[str] = field(default_factory=Counter)  # images of a split
    turns_of_image: Counter[tuple[str, int]] = field(default_factory=Counter)  # (split, number of turns)
    boxes: Counter[tuple[str, int]] = field(default_factory=Counter)  # (modality, place in AREA_EDGES)
    absent: Counter[str] = field(default_factory=Counter)  # absent objects of a split
    labels: Counter[str] = field(default_factory=Counter)
    datasets: Counter[str] = field(default_factory=Counter)
    broken_boxes: int = 0

    @property
    def splits(self) -> list[str]:
        return list(dict.fromkeys(split for split, _ in self.images))

    @property
    def modalities(self) -> list[str]:
        """In the paper's order; unknown modalities come last."""
        known = [modality.value for modality in Modality]
        found = {modality for _, modality in self.images} | {modality for _, modality, _ in self.turns}
        return [name for name in known if name in found] + sorted(found - {*known})

    @property
    def tasks(self) -> list[str]:
        found = {task for _, _, task in self.turns}
        return [task.value for task in Task if task.value in found]


def count_folder(folder: Path) -> Statistics:
    """Count the rows of a Med-GRIT folder; raises ValueError if it is not a Med-GRIT folder or has no rows.

    Turns are counted in the single tasks. Images are counted in `chat`, or in the first config if there is no `chat`;
    rows of an image must be next to each other.
    """
    shards = {task: found for task in Task if (found := shards_of(folder, task))}
    if not shards:
        raise ValueError(
            f"{folder} has no rows in data/; `bird data sample --out DIR` makes a folder with rows"
        )
    counts = Statistics()
    for task in [task for task in SINGLE_TASKS if task in shards] or [Task.CHAT]:
        for split, paths in shards[task].items():
            for row in stream_rows(paths, ["modality", "messages"]):
                counts.turns[split, row["modality"], task.value] += len(row["messages"]) // 2
    whole = Task.CHAT if Task.CHAT in shards else next(iter(shards))
    columns = ["image_id", "modality", "messages", "objects", "dataset", "synthetic"]
    for split, paths in shards[whole].items():
        for _, rows in groupby(stream_rows(paths, columns), key=lambda row: row["image_id"]):
            _count_image(counts, split, list(rows))
    return counts


def _count_image(counts: Statistics, split: str, rows: Sequence[Mapping[str, Any]]) -> None:
    first = rows[0]
    counts.images[split, first["modality"]] += 1
    counts.synthetic[split] += bool(first["synthetic"])
    counts.datasets[first["dataset"]] += 1
    counts.turns_of_image[split, sum(len(row["messages"]) // 2 for row in rows)] += 1
    for item in {item["instance_id"]: item for row in rows for item in row["objects"]}.values():
        counts.labels[item["label"]] += 1
        if item["box"] is None:
            counts.absent[split] += 1
            continue
        try:
            area = Box(*item["box"]).area
        except (TypeError, ValueError):  # reported by the audit
            counts.broken_boxes += 1
        else:
            counts.boxes[first["modality"], bisect_left(AREA_EDGES, area)] += 1


def as_json(counts: Statistics) -> dict[str, Any]:
    """The counts as nested dictionaries that can be written as JSON."""
    return {
        "turns": {
            split: {
                modality: {task: counts.turns[split, modality, task] for task in counts.tasks}
                for modality in counts.modalities
            }
            for split in counts.splits
        },
        "images": {
            split: {modality: counts.images[split, modality] for modality in counts.modalities}
            for split in counts.splits
        },
        "synthetic_images": {split: counts.synthetic[split] for split in counts.splits},
        "absent_objects": {split: counts.absent[split] for split in counts.splits},
        "turns_of_an_image": {
            split: {str(turns): n for (of, turns), n in sorted(counts.turns_of_image.items()) if of == split}
            for split in counts.splits
        },
        "box_areas": {
            "upper_edges": list(AREA_EDGES),
            "boxes": {modality: areas_of(counts, modality) for modality in counts.modalities},
        },
        "broken_boxes": counts.broken_boxes,
        "datasets": dict(_most_common(counts.datasets, None)),
        "labels": dict(_most_common(counts.labels, None)),
    }


def areas_of(counts: Statistics, modality: str) -> list[int]:
    """The number of boxes in each bin of `AREA_EDGES`."""
    return [counts.boxes[modality, place] for place in range(len(AREA_EDGES))]


def as_markdown(counts: Statistics) -> str:
    """The counts as tables in Markdown."""
    parts = ["# Statistics"]
    for split in counts.splits:
        parts += [f"## Turns: {split}", _turns_table(counts, split)]
    parts += ["## Images", _images_table(counts), "## Boxes by area (share of the image)"]
    upper = [f"≤ {edge * 100:g} %" for edge in AREA_EDGES]
    areas = [[name, *areas_of(counts, name)] for name in counts.modalities]
    parts += [table(["modality", *upper], areas)]
    if counts.broken_boxes:
        parts += [f"{counts.broken_boxes:,} boxes are malformed; `bird data audit` lists them."]
    turns = sorted({number for _, number in counts.turns_of_image})
    rows = [[number, *(counts.turns_of_image[split, number] for split in counts.splits)] for number in turns]
    parts += ["## Images by their number of turns", table(["turns", *counts.splits], rows)]
    shown = f"the {_LABELS_SHOWN} most frequent of " if len(counts.labels) > _LABELS_SHOWN else ""
    parts += [f"## Labels: {shown}{len(counts.labels):,}"]
    parts += [table(["label", "objects"], _most_common(counts.labels, _LABELS_SHOWN))]
    parts += ["## Datasets", table(["dataset", "images"], _most_common(counts.datasets, None))]
    return "\n\n".join(parts) + "\n"


def _turns_table(counts: Statistics, split: str) -> str:
    rows: list[list[Any]] = [
        [name, *(counts.turns[split, name, task] for task in counts.tasks)] for name in counts.modalities
    ]
    numbers = [[*row, sum(row[1:])] for row in rows]
    totals = [sum(column) for column in list(zip(*numbers, strict=True))[1:]]
    return table(["modality", *counts.tasks, "all"], [*numbers, ["all", *totals]])


def _images_table(counts: Statistics) -> str:
    rows: list[list[Any]] = [
        [name, *(counts.images[split, name] for split in counts.splits)] for name in counts.modalities
    ]
    rows.append(
        ["all", *(sum(counts.images[split, name] for name in counts.modalities) for split in counts.splits)]
    )
    rows.append(["synthetic among them", *(counts.synthetic[split] for split in counts.splits)])
    rows.append(["absent objects", *(counts.absent[split] for split in counts.splits)])
    return table(["modality", *counts.splits], rows)


def _most_common(counter: Counter[str], count: int | None) -> list[tuple[str, int]]:
    """Sorted by frequency and then by name, so that the same rows give the same table."""
    return sorted(counter.items(), key=lambda pair: (-pair[1], pair[0]))[:count]
