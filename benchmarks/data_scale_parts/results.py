"""What comes out of a study: one file with all answers, and the scores that are made from it."""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from bird_hf.atomic_writes import replacing_file, write_text
from bird_hf.data.records import SINGLE_TASKS, Task
from bird_hf.eval.intervals import SCORE, Array, interval_of, mean_draws
from bird_hf.eval.predictions import Prediction, read_predictions
from bird_hf.eval.run import prediction_file
from bird_hf.eval.score import Scored, score_with_draws

from .runs import RESULT_FILE, is_finished
from .study import Study

RUNS_FILE, ANSWERS_FILE = "runs.json", "predictions.jsonl.xz"
MEASURES = {  # BiRD, Table 1
    Task.VISUAL_GROUNDING: SCORE,
    Task.REFERRING_CLASSIFICATION: SCORE,
    Task.REFERRING_CAPTION: "spice",
    Task.IMAGE_ANALYSIS: "mbmr",
}
Answers = dict[str, list[Prediction]]  # by task


def collect(study: Study, out: Path, results: Path) -> None:
    """Write runs.json (settings and runs) and all answers of the finished runs into `results`."""
    results.mkdir(parents=True, exist_ok=True)
    folders = {run.name: out / "runs" / run.name for run in study.runs}
    finished = {name: folder for name, folder in folders.items() if is_finished(folder)}
    runs = {
        name: json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
        for name, folder in finished.items()
    }
    with (
        replacing_file(results / ANSWERS_FILE) as making,
        lzma.open(making, "wt", encoding="utf-8", preset=6) as file,
    ):
        for name, folder in finished.items():
            for task in SINGLE_TASKS:
                path = prediction_file(folder / "answers", task.value)
                for each in read_predictions(path, task.value) if path.is_file() else ():
                    row = {key: value for key, value in asdict(each).items() if value is not None}
                    file.write(json.dumps({"run": name, **row}, ensure_ascii=False) + "\n")
    document = {"study": study.as_json(), "runs": runs}
    write_text(results / RUNS_FILE, json.dumps(document, indent=1) + "\n")


def read_answers(results: Path) -> dict[str, Answers]:
    """The answers of every run, by task, as `collect` has written them."""
    answers: dict[str, Answers] = {}
    with lzma.open(results / ANSWERS_FILE, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            row = json.loads(line)
            name = row.pop("run")
            answers.setdefault(name, {}).setdefault(row["task"], []).append(Prediction(**row))
    return answers


def score_study(results: Path, tasks: Sequence[str]) -> dict[str, Any]:
    """The document of a study from its saved answers: scores of each run, of each share, and what more images bring.

    tasks: those to score. A measure whose program is missing here (Java) holds the error instead.
    """
    document = json.loads((results / RUNS_FILE).read_text(encoding="utf-8"))
    study = Study.from_json(document["study"])
    answers = read_answers(results)
    measures: dict[str, Any] = {}
    for task, measure in MEASURES.items():
        of_run = {name: tasks[task.value] for name, tasks in answers.items() if task.value in tasks}
        if of_run and task in tasks:
            measures[task.value] = _measure(study, document["runs"], of_run, task, measure)
    return {**document, "measures": measures}


def _measure(
    study: Study,
    runs: Mapping[str, Any],
    answers: Mapping[str, Sequence[Prediction]],
    task: Task,
    measure: str,
) -> dict[str, Any]:
    _check_same(answers)
    try:
        scored = {name: score_with_draws(rows, task) for name, rows in answers.items()}
    except ValueError as error:
        return {"measure": measure, "error": str(error)}
    found = {name: _row(each, measure) for name, each in scored.items()}
    cases = next(iter(scored.values())).found["cases"]
    draws = {name: mean_draws([*each.draws[measure].values()]) for name, each in scored.items()}
    names = {
        share: [name for name, run in runs.items() if run["share"] == share and name in scored]
        for share in study.shares
    }
    number = cases["total"]
    shares = {share: _mean(found, draws, of_share, number) for share, of_share in names.items() if of_share}
    return {
        "measure": measure,
        "questions": len(next(iter(answers.values()))),
        "cases": number,
        "modalities": len(cases["modalities"]),
        "runs": found,
        "shares": {str(share): row for share, (row, _) in shares.items()},
        "gain": _gain(shares, number),
    }


def _row(scored: Scored, measure: str) -> dict[str, Any]:
    """The score of one run: the unweighted mean of the modalities."""
    mean, interval = scored.found["mean"], scored.found["interval"]["mean"]
    if measure != SCORE:
        mean = mean[measure]
        interval = interval[measure] if isinstance(interval, dict) else interval
    unreadable = scored.found["unreadable_rate"]
    modalities = {name: row[measure] for name, row in scored.found["modalities"].items()}
    return {"mean": mean, "interval": interval, "unreadable_rate": unreadable, "modalities": modalities}


def _mean(
    found: Mapping[str, Any], draws: Mapping[str, Array], names: Sequence[str], cases: int
) -> tuple[dict[str, Any], Array]:
    """The mean over seeds with its interval: all runs are scored on the same drawn cases."""
    drawn = np.stack([draws[name] for name in names]).mean(axis=0)
    enough = all(found[name]["interval"] for name in names)  # cases in every modality
    row = {
        "mean": float(np.mean([found[name]["mean"] for name in names])),
        "interval": interval_of(drawn, cases) if enough else None,
        "seeds": len(names),
    }
    return row, drawn


def _gain(shares: Mapping[int, tuple[dict[str, Any], Array]], cases: int) -> dict[str, Any] | None:
    """The score with the most images minus that with the fewest."""
    if len(shares) < 2:
        return None
    (few, few_draws), (many, many_draws) = shares[max(shares)], shares[min(shares)]
    return {
        "from": max(shares),
        "to": min(shares),
        "mean": many["mean"] - few["mean"],
        "interval": interval_of(many_draws - few_draws, cases) if few["interval"] else None,
    }


def _check_same(answers: Mapping[str, Sequence[Prediction]]) -> None:
    """Raises ValueError if runs answer different questions: their scores could not be compared."""
    asked = {
        name: [replace(each, response="", error=None) for each in rows] for name, rows in answers.items()
    }
    first = next(iter(asked))
    if other := [name for name, rows in asked.items() if rows != asked[first]]:
        raise ValueError(f"the runs {first} and {other[0]} answer different questions; run one of them again")
