"""Scores by the number of dialogue turns of the training data, beside the paper's (BiRD, Table 1, rows 3 to 6)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..markdown import Cell, Part, Table
from .paper_tables import Reports, average_of
from .percent import BELOW, below_text, percent
from .published import AVERAGE, TASKS, Published

MEASURES = (*TASKS, AVERAGE)
_SCALE = re.compile(r"(\d{1,12})(k?)=(.+)", re.IGNORECASE | re.DOTALL)
_NOTE = (
    "By the number of dialogue turns of the training data. Percent; below a score its 95 % interval and the number of "
    "cases. Rows marked as published are those of the paper's Table 1, for its own test set."
)


@dataclass(frozen=True)
class Point:
    """The scores of a model by measure (a task, or `average`), fractions; intervals: of those that have one."""

    turns: int
    name: str
    scores: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    cases: int | None = None


@dataclass(frozen=True)
class Series:
    """The points of one line, by their turns. is_published: printed in the paper, not measured here."""

    name: str
    points: tuple[Point, ...]
    is_published: bool = False


def read_scales(texts: Sequence[str]) -> dict[Path, int]:
    """The turns of each run in texts such as "20000=runs/small" or "20k=runs/small".

    Raises ValueError if a text has another form, or a run or a number occurs twice.
    """
    found: dict[Path, int] = {}
    for text in texts:
        match = _SCALE.fullmatch(text)
        turns = int(match[1]) * (1000 if match[2] else 1) if match else 0
        if match is None or not turns:
            raise ValueError(
                f"--scale {text[:80]!r}: write TURNS=RUN, such as 20k=runs/small; all of the data has a number, too"
            )
        path = Path(match[3])
        if path in found or turns in found.values():
            raise ValueError(f"--scale {text[:80]!r}: the run or its number of turns is given twice")
        found[path] = turns
    return found


def scale_series(reports: Reports, turns: Mapping[str, int], published: Published) -> list[Series]:
    """A line for each kind of images of the runs, then the paper's. turns: of each run that belongs to the study."""
    by_source: dict[str, list[Point]] = {}
    for name in sorted(turns, key=lambda each: turns[each]):
        for source, rows in reports[name]["sources"].items():
            if average_of(rows) is not None:
                by_source.setdefault(source, []).append(_point(name, turns[name], rows))
    paper = tuple(
        Point(
            row.turns,
            row.model,
            {task: float(score) / 100 for task, score in row.scores.items()}
            | {AVERAGE: float(row.average.value) / 100},
            {},
        )
        for row in published.models
        if row.turns and row.average
    )
    found = [Series(f"these runs, {source}", tuple(points)) for source, points in by_source.items()]
    return [*found, Series("BiRD, published", paper, is_published=True)]


def _point(name: str, turns: int, rows: Mapping[str, Any]) -> Point:
    known = {task: rows[task] for task in TASKS if task in rows and rows[task]["mean"] is not None}
    scores = {task: row["mean"] for task, row in known.items()}
    intervals = {
        task: tuple(row["interval"]["mean"]) for task, row in known.items() if row["interval"]["mean"]
    }
    average = average_of(rows)
    assert average is not None
    cases = max(row["cases"]["total"] for row in known.values())
    return Point(turns, name, scores | {AVERAGE: average}, intervals, cases)


def scale_table(series: Sequence[Series]) -> list[Part]:
    """The points of all lines as a table."""
    lines: list[list[object]] = []
    marked: set[int] = set()
    for each in series:
        for point in each.points:
            if each.is_published:
                marked.add(len(lines))
            cells = [_cell(point, measure) for measure in MEASURES]
            lines.append([point.turns, point.name, each.name, *cells])
    header = ["turns", "model", "images", *(task.upper() for task in TASKS), AVERAGE]
    return [_NOTE, Table(header, lines, BELOW, frozenset(marked))]


def _cell(point: Point, measure: str) -> Cell:
    interval = point.intervals.get(measure)
    cases = point.cases if interval else None
    return Cell(percent(point.scores.get(measure)), below=below_text(interval, cases))
