"""The scores of a run and their tables: real images and phantoms apart, task by modality (the paper's Table 3).

Below each table stands how often the model gives a box for an object that is not in the image (BiRD 5, Fig. 4), and
then the answers to LLaVA-Med's questions (llava_med.py) and the checks beyond the paper (checks.py). Tables of several
runs are in paper_tables.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.records import SINGLE_TASKS, Modality, Task
from ..markdown import Cell, Part, Section, Table, code, plain, render
from .captions import MEASURES, check_measure
from .check_scores import CHECKS_NOTE, checks_table, score_checks
from .checks import CHECKS
from .hallucination import Missing
from .intervals import SCORE, cases_of, draw_ratios, intervals_of
from .llava_med import LLAVA_MED_NOTE, llava_med_table, score_llava_med
from .outcomes import Outcome, outcomes
from .percent import BELOW, score_cell
from .predictions import LLAVA_MED, Prediction, by_modality
from .run import Run, read_answers, read_run, weights_sha256
from .score import check_rules, malformed_rate, recall_rule, score_each_caption, score_predictions

# By `Prediction.synthetic`, which files of the original scripts do not have.
_SOURCES = {False: "real", True: "phantom", None: "unmarked"}
HEADINGS = {
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
MODALITY_HEADINGS = {
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
    """The scores of a run, a folder or a file, as `report_answers` gives them.

    Raises ValueError, in one line, if predictions are missing, damaged or not of this run.
    """
    return report_answers(read_answers(folder), read_run(folder), rules, rc_measure)


def report_answers(
    answers: Mapping[str, Sequence[Prediction]],
    run: Run | None,
    rules: str = "paper",
    rc_measure: str = "spice",
) -> dict[str, Any]:
    """The scores of answers by kind as fractions, by source (real, phantom), task and modality, each with its n.

    n is the number of reference boxes for VG and of questions otherwise; `score` is None for RC
    if its measure cannot be computed, and `rc_not_scored` says why. `interval` and `cases` of a row are those of
    `intervals_of`. `checks` holds the rows of `score_checks`, if there are checks, and `llava_med` the scores of
    answers to LLaVA-Med's questions.
    """
    check_rules(rules)
    captions, why_not = _caption_scores(answers.get(Task.REFERRING_CAPTION, []), rules, rc_measure)
    sources: dict[str, dict[str, Any]] = {}
    for kind, predictions in answers.items():
        if kind in (CHECKS, LLAVA_MED):
            continue
        for source, chosen in by_source(predictions).items():
            row = _row(kind, chosen, rules, captions)
            if kind == Task.REFERRING_CAPTION and rc_measure != "spice":
                row["metric"] = rc_measure
            sources.setdefault(source, {})[kind] = row
    return {
        **{name: getattr(run, name, None) for name in ("model", "weights_sha256", "data", "split")},
        "rules": rules,
        "rc_measure": rc_measure,
        **({"rc_not_scored": why_not} if why_not else {}),
        "sources": {name: sources[name] for name in HEADINGS if name in sources},
        **({"checks": score_checks(answers[CHECKS], rules)} if answers.get(CHECKS) else {}),
        **({"llava_med": score_llava_med(answers[LLAVA_MED], rules)} if answers.get(LLAVA_MED) else {}),
    }


def by_source(predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """Answers by source: real images, phantoms, and images that a file does not mark as either."""
    groups = {
        source: [each for each in predictions if each.synthetic is synthetic]
        for synthetic, source in _SOURCES.items()
    }
    return {source: group for source, group in groups.items() if group}


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
        cells, counted = _rates(predictions)
    elif kind == Task.REFERRING_CAPTION:
        cells, counted = _captions(predictions, captions)
    else:
        cells, counted = _scores(kind, predictions, rules)
    known = [cell["score"] for cell in cells.values() if cell["score"] is not None]
    return {
        "metric": METRICS[kind],
        "modalities": cells,
        "mean": sum(known) / len(known) if known else None,
        "n_modalities": len(known),
        "questions": len(predictions),
        "malformed_rate": malformed_rate(predictions),
        "unreadable_rate": outcomes(kind, predictions).count(Outcome.UNREADABLE) / len(predictions),
        **counted,
    }


# Cells by modality with score and n; and the interval and the cases of the row.
_Scores = tuple[dict[str, dict[str, Any]], dict[str, Any]]


def _scores(kind: str, predictions: Sequence[Prediction], rules: str) -> _Scores:
    found = score_predictions(predictions, kind, rules)
    rows, counted = found["modalities"], {name: found[name] for name in ("interval", "cases")}
    if kind != Task.IMAGE_ANALYSIS:
        return {name: {"score": row["score"], "n": row["total"]} for name, row in rows.items()}, counted
    interval = {
        "mean": counted["interval"]["mean"]["mbmr"],
        "modalities": {name: row["mbmr"] for name, row in counted["interval"]["modalities"].items()},
    }
    answers = found["cases"]["answers"]
    return {name: {"score": row["mbmr"], "n": answers[name]} for name, row in rows.items()}, {
        **counted,
        "interval": interval,
    }


def _captions(predictions: Sequence[Prediction], scores: Mapping[int, float]) -> _Scores:
    groups = by_modality(predictions, [each.modality for each in predictions])
    if not scores:
        cells = {name: {"score": None, "n": len(group)} for name, group in groups.items()}
        return cells, intervals_of(predictions, {SCORE: {}})
    return _means(
        {name: [(scores[each.id], 1) for each in group] for name, group in groups.items()}, predictions
    )


def _rates(predictions: Sequence[Prediction]) -> _Scores:
    """How many of the questions about missing objects were answered with a box."""
    rule = recall_rule(Missing.ABSENT, "paper")
    found = [rule(each.annotation, each.response) for each in predictions]
    groups = by_modality(found, [each.modality for each in predictions])
    return _means(
        {name: [(each.hits, each.total) for each in group] for name, group in groups.items()}, predictions
    )


def _means(counts: Mapping[str, Sequence[tuple[float, int]]], predictions: Sequence[Prediction]) -> _Scores:
    """Cells of the (sum, n) of each answer by modality."""
    cases = by_modality(cases_of(predictions)[0], [each.modality for each in predictions])
    cells, draws = {}, {}
    for name, pairs in counts.items():
        sums, totals = [value for value, _ in pairs], [n for _, n in pairs]
        cells[name] = {"score": sum(sums) / sum(totals), "n": sum(totals)}
        draws[name] = draw_ratios(sums, totals, cases[name])
    return cells, intervals_of(predictions, {SCORE: draws})


def as_markdown(report: Mapping[str, Any], level: int = 2) -> str:
    """The report as the paper's Table 3, and the table of missing objects below it; headings begin at `level`."""
    return render(run_sections(report, level))


def run_sections(report: Mapping[str, Any], level: int = 2) -> list[Section]:
    """The tables of one run: tasks by modality (Table 3), missing objects, LLaVA-Med's questions, checks."""
    intervals = any("interval" in row for rows in report["sources"].values() for row in rows.values())
    note = (
        f"{_model_line(report)} Rules: {report['rules']}. Percent; the number of reference boxes (VG) or of questions "
        "is in brackets. A mean is over the modalities that have a score; their number is in its brackets. Malformed: "
        f"answers with a broken box.{_unreadable_note(report)}{_interval_note(report) if intervals else ''}"
    )
    parts: list[Part] = [note]
    if "rc_not_scored" in report:
        parts.append(f"RC is not scored: {report['rc_not_scored']}.")
    sections = [Section("", parts)]
    for source, rows in report["sources"].items():
        tables: list[Part] = [each for each in [_table(rows, _TASKS, "task")] if each]
        if missing := _table(rows, tuple(Missing), "object asked for"):
            tables += ["Objects that are not in the image, answered with a box (lower is better):", missing]
        sections.append(Section(HEADINGS[source], tables, level))
    if "llava_med" in report:
        sections.append(
            Section("LLaVA-Med's questions", [LLAVA_MED_NOTE, llava_med_table(report["llava_med"])], level)
        )
    if "checks" in report:
        sections.append(
            Section("Checks beyond the paper", [CHECKS_NOTE, checks_table(report["checks"])], level)
        )
    return sections


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


def _interval_note(report: Mapping[str, Any]) -> str:
    units = {
        row["cases"]["unit"] for rows in report["sources"].values() for row in rows.values() if "cases" in row
    }
    images = "" if units == {"case"} else "; images where the answers do not name their case"
    return f" Intervals: bootstrap over cases{images}; below each score, with the number of cases."


def _model_line(report: Mapping[str, Any]) -> str:
    if report["weights_sha256"] is None:
        return "Answers of an unknown model."
    return (
        f"Model {code(report['model'])} (weights sha256 {code(report['weights_sha256'])}) on the "
        f"{plain(report['split'])} split of {code(report['data'])}."
    )


def _table(rows: Mapping[str, Any], kinds: Sequence[str], heading: str) -> Table | None:
    """A table of those `kinds` that a source has; None if it has none of them."""
    chosen = {kind: rows[kind] for kind in kinds if kind in rows}
    if not chosen:
        return None
    shown = [rate for rate in _RATES if all(rate in row for row in chosen.values())]
    lines = []
    for kind, row in chosen.items():
        cells = [_cell(row, modality) for modality in Modality]
        rates = [score_cell(row[rate], row["questions"]) for rate in shown]
        lines.append([_LABELS[kind], row["metric"], *cells, _mean_cell(row), *rates])
    rate_heads = (rate.removesuffix("_rate") for rate in shown)
    return Table([heading, "metric", *MODALITY_HEADINGS.values(), "mean", *rate_heads], lines, BELOW)


def _cell(row: Mapping[str, Any], modality: str) -> Cell | str:
    cell = row["modalities"].get(modality)
    if cell is None:
        return "-"
    interval = row.get("interval", {}).get("modalities", {}).get(modality)
    cases = row.get("cases", {}).get("modalities", {}).get(modality)
    return score_cell(cell["score"], cell["n"], interval, cases)


def _mean_cell(row: Mapping[str, Any]) -> Cell | str:
    if not row["n_modalities"]:
        return "-"
    interval, cases = row.get("interval", {}).get("mean"), row.get("cases", {}).get("total")
    return score_cell(row["mean"], row["n_modalities"], interval, cases)
