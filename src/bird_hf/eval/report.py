"""From prediction files to tables: a task's score by modality, under the paper's rules or the strict ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from ..data.records import Task
from ..hub.grounding import Issue, read
from .answers import (
    Rules,
    by_modality,
    compared_texts,
    mean_text_row,
    score_recall,
    text_row,
)
from .paper_rules import clean_response
from .predictions import Prediction
from .text_scores import text_scores

# An answer in which a box is not what the grammar says; a box without a phrase is well formed.
MALFORMED = frozenset(Issue) - {Issue.ORPHAN_BOX}


def score_predictions(
    predictions: Sequence[Prediction], task: Task | str, rules: Rules | str = "paper"
) -> dict[str, Any]:
    """The scores of a file: by modality, their unweighted mean over modalities that have rows, and n.

    Scores are fractions. Raises ValueError where the task cannot be scored, or the file answers another one.
    """
    if rules not in get_args(Rules):
        raise ValueError(f"rules {rules!r} are unknown; use {' or '.join(get_args(Rules))}")
    check_task(task)
    _check_boxes(predictions, Task(task))
    responses = [each.response for each in predictions]
    references = [each.annotation for each in predictions]
    of_each = [each.modality for each in predictions]
    if task == Task.IMAGE_ANALYSIS:
        pairs = [compared_texts(*each, rules) for each in zip(references, responses, strict=True)]
        found = text_scores(by_modality(pairs, of_each))
        modalities = {name: text_row(row) for name, row in found.items()}
        mean: Any = mean_text_row(found.values())
    else:
        scored = score_recall(Task(task), responses, references, rules, of_each)
        modalities, mean = scored["modalities"], scored["mean"]
    return {
        "task": str(task),
        "rules": rules,
        "modalities": modalities,
        "mean": mean,
        "n_modalities": len(modalities),
        "malformed_rate": malformed_rate(predictions),
    }


def check_task(task: Task | str) -> None:
    """Raises ValueError where nothing scores a task."""
    if task not in (Task.VISUAL_GROUNDING, Task.REFERRING_CLASSIFICATION, Task.IMAGE_ANALYSIS):
        raise ValueError(
            f"task {str(task)!r} cannot be scored: vg, roc and mia can; rc waits for its measure, SPICE"
        )


def as_table(scored: dict[str, Any]) -> str:
    """The scores as a Markdown table, a line a modality."""
    names = list(next(iter(scored["modalities"].values()), {}))
    lines = [
        f"| {scored['task']}, {scored['rules']} rules | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for modality, row in scored["modalities"].items():
        lines.append(f"| {modality} | " + " | ".join(_shown(row[name]) for name in names) + " |")
    mean = scored["mean"] if isinstance(scored["mean"], dict) else {"score": scored["mean"]}
    means = " | ".join(_shown(mean.get(name)) for name in names)
    lines.append(f"| mean of {scored['n_modalities']} | {means} |")
    return "\n".join(lines) + f"\n\nmalformed answers: {scored['malformed_rate']:.4f}"


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _check_boxes(predictions: Sequence[Prediction], task: Task) -> None:
    """Files of the original do not say which task they answer; where they hold boxes tells (BiRD 3)."""
    unsaid = [each for each in predictions if not each.task]
    found = any(read(each.annotation).boxes for each in unsaid)
    told = ""
    if unsaid and found != (task == Task.VISUAL_GROUNDING):
        told = "a reference holds a box" if found else "no reference holds a box"
    elif unsaid and task == Task.IMAGE_ANALYSIS and all(read(each.question).boxes for each in unsaid):
        told = "every question points at a box"
    if told:
        raise ValueError(f"{told}, so these are no {task.upper()} predictions; check --task")


def malformed_rate(predictions: Sequence[Prediction]) -> float:
    """The share of answers with a broken or untagged box."""
    answers = (read(clean_response(prediction.response)) for prediction in predictions)
    return sum(not MALFORMED.isdisjoint(answer.issues) for answer in answers) / len(predictions)
