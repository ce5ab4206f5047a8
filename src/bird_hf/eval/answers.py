"""Scores of tagged answers held in memory: one by one by either rules, then together and by modality.

`paper` rules are those of the original scripts, `strict` ones read boxes and words through the grammar, charge what
is false, and compare whole words (docs/decisions.md, 3). Both see a response after the original's cleanup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

from ..data.records import Modality, Task
from ..hub.grounding import read
from . import paper_rules, scores
from .scores import Recall
from .text_scores import TextScores, text_scores

Rules = Literal["paper", "strict"]
Answer = TypeVar("Answer")


def recall_rule(task: Task, rules: Rules | str) -> Callable[[str, str], Recall]:
    """The function (reference, cleaned response) -> Recall of one answer. Raises ValueError for unknown rules."""
    _check_rules(rules)
    return _RECALLS[task, rules]


def compared_texts(reference: str, response: str, rules: Rules | str) -> tuple[str, str]:
    """Reference and cleaned response as words are compared; strict rules take tags and boxes out first."""
    response = paper_rules.clean_response(response)
    if rules == "paper":
        return reference, response
    return read(reference).text, read(response).text


def score_recall(
    task: Task,
    predictions: Sequence[str],
    references: Sequence[str],
    rules: Rules | str = "paper",
    modalities: Iterable[str] | None = None,
) -> dict[str, Any]:
    """VG or ROC: recall (None where nothing is asked for), hits and total, counted over all answers.

    With modalities, one an answer, also what `bird score --json` says: `modalities` that ask for anything, each with
    score, hits and total, their unweighted `mean`, and `n_modalities`. Raises ValueError where inputs do not fit.
    """
    rule = recall_rule(task, rules)
    _check_texts(predictions, references)
    found = [
        rule(reference, paper_rules.clean_response(prediction))
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    whole = scores.total(found)
    scored: dict[str, Any] = {"recall": whole.score, "hits": whole.hits, "total": whole.total}
    if modalities is None:
        return scored
    groups = {name: scores.total(group) for name, group in by_modality(found, modalities).items()}
    rows = {
        name: {"score": row.score, "hits": row.hits, "total": row.total}
        for name, row in groups.items()
        if row.total
    }
    return scored | {
        "modalities": rows,
        "mean": scores.mean_score(groups.values()),
        "n_modalities": len(rows),
    }


def score_texts(
    predictions: Sequence[str],
    references: Sequence[str],
    rules: Rules | str = "paper",
    modalities: Iterable[str] | None = None,
) -> dict[str, Any]:
    """MIA: bleu_4, meteor, rouge_l and mbmr of all answers as one set, and their number as total.

    With modalities, one an answer, also `modalities`, each scored by itself, the `mean` of each score over them, and
    `n_modalities`. Raises ValueError where inputs do not fit, or where Java or the caption toolkit is missing.
    """
    _check_rules(rules)
    _check_texts(predictions, references)
    pairs = [
        compared_texts(reference, prediction, rules)
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    groups = {} if modalities is None else by_modality(pairs, modalities)
    found = text_scores({**groups, _ALL: pairs})
    scored = text_row(found.pop(_ALL)) | {"total": len(pairs)}
    if modalities is None:
        return scored
    rows = {name: text_row(scores_of) | {"total": len(groups[name])} for name, scores_of in found.items()}
    return scored | {"modalities": rows, "mean": mean_text_row(found.values()), "n_modalities": len(rows)}


def text_row(found: TextScores) -> dict[str, float]:
    """The scores under the names that tables and JSON give them."""
    return {"bleu_4": found.bleu_4, "meteor": found.meteor, "rouge_l": found.rouge_l, "mbmr": found.mbmr}


def mean_text_row(found: Iterable[TextScores]) -> dict[str, float]:
    """The unweighted mean of each score; at least one is needed."""
    rows = [text_row(each) for each in found]
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def by_modality(answers: Sequence[Answer], modalities: Iterable[str]) -> dict[str, list[Answer]]:
    """Answers in groups, in the order of the paper's tables; `x`, a prefix of the original, is X-ray.

    Raises ValueError where a modality is unknown, or there is not one for each answer.
    """
    names = list(modalities)
    if len(names) != len(answers):
        raise ValueError(f"{len(names)} modalities for {len(answers)} answers; give one for each answer")
    groups: dict[str, list[Answer]] = {modality.value: [] for modality in Modality}
    for number, (answer, name) in enumerate(zip(answers, names, strict=True)):
        try:
            groups[Modality.from_first_word(name)].append(answer)
        except ValueError:
            raise ValueError(
                f"modality {name!r} (row {number}) is unknown; use {', '.join(groups)}"
            ) from None
    return {name: group for name, group in groups.items() if group}


def _check_rules(rules: str) -> None:
    if rules not in get_args(Rules):
        raise ValueError(f"rules {rules!r} are unknown; use {' or '.join(get_args(Rules))}")


def _check_texts(predictions: Sequence[str], references: Sequence[str]) -> None:
    if len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions and {len(references)} references; give one reference for each"
        )
    if not predictions:
        raise ValueError("there are no predictions, so there is nothing to score")


def _strict_grounding(reference: str, response: str) -> Recall:
    return scores.strict_grounding_recall(read(reference).boxes, read(response).boxes)


def _strict_name(reference: str, response: str) -> Recall:
    return scores.name_recall(read(reference).text, read(response).text)


_ALL = "all"  # the group of every answer; no modality has this name
_RECALLS: Mapping[tuple[Task, str], Callable[[str, str], Recall]] = {
    (Task.VISUAL_GROUNDING, "paper"): paper_rules.grounding_recall,
    (Task.VISUAL_GROUNDING, "strict"): _strict_grounding,
    (Task.REFERRING_CLASSIFICATION, "paper"): paper_rules.name_recall,
    (Task.REFERRING_CLASSIFICATION, "strict"): _strict_name,
}
