"""From prediction files to tables: a task's score by modality, under the paper's rules or the strict ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from ..data.records import Modality, Task
from ..hub.grounding import Issue, read
from . import paper_rules, scores
from .predictions import Prediction
from .scores import Recall
from .text_scores import text_scores

Rules = Literal["paper", "strict"]

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
    if task not in (Task.VISUAL_GROUNDING, Task.REFERRING_CLASSIFICATION, Task.IMAGE_ANALYSIS):
        raise ValueError(
            f"task {str(task)!r} cannot be scored: vg, roc and mia can; rc waits for its measure, SPICE"
        )
    by_modality: dict[Modality, list[Prediction]] = {}
    for prediction in predictions:
        by_modality.setdefault(prediction.modality, []).append(prediction)
    if task == Task.VISUAL_GROUNDING and not any(read(each.annotation).boxes for each in predictions):
        raise ValueError("no reference holds a box, so these are no VG predictions; check --task")
    mean: Any
    if task == Task.IMAGE_ANALYSIS:
        modalities, mean = _text_rows(by_modality, rules)
    else:
        modalities, mean = _recall_rows(by_modality, _RECALLS[Task(task), rules])
    return {
        "task": str(task),
        "rules": rules,
        "modalities": modalities,
        "mean": mean,
        "n_modalities": len(modalities),
        "malformed_rate": malformed_rate(predictions),
    }


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


def malformed_rate(predictions: Sequence[Prediction]) -> float:
    """The share of answers with a broken or untagged box."""
    answers = (read(paper_rules.clean_response(prediction.response)) for prediction in predictions)
    return sum(not MALFORMED.isdisjoint(answer.issues) for answer in answers) / len(predictions)


def _recall_rows(
    by_modality: dict[Modality, list[Prediction]], recall: Callable[[str, str], Recall]
) -> tuple[dict[str, Any], float | None]:
    rows = {
        modality.value: scores.total(
            recall(each.annotation, paper_rules.clean_response(each.response))
            for each in by_modality[modality]
        )
        for modality in Modality
        if modality in by_modality
    }
    shown = {
        name: {"score": row.score, "hits": row.hits, "total": row.total}
        for name, row in rows.items()
        if row.total
    }
    return shown, scores.mean_score(rows.values())


def _text_rows(
    by_modality: dict[Modality, list[Prediction]], rules: str
) -> tuple[dict[str, Any], dict[str, float]]:
    groups = {
        modality.value: [_texts(each, rules) for each in by_modality[modality]]
        for modality in Modality
        if modality in by_modality
    }
    rows = {
        name: {"bleu_4": found.bleu_4, "meteor": found.meteor, "rouge_l": found.rouge_l, "mbmr": found.mbmr}
        for name, found in text_scores(groups).items()
    }
    keys = ("bleu_4", "meteor", "rouge_l", "mbmr")
    return rows, {key: sum(row[key] for row in rows.values()) / len(rows) for key in keys}


def _texts(prediction: Prediction, rules: str) -> tuple[str, str]:
    """Reference and response as they are compared; strict rules compare words, without tags and boxes."""
    response = paper_rules.clean_response(prediction.response)
    if rules == "paper":
        return prediction.annotation, response
    return read(prediction.annotation).text, read(response).text


def _strict_grounding(reference: str, response: str) -> Recall:
    return scores.strict_grounding_recall(read(reference).boxes, read(response).boxes)


def _strict_name(reference: str, response: str) -> Recall:
    return scores.name_recall(read(reference).text, read(response).text)


_RECALLS: dict[tuple[Task, str], Callable[[str, str], Recall]] = {
    (Task.VISUAL_GROUNDING, "paper"): paper_rules.grounding_recall,
    (Task.VISUAL_GROUNDING, "strict"): _strict_grounding,
    (Task.REFERRING_CLASSIFICATION, "paper"): paper_rules.name_recall,
    (Task.REFERRING_CLASSIFICATION, "strict"): _strict_name,
}
