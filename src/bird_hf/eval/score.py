"""Scores of answers: by the paper's rules or the strict ones, all together and by modality.

`paper` rules are those of the original scripts. `strict` rules read boxes and words through the grammar, charge false
boxes, and compare whole words (docs/decisions.md, 3). Both see a response after the original's cleanup.

Everything that prints a score uses these functions: `bird score`, `bird report`, the evaluate modules in metrics/, and
the table of the README (benchmarks/nano_scores.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

from ..data.records import SINGLE_TASKS, Modality, Task
from ..hub.grounding import Issue, read
from . import paper_rules, recall
from .captions import RcMeasure, caption_row, caption_rows, caption_scores
from .hallucination import Missing, box_given
from .predictions import Prediction
from .recall import Recall
from .text_scores import TextScores, text_scores

Rules = Literal["paper", "strict"]
Item = TypeVar("Item")

# An answer with one of these has a box that breaks the grammar; a box without a phrase is well formed.
MALFORMED = frozenset(Issue) - {Issue.ORPHAN_BOX}


def score_predictions(
    predictions: Sequence[Prediction],
    task: Task | str,
    rules: Rules | str = "paper",
    rc_measure: RcMeasure | str = "spice",
) -> dict[str, Any]:
    """The scores of a prediction file, as `bird score --json` prints them; fractions.

    rc_measure: of RC, spice or scene_graph_f1.
    Returns task, rules, `modalities` (those that ask for anything), their unweighted `mean`, `n_modalities` and
    `malformed_rate`. Raises ValueError if the task cannot be scored or the answers are to another task.
    """
    _check_rules(rules)
    check_task(task)
    _check_boxes(predictions, Task(task))
    responses = [each.response for each in predictions]
    references = [each.annotation for each in predictions]
    of_each = [each.modality for each in predictions]
    if task == Task.IMAGE_ANALYSIS:
        found = text_scores(by_modality(_compared(references, responses, rules), of_each))
        modalities = {name: text_row(row) for name, row in found.items()}
        mean: Any = mean_text_row(found.values())
    elif task == Task.REFERRING_CAPTION:
        scores = score_each_caption(predictions, rules, rc_measure)
        modalities = caption_rows(by_modality(scores, of_each), rc_measure)
        mean = caption_row((row[rc_measure] for row in modalities.values()), rc_measure)
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
    """Raises ValueError if there is no score for a task."""
    if task not in SINGLE_TASKS:
        raise ValueError(f"task {str(task)!r} cannot be scored: {', '.join(SINGLE_TASKS)} can")


def recall_rule(kind: Task | Missing | str, rules: Rules | str) -> Callable[[str, str], Recall]:
    """The function (reference, response) -> Recall of one answer, for vg, roc, absent and foreign questions.

    For questions about missing objects a hit is an answer with a box: fewer are better. Raises ValueError for unknown
    rules.
    """
    _check_rules(rules)
    if kind in tuple(Missing):
        return lambda _reference, response: box_given(response)
    rule = _RECALLS[Task(kind), rules]
    return lambda reference, response: rule(reference, paper_rules.clean_response(response))


def score_recall(
    task: Task,
    predictions: Sequence[str],
    references: Sequence[str],
    rules: Rules | str = "paper",
    modalities: Iterable[str] | None = None,
) -> dict[str, Any]:
    """VG or ROC: recall (None if nothing is asked for), hits and total, counted over all answers.

    With modalities, one per answer, also `modalities` (those that ask for anything, each with score, hits and total),
    their unweighted `mean`, and `n_modalities`. Raises ValueError if the inputs do not fit each other.
    """
    rule = recall_rule(task, rules)
    _check_texts(predictions, references)
    found = [rule(*pair) for pair in zip(references, predictions, strict=True)]
    whole = recall.total(found)
    scored: dict[str, Any] = {"recall": whole.score, "hits": whole.hits, "total": whole.total}
    if modalities is None:
        return scored
    groups = {name: recall.total(group) for name, group in by_modality(found, modalities).items()}
    rows = {
        name: {"score": row.score, "hits": row.hits, "total": row.total}
        for name, row in groups.items()
        if row.total
    }
    return scored | {
        "modalities": rows,
        "mean": recall.mean_score(groups.values()),
        "n_modalities": len(rows),
    }


def score_texts(
    predictions: Sequence[str],
    references: Sequence[str],
    rules: Rules | str = "paper",
    modalities: Iterable[str] | None = None,
) -> dict[str, Any]:
    """MIA: bleu_4, meteor, rouge_l and mbmr of all answers as one set, and their number as total.

    With modalities, one per answer, also `modalities`, each scored by itself, the `mean` of each score over them, and
    `n_modalities`. Raises ValueError if the inputs do not fit each other, or Java or the caption toolkit is missing.
    """
    _check_rules(rules)
    _check_texts(predictions, references)
    pairs = _compared(references, predictions, rules)
    groups = {} if modalities is None else by_modality(pairs, modalities)
    found = text_scores({**groups, _ALL: pairs})
    scored = text_row(found.pop(_ALL)) | {"total": len(pairs)}
    if modalities is None:
        return scored
    rows = {name: text_row(scores_of) | {"total": len(groups[name])} for name, scores_of in found.items()}
    return scored | {"modalities": rows, "mean": mean_text_row(found.values()), "n_modalities": len(rows)}


def score_captions(
    predictions: Sequence[str],
    references: Sequence[str],
    rules: Rules | str = "paper",
    modalities: Iterable[str] | None = None,
    measure: RcMeasure | str = "spice",
) -> dict[str, Any]:
    """RC: the mean of a measure over all answers, under its name, and their number as total.

    With modalities, one per answer, also `modalities`, the `mean` over them, and `n_modalities`.
    Raises ValueError if the inputs do not fit each other, or the measure cannot be computed (`check_measure`).
    """
    _check_rules(rules)
    _check_texts(predictions, references)
    pairs = _compared(references, predictions, rules)
    names = None if modalities is None else list(modalities)
    if names is not None:
        by_modality(pairs, names)  # raises before Java starts
    scores = caption_scores(pairs, measure, rules == "strict")
    scored: dict[str, Any] = {**caption_row(scores, measure), "total": len(scores)}
    if names is None:
        return scored
    groups = by_modality(scores, names)
    rows = caption_rows(groups, measure)
    return scored | {
        "modalities": {name: row | {"total": len(groups[name])} for name, row in rows.items()},
        "mean": caption_row((row[measure] for row in rows.values()), measure),
        "n_modalities": len(rows),
    }


def score_each_caption(
    predictions: Sequence[Prediction], rules: Rules | str = "paper", measure: RcMeasure | str = "spice"
) -> list[float]:
    """RC: the score of each answer, by one start of the measure's program."""
    responses = [each.response for each in predictions]
    pairs = _compared([each.annotation for each in predictions], responses, rules)
    return caption_scores(pairs, measure, rules == "strict")


def text_row(found: TextScores) -> dict[str, float]:
    """The scores under the names that tables and JSON give them."""
    return {"bleu_4": found.bleu_4, "meteor": found.meteor, "rouge_l": found.rouge_l, "mbmr": found.mbmr}


def mean_text_row(found: Iterable[TextScores]) -> dict[str, float]:
    """The unweighted mean of each score; at least one set of scores is needed."""
    rows = [text_row(each) for each in found]
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def malformed_rate(predictions: Sequence[Prediction]) -> float:
    """The share of answers with a broken or untagged box."""
    answers = (read(paper_rules.clean_response(prediction.response)) for prediction in predictions)
    return sum(not MALFORMED.isdisjoint(answer.issues) for answer in answers) / len(predictions)


def by_modality(items: Sequence[Item], modalities: Iterable[str]) -> dict[str, list[Item]]:
    """Items grouped by modality, in the order of the paper's tables; `x`, a prefix of the original, is X-ray.

    Raises ValueError if a modality is unknown, or there is not one for each item.
    """
    names = list(modalities)
    if len(names) != len(items):
        raise ValueError(f"{len(names)} modalities for {len(items)} answers; give one for each answer")
    groups: dict[str, list[Item]] = {modality.value: [] for modality in Modality}
    for number, (item, name) in enumerate(zip(items, names, strict=True)):
        try:
            groups[Modality.from_first_word(name)].append(item)
        except ValueError:
            raise ValueError(
                f"modality {name!r} (row {number}) is unknown; use {', '.join(groups)}"
            ) from None
    return {name: group for name, group in groups.items() if group}


def _compared(references: Sequence[str], responses: Sequence[str], rules: str) -> list[tuple[str, str]]:
    """Pairs (reference, cleaned response) whose words are compared; strict rules remove tags and boxes first."""
    pairs = [
        (reference, paper_rules.clean_response(response))
        for reference, response in zip(references, responses, strict=True)
    ]
    return pairs if rules == "paper" else [(read(first).text, read(second).text) for first, second in pairs]


def _check_boxes(predictions: Sequence[Prediction], task: Task) -> None:
    """Files of the original do not name their task; whether they hold boxes shows it (BiRD 3)."""
    unnamed = [each for each in predictions if not each.task]
    boxed = any(read(each.annotation).boxes for each in unnamed)
    evidence = ""
    if unnamed and boxed != (task == Task.VISUAL_GROUNDING):
        evidence = "a reference holds a box" if boxed else "no reference holds a box"
    elif unnamed and task == Task.IMAGE_ANALYSIS and all(read(each.question).boxes for each in unnamed):
        evidence = "every question points at a box"
    if evidence:
        raise ValueError(f"{evidence}, so these are no {task.upper()} predictions; check --task")


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
    return recall.strict_grounding_recall(read(reference).boxes, read(response).boxes)


def _strict_name(reference: str, response: str) -> Recall:
    return recall.name_recall(read(reference).text, read(response).text)


_ALL = "all"  # the group of every answer; no modality has this name
_RECALLS: Mapping[tuple[Task, str], Callable[[str, str], Recall]] = {
    (Task.VISUAL_GROUNDING, "paper"): paper_rules.grounding_recall,
    (Task.VISUAL_GROUNDING, "strict"): _strict_grounding,
    (Task.REFERRING_CLASSIFICATION, "paper"): paper_rules.name_recall,
    (Task.REFERRING_CLASSIFICATION, "strict"): _strict_name,
}
