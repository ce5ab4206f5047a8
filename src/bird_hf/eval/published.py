"""Figures that the BiRD paper prints (published.yaml), and the averages recomputed from their cells.

They are shown beside the scores of runs. Where a printed average is not the mean of its cells, the recomputed one is
shown, with a footnote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path

import yaml

from ..data.records import SINGLE_TASKS, Modality

TASKS = tuple(task.value for task in SINGLE_TASKS)
AVERAGE = "average"
_LAST_DIGIT = Decimal("0.01")  # of the printed figures


@dataclass(frozen=True)
class Average:
    """An average as it is printed, and the mean of its cells to the same digits.

    The two agree if the mean is within half of the last digit: cells are rounded themselves, so a mean that ends in 5
    may have been rounded down.
    """

    place: str
    printed: Decimal
    recomputed: Decimal
    is_slip: bool

    @property
    def value(self) -> Decimal:
        """What a report shows."""
        return self.recomputed if self.is_slip else self.printed


@dataclass(frozen=True)
class PublishedModel:
    """A row of Table 1: scores in percent by task; turns: of training, if the row is part of the data-scale study."""

    model: str
    test_set: str
    scores: Mapping[str, Decimal]
    average: Average | None
    turns: int | None


@dataclass(frozen=True)
class Capabilities:
    """A row of Table 2: the tasks that a model can do, its number of imaging modalities, and what is cited for it."""

    model: str
    tasks: frozenset[str]
    modalities: int
    source: str


@dataclass(frozen=True)
class Published:
    """The tables of the paper.

    scores: of Table 3, by task and modality, percent. task_averages, modality_averages: its last column and row.
    """

    source: str
    url: str
    models: tuple[PublishedModel, ...]
    capabilities: tuple[Capabilities, ...]
    scores: Mapping[str, Mapping[str, Decimal]]
    task_averages: Mapping[str, Average]
    modality_averages: Mapping[str, Average]

    @property
    def averages(self) -> list[Average]:
        """Every average of Tables 1 and 3."""
        of_models = [each.average for each in self.models if each.average]
        return [*of_models, *self.task_averages.values(), *self.modality_averages.values()]


@cache
def published() -> Published:
    """The figures of published.yaml."""
    found = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
    printed = {task: _decimals(row) for task, row in found["table_3"].items()}
    averages = printed.pop(AVERAGE)
    scores = {
        task: {name: row[name] for name in map(str, Modality) if name in row} for task, row in printed.items()
    }
    return Published(
        found["source"],
        found["url"],
        tuple(map(_model, found["table_1"])),
        tuple(
            Capabilities(row["model"], frozenset(task for task in TASKS if row[task]), row["modalities"], row["source"])
            for row in found["table_2"]
        ),
        scores,
        {
            task: _average(f"Table 3, {task.upper()}", row[AVERAGE], scores[task].values())
            for task, row in printed.items()
        },
        {
            name: _average(f"Table 3, {name}", value, [row[name] for row in scores.values() if name in row])
            for name, value in averages.items()
        },
    )  # fmt: skip


def _model(row: Mapping[str, object]) -> PublishedModel:
    scores = _decimals({task: row[task] for task in TASKS if task in row})
    place = f"Table 1, {row['model']} on {row['test_set']}"
    average = _average(place, Decimal(str(row[AVERAGE])), scores.values()) if AVERAGE in row else None
    turns = row.get("turns")
    return PublishedModel(
        str(row["model"]), str(row["test_set"]), scores, average, turns if isinstance(turns, int) else None
    )


def _average(place: str, printed: Decimal, cells: Iterable[Decimal]) -> Average:
    values = list(cells)
    mean = sum(values, Decimal()) / len(values)
    is_slip = abs(mean - printed) > _LAST_DIGIT / 2
    return Average(place, printed, mean.quantize(_LAST_DIGIT, ROUND_HALF_UP), is_slip)


def _decimals(row: Mapping[str, object]) -> dict[str, Decimal]:
    """The figures of a row, exactly as they are written; two digits after the point."""
    return {name: Decimal(str(value)).quantize(_LAST_DIGIT) for name, value in row.items()}
