"""The report of a run: the paper's Table 3, task by modality, for real images and for phantoms apart.

Below it stands how often objects that are not there are boxed (BiRD 5, Fig. 4). A folder of several runs also gets
the paper's Table 1: a line a run, the mean of each task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.records import SINGLE_TASKS, Modality, Task
from . import scores
from .hallucination import Missing, box_given
from .predictions import Prediction, write_whole
from .report import malformed_rate, score_predictions
from .runs import KINDS, prediction_file, read_answers, read_run, weights_sha256

# Named by what a prediction says of its image; files of the original do not say it.
_SOURCES = {False: "real", True: "phantom", None: "unmarked"}
_HEADINGS = {
    "real": "Real images",
    "phantom": "Phantoms (drawn pictures: no medical evidence)",
    "unmarked": "Images of which the files do not say whether they are real",
}
METRICS = {
    "vg": "Recall@0.5",
    "roc": "Recall",
    "rc": "SPICE",
    "mia": "mBMR",
    "absent": "boxed",
    "foreign": "boxed",
}
_MODALITY_HEADINGS = {
    Modality.CT: "CT", Modality.MR: "MR", Modality.X_RAY: "X-ray", Modality.PET: "PET",
    Modality.ENDOSCOPY: "Endoscopy", Modality.DERMOSCOPY: "Dermoscopy",
    Modality.FUNDUS: "Fundus", Modality.ULTRASOUND: "Ultrasound",
}  # fmt: skip
_TASKS = tuple(task.value for task in SINGLE_TASKS)
_LABELS = {
    **{task: task.upper() for task in _TASKS},
    Missing.ABSENT: "listed as absent",
    Missing.FOREIGN: "of another kind of picture",
}


def report_run(folder: Path, rules: str = "paper") -> dict[str, Any]:
    """A run's scores as fractions, by source (real, phantom), by task, by modality, each with its n.

    n counts reference boxes for VG and questions elsewhere; `score` is None where nothing scores a task yet (RC).
    Raises ValueError, in one line, where predictions are missing, bad or not of this run.
    """
    answers = read_answers(folder)
    run = read_run(folder)
    sources: dict[str, dict[str, Any]] = {}
    for kind, predictions in answers.items():
        for synthetic, source in _SOURCES.items():
            if chosen := [each for each in predictions if each.synthetic is synthetic]:
                sources.setdefault(source, {})[kind] = _row(kind, chosen, rules)
    return {
        **{name: getattr(run, name, None) for name in ("model", "weights_sha256", "data", "split")},
        "rules": rules,
        "sources": {name: sources[name] for name in _HEADINGS if name in sources},
    }


def _row(kind: str, predictions: Sequence[Prediction], rules: str) -> dict[str, Any]:
    """A line of the table: cells by modality and their mean over the modalities that have any."""
    if kind not in _TASKS:
        cells = _rates(predictions)
    elif kind == Task.REFERRING_CAPTION:
        cells = {name: {"score": None, "n": n} for name, n in _counts(predictions).items()}
    else:
        cells = _scores(kind, predictions, rules)
    known = [cell["score"] for cell in cells.values() if cell["score"] is not None]
    return {
        "metric": METRICS[kind],
        "modalities": cells,
        "mean": sum(known) / len(known) if known else None,
        "n_modalities": len(known),
        "questions": len(predictions),
        "malformed_rate": malformed_rate(predictions),
    }


def _scores(kind: str, predictions: Sequence[Prediction], rules: str) -> dict[str, dict[str, Any]]:
    rows = score_predictions(predictions, kind, rules)["modalities"]
    if kind == Task.IMAGE_ANALYSIS:
        counts = _counts(predictions)
        return {name: {"score": row["mbmr"], "n": counts[name]} for name, row in rows.items()}
    return {name: {"score": row["score"], "n": row["total"]} for name, row in rows.items()}


def _rates(predictions: Sequence[Prediction]) -> dict[str, dict[str, Any]]:
    """How many of the objects that are not there are boxed."""
    found = {
        modality.value: scores.total(
            box_given(each.response) for each in predictions if each.modality is modality
        )
        for modality in Modality
    }
    return {name: {"score": rate.score, "n": rate.total} for name, rate in found.items() if rate.total}


def _counts(predictions: Sequence[Prediction]) -> dict[str, int]:
    asked = [each.modality for each in predictions]
    return {modality.value: asked.count(modality) for modality in Modality if modality in asked}


def write_reports(folder: Path, rules: str = "paper") -> tuple[dict[str, Any], str]:
    """Write report.json and report.md into a run, or into a folder of runs and into each of them.

    Returns both as they were written. Raises ValueError as `report_run` does.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: no such folder; give --model and --data as well to make predictions there"
        )
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_run(path)]
    if inside and not _is_run(folder):
        reports = {path.name: write_reports(path, rules)[0] for path in inside}
        report: dict[str, Any] = {"rules": rules, "runs": reports}
        text = f"# {folder.resolve().name}\n\n{table_of_runs(reports)}"
    else:
        report = report_run(folder, rules)
        text = f"# {folder.resolve().name}\n\n{as_markdown(report)}"
    write_whole(folder / "report.json", json.dumps(report, indent=1) + "\n")
    write_whole(folder / "report.md", text)
    return report, text


def _is_run(folder: Path) -> bool:
    return any(prediction_file(folder, kind).is_file() for kind in KINDS)


def as_markdown(report: Mapping[str, Any], level: int = 2) -> str:
    """The report as the paper's Table 3 and, below, the objects that are not there; headings begin at `level`."""
    lines = [
        f"{_of_whom(report)} Rules: {report['rules']}. Percent; in brackets the number of reference boxes (VG) or of "
        "questions. A mean is over the modalities that have a number, counted in its brackets. Malformed: answers with "
        "a broken box."
    ]
    for source, rows in report["sources"].items():
        lines += ["", f"{'#' * level} {_HEADINGS[source]}", "", *_table(rows, _TASKS, "task")]
        if missing := _table(rows, tuple(Missing), "object asked for"):
            lines += ["", "Objects that are not there, answered with a box (none is best):", "", *missing]
    return "\n".join(lines) + "\n"


def results_of(report: Path, checkpoint: Path) -> str:
    """The tables of a report.json as a model card shows them.

    Raises ValueError where the file is no report of one run, or of other weights than those of the checkpoint.
    """
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
        text = as_markdown(found, level=3).rstrip()
    except OSError as error:
        raise ValueError(f"{report} cannot be read ({error.strerror}); `bird report` makes one") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{report} is no report.json of a run ({error!r}); `bird report` makes one"
        ) from error
    if found["weights_sha256"] != weights_sha256(checkpoint):
        raise ValueError(
            f"{report} is of other weights than those in {checkpoint}; make it again with `bird report`"
        )
    return text


def _of_whom(report: Mapping[str, Any]) -> str:
    if report["weights_sha256"] is None:
        return "Answers of a model that the files do not name."
    return (
        f"Model `{report['model']}` (weights sha256 `{report['weights_sha256']}`) on the {report['split']} split of "
        f"`{report['data']}`."
    )


def _table(rows: Mapping[str, Any], kinds: Sequence[str], heading: str) -> list[str]:
    """The lines of a Markdown table of some of a source's rows; none where it has none of them."""
    chosen = {kind: rows[kind] for kind in kinds if kind in rows}
    if not chosen:
        return []
    columns = [heading, "metric", *_MODALITY_HEADINGS.values(), "mean", "malformed"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for kind, row in chosen.items():
        cells = [_cell(row["modalities"].get(modality)) for modality in Modality]
        mean = _cell({"score": row["mean"], "n": row["n_modalities"]} if row["n_modalities"] else None)
        first = [_LABELS[kind], row["metric"]]
        malformed = f"{100 * row['malformed_rate']:.2f} ({row['questions']})"
        lines.append(f"| {' | '.join([*first, *cells, mean, malformed])} |")
    return lines


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "-"
    return (
        f"no score yet ({cell['n']})" if cell["score"] is None else f"{100 * cell['score']:.2f} ({cell['n']})"
    )


def table_of_runs(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """The paper's Table 1: the mean of each task, a line a run and source."""
    heads = [f"{task.upper()} ({METRICS[task]})" for task in _TASKS]
    lines = [
        "Percent; means over modalities, and their average over the tasks that have one.",
        "",
        f"| run | images | {' | '.join(heads)} | average |",
        "|---" * (len(heads) + 3) + "|",
    ]
    for name, report in reports.items():
        for source, rows in report["sources"].items():
            means = [rows[task]["mean"] if task in rows else None for task in _TASKS]
            known = [mean for mean in means if mean is not None]
            cells = [_percent(mean) for mean in (*means, sum(known) / len(known) if known else None)]
            lines.append(f"| {name} | {source} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
