"""`bird report`: the paper's tables for runs, strict tables, and answers to look at: Markdown, JSON and one HTML page.

The page holds its images, loads nothing, and runs no scripts.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..atomic_writes import write_text
from ..data.folder.publish import open_folder
from ..data.records import Task
from ..eval.data_scale import read_scales, scale_series, scale_table
from ..eval.examples import examples_of
from ..eval.paper_tables import as_json, published_table_3, sources_line, table_1, table_2
from ..eval.predictions import Prediction
from ..eval.published import published
from ..eval.run import find_runs, is_run, read_answers, read_run
from ..eval.score import score_predictions
from ..eval.score_tables import tables_of_scores
from ..eval.split_images import SplitImages
from ..eval.split_rows import SplitRows, split_rows
from ..eval.tables import HEADINGS, by_source, report_answers, run_sections
from ..markdown import Part, Section, render
from .html import write_page
from .run_examples import Shown, examples_note, examples_table, ranked, shown_example
from .scale_figure import scale_svg

FIGURE = "data_scale.svg"
_STRICT_NOTE = (
    "Strict rules: boxes are paired one to one, false boxes and boxes under a wrong name are charged, names must stand "
    "there in whole words, and no unreadable answer is right. Fractions."
)


@dataclass(frozen=True)
class RunReport:
    """The report of one run: its JSON, and what the page shows of it."""

    found: dict[str, Any]
    shown: list[Shown] = field(default_factory=list)


@dataclass(frozen=True)
class Choices:
    """What `write_report` was asked for."""

    rules: str = "paper"
    rc_measure: str = "spice"
    data: Path | None = None
    split: str = "test"


def write_report(
    paths: Sequence[Path],
    out: Path | None = None,
    choices: Choices | None = None,
    scales: Sequence[str] = (),
) -> tuple[dict[str, Any], str]:
    """Write report.md, report.json and report.html into `out`; returns the report and its Markdown.

    paths: runs, folders of runs, prediction files. out: by default the path, if it is the only one and a folder, else
    ./report. A folder of runs gets a report in each of them, too. scales: the turns of runs ("20k=runs/small"), which
    are then also drawn as a curve.
    Raises ValueError, in one line, if predictions are missing or damaged, or do not answer the rows of `choices.data`.
    """
    choices = choices or Choices()
    turns = read_scales(scales)
    runs = find_runs([*paths, *(path for path in turns if path not in paths)])
    if not runs:
        raise ValueError("give the folder of a run, or --scale TURNS=RUN")
    reports = {name: report_of(path, choices) for name, path in runs.items()}
    turns_of = {name: turns[path] for name, path in runs.items() if path in turns}
    if len(turns_of) < len(turns):
        raise ValueError("--scale takes runs, not folders of runs; name each run with its number of turns")
    single = len(paths) == 1 and not turns and paths[0].is_dir()
    target = out or (paths[0] if single else Path("report"))
    if single and not is_run(paths[0]):
        for name, path in runs.items():
            _write(path, {name: reports[name]}, {}, choices)
    return _write(target, reports, turns_of, choices)


def report_of(path: Path, choices: Choices) -> RunReport:
    """The report of one run: that of `report_answers`, strict scores by source, and examples."""
    answers: dict[str, list[Prediction]] = read_answers(path)
    rows, images = None, None
    grounded = answers.get(Task.VISUAL_GROUNDING, [])
    if choices.data and grounded:
        rows = split_rows(grounded, choices.data, Task.VISUAL_GROUNDING, choices.split)
        images = SplitImages([open_folder(choices.data, Task.VISUAL_GROUNDING, choices.split)])
        answers = {**answers, Task.VISUAL_GROUNDING.value: rows.predictions}
    found = report_answers(answers, read_run(path), choices.rules, choices.rc_measure)
    found["strict"] = _strict(answers, rows)
    examples = examples_of(answers[Task.VISUAL_GROUNDING]) if grounded else []
    found["examples"] = [each.as_json() for each in examples]
    return RunReport(found, [shown_example(each, images) for each in examples])


def _strict(answers: Mapping[str, Sequence[Prediction]], rows: SplitRows | None) -> dict[str, dict[str, Any]]:
    """Strict scores of VG and ROC by source and task."""
    scored: dict[str, dict[str, Any]] = {}
    for task in (Task.VISUAL_GROUNDING, Task.REFERRING_CLASSIFICATION):
        for source, chosen in by_source(answers.get(task, [])).items():
            known = replace(rows, predictions=chosen) if rows and task == Task.VISUAL_GROUNDING else None
            scored.setdefault(source, {})[task.value] = score_predictions(chosen, task, "strict", known)
    return {source: scored[source] for source in HEADINGS if source in scored}


def _write(
    out: Path, reports: Mapping[str, RunReport], turns: Mapping[str, int], choices: Choices
) -> tuple[dict[str, Any], str]:
    """Write the files of some runs into a folder; turns: of those that are part of a data-scale study."""
    paper = published()
    found = {name: each.found for name, each in reports.items()}
    title = out.resolve().name if len(reports) > 1 else next(iter(reports))
    document: dict[str, Any] = {"rules": choices.rules, "published": as_json(paper)}
    document = {**next(iter(found.values())), **document} if len(found) == 1 else {**document, "runs": found}
    first = [Section("Models by task (Table 1)", table_1(found, paper, choices.rules))]
    figure = ""
    if turns:
        series = scale_series(found, turns, paper)
        figure = scale_svg(series)
        first.append(Section("Scores by the amount of data", scale_table(series)))
        document["data_scale"] = {name: turns[name] for name in sorted(turns, key=lambda each: turns[each])}
    last = [
        Section("What models can do (Table 2)", table_2(found, paper)),
        Section("Task by modality, as published (Table 3)", published_table_3(paper)),
        Section("Source", [sources_line(paper)]),
    ]
    bodies = {name: _body(name, each, len(reports) > 1) for name, each in reports.items()}
    text = _markdown(title, first, bodies, reports, last, choices, bool(figure))
    out.mkdir(parents=True, exist_ok=True)
    if figure:
        write_text(out / FIGURE, figure)
    write_text(out / "report.json", json.dumps(document, indent=1) + "\n")
    write_text(out / "report.md", text)
    runs = [(bodies[name], ranked(each.shown)) for name, each in reports.items()]
    note = examples_note(choices.data is not None)
    write_page(
        out / "report.html", "report.html", title=title, first=first, figure=_svg_uri(figure), runs=runs,
        examples_note=note, last=last,
    )  # fmt: skip
    return document, text


def _body(name: str, report: RunReport, several: bool) -> list[Section]:
    """The sections of a run; headings are a level lower if there are several runs."""
    level = 3 if several else 2
    sections = run_sections(report.found, level)
    title = name if several else "Task by modality (Table 3)"
    sections = [Section(title, sections[0].parts, 2), *sections[1:]]
    for source, scored in report.found["strict"].items():
        parts: list[Part] = [_STRICT_NOTE]
        for each in scored.values():
            parts += tables_of_scores(each)
        sections.append(Section(f"Strict scores: {HEADINGS[source].lower()}", parts, level))
    return sections


def _markdown(
    title: str,
    first: Sequence[Section],
    bodies: Mapping[str, Sequence[Section]],
    reports: Mapping[str, RunReport],
    last: Sequence[Section],
    choices: Choices,
    has_figure: bool,
) -> str:
    level = 3 if len(bodies) > 1 else 2
    blocks = [render([Section(title, [], 1), *first])]
    if has_figure:
        blocks.append(f"![Scores by the number of dialogue turns]({FIGURE})\n")
    for name, sections in bodies.items():
        blocks.append(render(sections))
        if shown := reports[name].shown:
            parts: list[Part] = [examples_note(choices.data is not None), examples_table(shown)]
            blocks.append(render([Section("Worst, median and best answers", parts, level)]))
    return "\n".join([*blocks, render(last)])


def _svg_uri(figure: str) -> str:
    """An image can neither run scripts nor load anything, whatever its text is."""
    return f"data:image/svg+xml;base64,{base64.b64encode(figure.encode()).decode()}" if figure else ""
