"""Tables of scores: of one prediction file, of a run (the paper's Table 3), and of several runs (Table 1).

The report of a run shows real images and phantoms separately, task by modality, and how often the model gives a box for
an object that is not in the image (BiRD 5, Fig. 4). Below are the checks beyond the paper (checks.py). A folder of
several runs also gets one line per run with the mean of each task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic_writes import write_text
from ..data.records import SINGLE_TASKS, Modality, Task
from ..markdown import table
from . import recall
from .captions import MEASURES, check_measure
from .check_scores import CHECKS_NOTE, score_checks, table_of_checks
from .checks import CHECKS
from .hallucination import Missing
from .outcomes import Outcome, outcomes
from .predictions import Prediction, by_modality
from .run import KINDS, prediction_file, read_answers, read_run, weights_sha256
from .score import malformed_rate, recall_rule, score_each_caption, score_predictions

# By `Prediction.synthetic`, which files of the original scripts do not have.
_SOURCES = {False: "real", True: "phantom", None: "unmarked"}
_HEADINGS = {
    "real": "Real images",
    "phantom": "Phantoms (drawn pictures: no medical evidence)",
    "unmarked": "Images that the files mark neither as real nor as phantoms",
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
_RATES = ("malformed_rate", "unreadable_rate")
_TASKS = tuple(task.value for task in SINGLE_TASKS)
_LABELS = {
    **{task: task.upper() for task in _TASKS},
    Missing.ABSENT: "listed as absent",
    Missing.FOREIGN: "of another modality",
}


def report_run(folder: Path, rules: str = "paper", rc_measure: str = "spice") -> dict[str, Any]:
    """A run's scores as fractions, by source (real, phantom), task and modality, each with its n.

    n is the number of reference boxes for VG and of questions otherwise; `score` is None for RC
    if its measure cannot be computed, and `rc_not_scored` says why. `checks` holds the rows of `score_checks`, if the
    run has checks.
    Raises ValueError, in one line, if predictions are missing, damaged or not of this run.
    """
    answers = read_answers(folder)
    run = read_run(folder)
    checks = answers.pop(CHECKS, [])
    captions, why_not = _caption_scores(answers.get(Task.REFERRING_CAPTION, []), rules, rc_measure)
    sources: dict[str, dict[str, Any]] = {}
    for kind, predictions in answers.items():
        for synthetic, source in _SOURCES.items():
            if chosen := [each for each in predictions if each.synthetic is synthetic]:
                row = _row(kind, chosen, rules, captions)
                if kind == Task.REFERRING_CAPTION and rc_measure != "spice":
                    row["metric"] = rc_measure
                sources.setdefault(source, {})[kind] = row
    return {
        **{name: getattr(run, name, None) for name in ("model", "weights_sha256", "data", "split")},
        "rules": rules,
        "rc_measure": rc_measure,
        **({"rc_not_scored": why_not} if why_not else {}),
        "sources": {name: sources[name] for name in _HEADINGS if name in sources},
        **({"checks": score_checks(checks, rules)} if checks else {}),
    }


def _caption_scores(
    predictions: Sequence[Prediction], rules: str, rc_measure: str
) -> tuple[dict[int, float], str]:
    """The scores of captions by id, and why there are none; all in one call, because SPICE starts Java."""
    if not predictions:
        return {}, ""
    try:
        check_measure(rc_measure)
    except ValueError as error:
        if rc_measure not in MEASURES:
            raise
        return {}, str(error)
    scores = score_each_caption(predictions, rules, rc_measure)
    return {each.id: score for each, score in zip(predictions, scores, strict=True)}, ""


def _row(
    kind: str, predictions: Sequence[Prediction], rules: str, captions: Mapping[int, float]
) -> dict[str, Any]:
    """A row of the table: a cell per modality, and the mean over the modalities that have a score."""
    if kind not in _TASKS:
        cells = _rates(predictions)
    elif kind == Task.REFERRING_CAPTION:
        cells = _captions(predictions, captions)
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
        "unreadable_rate": outcomes(kind, predictions).count(Outcome.UNREADABLE) / len(predictions),
    }


def _scores(kind: str, predictions: Sequence[Prediction], rules: str) -> dict[str, dict[str, Any]]:
    rows = score_predictions(predictions, kind, rules)["modalities"]
    if kind == Task.IMAGE_ANALYSIS:
        counts = _counts(predictions)
        return {name: {"score": row["mbmr"], "n": counts[name]} for name, row in rows.items()}
    return {name: {"score": row["score"], "n": row["total"]} for name, row in rows.items()}


def _captions(predictions: Sequence[Prediction], scores: Mapping[int, float]) -> dict[str, dict[str, Any]]:
    groups = by_modality(predictions, [each.modality for each in predictions])
    cells = {}
    for name, group in groups.items():
        known = [scores[each.id] for each in group if each.id in scores]
        cells[name] = {"score": sum(known) / len(known) if known else None, "n": len(group)}
    return cells


def _rates(predictions: Sequence[Prediction]) -> dict[str, dict[str, Any]]:
    """How many of the questions about missing objects were answered with a box."""
    rule = recall_rule(Missing.ABSENT, "paper")
    found = [rule(each.annotation, each.response) for each in predictions]
    groups = by_modality(found, [each.modality for each in predictions])
    rates = {name: recall.total(group) for name, group in groups.items()}
    return {name: {"score": rate.score, "n": rate.total} for name, rate in rates.items()}


def _counts(predictions: Sequence[Prediction]) -> dict[str, int]:
    groups = by_modality(predictions, [each.modality for each in predictions])
    return {name: len(group) for name, group in groups.items()}


def write_reports(
    folder: Path, rules: str = "paper", rc_measure: str = "spice"
) -> tuple[dict[str, Any], str]:
    """Write report.json and report.md into a run, or into a folder of runs and each run in it.

    Returns the report and its Markdown. Raises ValueError as `report_run` does.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: no such folder; give --model and --data as well to make predictions there"
        )
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_run(path)]
    if inside and not _is_run(folder):
        reports = {path.name: write_reports(path, rules, rc_measure)[0] for path in inside}
        report: dict[str, Any] = {"rules": rules, "runs": reports}
        text = f"# {folder.resolve().name}\n\n{table_of_runs(reports)}"
    else:
        report = report_run(folder, rules, rc_measure)
        text = f"# {folder.resolve().name}\n\n{as_markdown(report)}"
    write_text(folder / "report.json", json.dumps(report, indent=1) + "\n")
    write_text(folder / "report.md", text)
    return report, text


def _is_run(folder: Path) -> bool:
    return any(prediction_file(folder, kind).is_file() for kind in KINDS)


def as_markdown(report: Mapping[str, Any], level: int = 2) -> str:
    """The report as the paper's Table 3, and the table of missing objects below it; headings begin at `level`."""
    lines = [
        f"{_model_line(report)} Rules: {report['rules']}. Percent; the number of reference boxes (VG) or of questions "
        "is in brackets. A mean is over the modalities that have a score; their number is in its brackets. Malformed: "
        f"answers with a broken box.{_unreadable_note(report)}"
    ]
    if "rc_not_scored" in report:
        lines += ["", f"RC is not scored: {report['rc_not_scored']}."]
    for source, rows in report["sources"].items():
        lines += ["", f"{'#' * level} {_HEADINGS[source]}", "", _table(rows, _TASKS, "task")]
        if missing := _table(rows, tuple(Missing), "object asked for"):
            lines += [
                "",
                "Objects that are not in the image, answered with a box (lower is better):",
                "",
                missing,
            ]
    if "checks" in report:
        lines += [
            "",
            f"{'#' * level} Checks beyond the paper",
            "",
            CHECKS_NOTE,
            "",
            table_of_checks(report["checks"]),
        ]
    return "\n".join(lines) + "\n"


def results_of(report: Path, checkpoint: Path) -> str:
    """The tables of a report.json as a model card shows them.

    Raises ValueError if the file is not the report of one run, or is of other weights than those of the checkpoint.
    """
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
        text = as_markdown(found, level=3).rstrip()
    except OSError as error:
        raise ValueError(f"{report} cannot be read ({error.strerror}); `bird report` makes one") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{report} is not the report.json of a run ({error!r}); `bird report` makes one"
        ) from error
    if found["weights_sha256"] != weights_sha256(checkpoint):
        raise ValueError(f"{report} is not of the weights in {checkpoint}; make it again with `bird report`")
    return text


def _unreadable_note(report: Mapping[str, Any]) -> str:
    """Reports of earlier versions have no rate of unreadable answers."""
    rows = (row for source in report["sources"].values() for row in source.values())
    if not any("unreadable_rate" in row for row in rows):
        return ""
    return (
        " Unreadable: silence, refusals, other models' ways of writing boxes, broken tags, and no box where one was "
        "asked for (unless the answer says that the object is absent)."
    )


def _model_line(report: Mapping[str, Any]) -> str:
    if report["weights_sha256"] is None:
        return "Answers of an unknown model."
    return (
        f"Model `{report['model']}` (weights sha256 `{report['weights_sha256']}`) on the {report['split']} split of "
        f"`{report['data']}`."
    )


def _table(rows: Mapping[str, Any], kinds: Sequence[str], heading: str) -> str:
    """A Markdown table of those `kinds` that a source has; empty if it has none of them."""
    chosen = {kind: rows[kind] for kind in kinds if kind in rows}
    if not chosen:
        return ""
    shown = [rate for rate in _RATES if all(rate in row for row in chosen.values())]
    lines = []
    for kind, row in chosen.items():
        cells = [_cell(row["modalities"].get(modality)) for modality in Modality]
        mean = _cell({"score": row["mean"], "n": row["n_modalities"]} if row["n_modalities"] else None)
        rates = [f"{100 * row[rate]:.2f} ({row['questions']})" for rate in shown]
        lines.append([_LABELS[kind], row["metric"], *cells, mean, *rates])
    rate_heads = (rate.removesuffix("_rate") for rate in shown)
    return table([heading, "metric", *_MODALITY_HEADINGS.values(), "mean", *rate_heads], lines)


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "-"
    return (
        f"no score yet ({cell['n']})" if cell["score"] is None else f"{100 * cell['score']:.2f} ({cell['n']})"
    )


def table_of_runs(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """The paper's Table 1: the mean of each task, one line per run and source."""
    lines = []
    for name, report in reports.items():
        for source, rows in report["sources"].items():
            means = [rows[task]["mean"] if task in rows else None for task in _TASKS]
            known = [mean for mean in means if mean is not None]
            average = sum(known) / len(known) if known else None
            lines.append([name, source, *map(_percent, (*means, average))])
    heads = [f"{task.upper()} ({METRICS[task]})" for task in _TASKS]
    note = "Percent; means over modalities, and their average over the tasks that have one."
    return f"{note}\n\n{table(['run', 'images', *heads, 'average'], lines)}\n"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
