"""The paper's Tables 1, 2 and 3 with the scores of runs beside the figures that the paper prints (published.py).

Rows of the paper are marked as published: they are of its own data and its own weights, and were not measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ..data.records import Modality
from ..markdown import Cell, Part, Table
from .percent import BELOW, below_text, percent
from .published import TASKS, Average, Published
from .tables import METRICS, MODALITY_HEADINGS

Reports = Mapping[str, Mapping[str, Any]]  # of runs, by name

_PUBLISHED = "published"
_YES, _NO = "yes", "no"
_NOTE_1 = (
    "Percent. A row of a run is over images of one kind. Its task scores are means over the modalities that have one; "
    "its average is over the tasks that have a score. Rows marked as published are printed in the paper, for its own "
    "test set, and were not measured here."
)
_NOTE_RULES = (
    "The published figures follow the rules of the paper's scripts; those of the runs the strict rules. They are not "
    "comparable: give --rules paper."
)
_NOTE_2 = (
    "What the paper says of each model, with the number of imaging modalities, and the source that it cites. Rows of "
    "runs say which tasks their prediction files answer, and of how many modalities; not how well."
)


def average_of(rows: Mapping[str, Any]) -> float | None:
    """The average of Table 1: of the means of the tasks that have one."""
    known = [rows[task]["mean"] for task in TASKS if task in rows and rows[task]["mean"] is not None]
    return sum(known) / len(known) if known else None


def table_1(reports: Reports, published: Published, rules: str) -> list[Part]:
    """Models by task: the paper's rows, then a row for each run and kind of images."""
    lines: list[list[object]] = []
    for model in published.models:
        scores = [_decimal(model.scores.get(task)) for task in TASKS]
        average = _decimal(model.average.value if model.average else None)
        lines.append([model.model, f"{model.test_set}, {_PUBLISHED}", *scores, average, "-"])
    marked = frozenset(range(len(lines)))
    for name, report in reports.items():
        for source, rows in report["sources"].items():
            tasks = {task: rows[task] for task in TASKS if task in rows}
            if tasks:
                cells = [_mean_cell(rows[task]) if task in rows else "-" for task in TASKS]
                answers = sum(row["questions"] for row in tasks.values())
                lines.append([name, source, *cells, percent(average_of(rows)), answers])
        if "llava_med" in report:
            lines.append([name, *_llava_med_cells(report["llava_med"])])
    heads = [f"{task.upper()} ({METRICS[task]})" for task in TASKS]
    measures = {str(report["rc_measure"]) for report in reports.values()} - {"spice"}
    notes: list[Part] = [_NOTE_1]
    if rules != "paper":
        notes.append(_NOTE_RULES)
    if measures:
        notes.append("RC of the runs is scene_graph_f1, another measure than the paper's SPICE.")
    header = ["model", "images", *heads, "average", "answers"]
    return [*notes, Table(header, lines, BELOW, marked)]


def _mean_cell(row: Mapping[str, Any]) -> Cell:
    interval = below_text(row["interval"]["mean"], row["cases"]["total"]) if row["n_modalities"] else ""
    return Cell(percent(row["mean"]), below=interval)


def _llava_med_cells(scored: Mapping[str, Any]) -> list[object]:
    whole = scored["all"]
    cell = Cell(percent(whole["mbmr"]), below=below_text(whole["interval"], whole["cases"]))
    return [scored["test_set"], "-", "-", "-", cell, "-", whole["n"]]


def table_2(reports: Reports, published: Published) -> list[Part]:
    """Which tasks models can do, as the paper says; and which tasks the runs answer."""
    tasks = ("mia", "roc", "rc", "vg")  # the order of the paper
    lines: list[list[object]] = [
        [row.model, *(_YES if task in row.tasks else _NO for task in tasks), row.modalities, row.source]
        for row in published.capabilities
    ]
    marked = frozenset(range(len(lines)))
    for name, report in reports.items():
        sources = report["sources"].values()
        answered = {task for rows in sources for task in rows}
        seen = {name for rows in sources for row in rows.values() for name in row["modalities"]}
        cells = [_YES if task in answered else "-" for task in tasks]
        lines.append([name, *cells, len(seen), "its prediction files"])
    header = ["model", *(task.upper() for task in tasks), "modalities", "source"]
    return [_NOTE_2, Table(header, lines, marked=marked)]


def published_table_3(published: Published) -> list[Part]:
    """The paper's Table 3, with averages recomputed where the printed one is a slip, and a footnote for each."""
    notes: list[str] = []
    lines: list[list[object]] = []
    for task in TASKS:
        cells = [_decimal(published.scores[task].get(name)) for name in Modality]
        average = _average(published.task_averages[task], notes)
        lines.append([task.upper(), METRICS[task], *cells, average])
    averages = [_average(published.modality_averages[name], notes) for name in Modality]
    lines.append(["average", "-", *averages, "-"])
    header = ["task", "metric", *MODALITY_HEADINGS.values(), "average"]
    of = "BiRD-Med-GRIT-270k on Med-GRIT-Test30k, percent. Published figures, not measured here."
    return [of, Table(header, lines, marked=frozenset(range(len(lines)))), *([notes] if notes else [])]


def sources_line(published: Published) -> str:
    """Where the published figures are printed."""
    return f"Published figures: {published.source}, {published.url}"


def _average(average: Average, notes: list[str]) -> str:
    if not average.is_slip:
        return _decimal(average.value)
    mark = "*" * (len(notes) + 1)
    notes.append(
        f"{mark} {average.place}: the paper prints {average.printed}; the mean of its cells is {average.recomputed}."
    )
    return f"{average.value} {mark}"


def _decimal(value: Decimal | None) -> str:
    return "-" if value is None else str(value)


def as_json(published: Published) -> dict[str, Any]:
    """The published figures as a report.json holds them; percent, slips corrected."""
    return {
        "source": published.source,
        "url": published.url,
        "models": [
            {
                "model": row.model,
                "test_set": row.test_set,
                "turns": row.turns,
                **{task: float(score) for task, score in row.scores.items()},
                "average": float(row.average.value) if row.average else None,
            }
            for row in published.models
        ],
        "scores": {
            task: {name: float(score) for name, score in row.items()}
            for task, row in published.scores.items()
        },
        "task_averages": _floats(published.task_averages),
        "modality_averages": _floats(published.modality_averages),
        "slips": [
            {"place": each.place, "printed": float(each.printed), "recomputed": float(each.recomputed)}
            for each in published.averages
            if each.is_slip
        ],
    }


def _floats(averages: Mapping[str, Average]) -> dict[str, float]:
    return {name: float(each.value) for name, each in averages.items()}
