"""Scores of answers: by the paper's rules or the strict ones, all together and by modality.

`paper` rules are those of the original scripts. `strict` rules read boxes and words through the grammar, charge false
boxes and boxes under a wrong name, compare whole words, and count no unreadable answer as right (docs/decisions.md, 3
and 88). Both see a response after the original's cleanup.

Everything that prints a score uses these functions: `bird score`, `bird report`, the evaluate modules in metrics/, and
the table of the README (benchmarks/nano_scores.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..data.records import SINGLE_TASKS, Task
from ..hub.boxes import Box
from ..hub.grounding import read
from . import paper_rules, recall
from .captions import RcMeasure, caption_row, caption_rows, caption_scores
from .grounding_scores import Grounded, grounding_scores, measures
from .hallucination import Missing, box_given
from .intervals import SCORE, Array, cases_of, draw_ratios, intervals_of
from .names import answer_holds
from .outcomes import MALFORMED, Outcome, outcome_counts, outcome_of, outcomes
from .pairing import Pairing, pair
from .predictions import Prediction, by_modality
from .recall import Recall
from .split_rows import SplitRows
from .text_scores import TextScores, text_scores

Rules = Literal["paper", "strict"]


@dataclass(frozen=True)
class Scored:
    """The result of `score_predictions`, and the drawn scores that its intervals are made of.

    draws: by measure and modality.
    """

    found: dict[str, Any]
    draws: Mapping[str, Mapping[str, Array]]


def score_predictions(
    predictions: Sequence[Prediction],
    task: Task | str,
    rules: Rules | str = "paper",
    rows: SplitRows | None = None,
    rc_measure: RcMeasure | str = "spice",
) -> dict[str, Any]:
    """The scores of a prediction file, as `bird score --json` prints them; fractions.

    rc_measure: of RC, spice or scene_graph_f1.
    Returns task, rules, `modalities` (those that ask for anything), their unweighted `mean`, `n_modalities`,
    `malformed_rate`, `unreadable_rate`, `outcomes` and `errors` (numbers of answers), `interval` (95 %, of the mean and
    by modality; None where there are fewer than two cases), and `cases`. For VG under strict rules also `grounding`
    (grounding_scores.py); with the `rows` that the predictions answer, `grounding` knows the objects of each image, and
    `baseline` is the score of answers that no image was looked at for.
    Raises ValueError if the task cannot be scored or the answers are to another task.
    """
    return score_with_draws(predictions, task, rules, rows, rc_measure).found


def score_with_draws(
    predictions: Sequence[Prediction],
    task: Task | str,
    rules: Rules | str = "paper",
    rows: SplitRows | None = None,
    rc_measure: RcMeasure | str = "spice",
) -> Scored:
    """The same with the drawn scores, which a comparison of two files needs."""
    check_rules(rules)
    check_task(task)
    _check_boxes(predictions, Task(task))
    if rows is not None:
        predictions = rows.predictions
    modalities, mean, draws, extra = _tables(predictions, Task(task), rules, rows, rc_measure)
    kinds = outcomes(task, predictions)
    found = {
        "task": str(task),
        "rules": rules,
        "modalities": modalities,
        "mean": mean,
        "n_modalities": len(modalities),
        "n": len(predictions),
        "malformed_rate": malformed_rate(predictions),
        "unreadable_rate": kinds.count(Outcome.UNREADABLE) / len(kinds),
        "outcomes": outcome_counts(kinds),
        "errors": sum(each.error is not None for each in predictions),
        **intervals_of(predictions, draws),
        **extra,
    }
    return Scored(found, draws)


def _tables(
    predictions: Sequence[Prediction], task: Task, rules: str, rows: SplitRows | None, rc_measure: str
) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Rows by modality, their mean, draws, and what there is of strict VG only."""
    if task == Task.IMAGE_ANALYSIS:
        return *_text_tables(predictions, rules), {}
    if task == Task.REFERRING_CAPTION:
        return *_caption_tables(predictions, rules, rc_measure), {}
    if (task, rules) != (Task.VISUAL_GROUNDING, "strict"):
        rule = recall_rule(task, rules)
        return *_recall_tables(
            predictions, [rule(each.annotation, each.response) for each in predictions]
        ), {}
    answers = _grounded(predictions, rows)
    extra: dict[str, Any] = {"grounding": grounding_scores(answers)} if answers else {}
    if answers and rows is not None:
        extra["baseline"] = _baseline(rows)
    return *_recall_tables(predictions, [each.pairing.recall for each in answers]), extra


def _recall_tables(predictions: Sequence[Prediction], counted: Sequence[Recall]) -> tuple[Any, Any, Any]:
    """Rows by modality, their mean, and draws, of the (hits, total) of each answer."""
    cases, _ = cases_of(predictions)
    groups = by_modality(list(zip(counted, cases, strict=True)), [each.modality for each in predictions])
    rows: dict[str, Any] = {}
    draws: dict[str, Array] = {}
    for name, group in groups.items():
        whole = recall.total(each for each, _ in group)
        if whole.total:
            rows[name] = {"score": whole.score, "hits": whole.hits, "total": whole.total}
            hits, totals = [each.hits for each, _ in group], [each.total for each, _ in group]
            draws[name] = draw_ratios(hits, totals, [case for _, case in group])
    known = [row["score"] for row in rows.values()]
    return rows, sum(known) / len(known) if known else None, {SCORE: draws}


def _text_tables(predictions: Sequence[Prediction], rules: str) -> tuple[Any, Any, Any]:
    """The same for texts, which have several measures."""
    responses, references = [each.response for each in predictions], [each.annotation for each in predictions]
    of_each = [each.modality for each in predictions]
    found = text_scores(by_modality(compared_texts(references, responses, rules), of_each))
    cases = by_modality(cases_of(predictions)[0], of_each)
    drawn = {name: scores.draws(cases[name]) for name, scores in found.items()}
    draws = {
        measure: {name: drawn[name][measure] for name in found} for measure in next(iter(drawn.values()))
    }
    return {name: text_row(row) for name, row in found.items()}, mean_text_row(found.values()), draws


def _caption_tables(predictions: Sequence[Prediction], rules: str, measure: str) -> tuple[Any, Any, Any]:
    """The same for captions, which have one score per answer."""
    of_each = [each.modality for each in predictions]
    scores = by_modality(score_each_caption(predictions, rules, measure), of_each)
    cases = by_modality(cases_of(predictions)[0], of_each)
    rows = caption_rows(scores, measure)
    draws = {name: draw_ratios(values, [1] * len(values), cases[name]) for name, values in scores.items()}
    return rows, caption_row((row[measure] for row in rows.values()), measure), {measure: draws}


def _grounded(predictions: Sequence[Prediction], rows: SplitRows | None) -> list[Grounded]:
    """The answers of VG compared with their references. Raises ValueError, with the id, if a reference is too long."""
    cases, _ = cases_of(predictions)
    found = []
    for each, case in zip(predictions, cases, strict=True):
        asked = rows.asked[each.id][1] if rows else ()
        try:
            compared = pair(each.annotation, each.response, asked)
        except ValueError as error:
            raise ValueError(f"id {each.id}: {error}") from error
        others = rows.objects.get(each.image, ()) if rows else None
        found.append(Grounded(compared, each.modality.value, case, _labels_of(compared, asked), others))
    return found


def _baseline(rows: SplitRows) -> dict[str, Any]:
    """The strict VG scores of answers that no image was looked at for."""
    guesses = rows.baseline()
    answers = _grounded(guesses, rows)
    modalities, mean, draws = _recall_tables(guesses, [each.pairing.recall for each in answers])
    interval = intervals_of(guesses, draws)["interval"]
    return {"modalities": modalities, "mean": mean, "interval": interval, "grounding": measures(answers)}


def _labels_of(compared: Pairing, asked: Sequence[tuple[str, Box]]) -> tuple[str, ...]:
    """The label of each reference box: that of the row's object, else the reference's own phrase in lower case."""
    known = {box.to_thousandths(): label for label, box in asked}
    return tuple(
        known.get(box.to_thousandths(), name.lower())
        for box, name in zip(compared.reference, compared.names, strict=True)
    )


def check_task(task: Task | str) -> None:
    """Raises ValueError if there is no score for a task."""
    if task not in SINGLE_TASKS:
        raise ValueError(f"task {str(task)!r} cannot be scored: {', '.join(SINGLE_TASKS)} can")


def recall_rule(kind: Task | Missing | str, rules: Rules | str) -> Callable[[str, str], Recall]:
    """The function (reference, response) -> Recall of one answer, for vg, roc, absent and foreign questions.

    For questions about missing objects a hit is an answer with a box: fewer are better. Raises ValueError for unknown
    rules.
    """
    check_rules(rules)
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
    their unweighted `mean`, and `n_modalities`. Strict rules add `unreadable_rate`, of all answers and by modality.
    Raises ValueError if the inputs do not fit each other.
    """
    rule = recall_rule(task, rules)
    check_texts(predictions, references)
    found = [rule(*pair) for pair in zip(references, predictions, strict=True)]
    whole = recall.total(found)
    scored: dict[str, Any] = {"recall": whole.score, "hits": whole.hits, "total": whole.total}
    names = None if modalities is None else list(modalities)
    if names is None:
        return _with_unreadable(scored, task, rules, predictions)
    groups = {name: recall.total(group) for name, group in by_modality(found, names).items()}
    rows = {
        name: {"score": row.score, "hits": row.hits, "total": row.total}
        for name, row in groups.items()
        if row.total
    }
    mean = recall.mean_score(groups.values())
    scored |= {"modalities": rows, "mean": mean, "n_modalities": len(rows)}
    return _with_unreadable(scored, task, rules, predictions, names)


def score_texts(
    predictions: Sequence[str],
    references: Sequence[str],
    rules: Rules | str = "paper",
    modalities: Iterable[str] | None = None,
) -> dict[str, Any]:
    """MIA: bleu_4, meteor, rouge_l and mbmr of all answers as one set, and their number as total.

    With modalities, one per answer, also `modalities`, each scored by itself, the `mean` of each score over them, and
    `n_modalities`. Strict rules add `unreadable_rate`, of all answers and by modality. Raises ValueError if the inputs
    do not fit each other, or Java or the caption toolkit is missing.
    """
    check_rules(rules)
    check_texts(predictions, references)
    pairs = compared_texts(references, predictions, rules)
    names = None if modalities is None else list(modalities)
    groups = {} if names is None else by_modality(pairs, names)
    found = text_scores({**groups, _ALL: pairs})
    scored: dict[str, Any] = text_row(found.pop(_ALL)) | {"total": len(pairs)}
    if names is None:
        return _with_unreadable(scored, Task.IMAGE_ANALYSIS, rules, predictions)
    rows = {name: text_row(scores_of) | {"total": len(groups[name])} for name, scores_of in found.items()}
    scored |= {"modalities": rows, "mean": mean_text_row(found.values()), "n_modalities": len(rows)}
    return _with_unreadable(scored, Task.IMAGE_ANALYSIS, rules, predictions, names)


def score_captions(
    predictions: Sequence[str],
    references: Sequence[str],
    rules: Rules | str = "paper",
    modalities: Iterable[str] | None = None,
    measure: RcMeasure | str = "spice",
) -> dict[str, Any]:
    """RC: the mean of a measure over all answers, under its name, and their number as total.

    With modalities, one per answer, also `modalities`, the `mean` over them, and `n_modalities`. Strict rules add
    `unreadable_rate`. Raises ValueError if the inputs do not fit each other, or as `check_measure` does.
    """
    check_rules(rules)
    check_texts(predictions, references)
    pairs = compared_texts(references, predictions, rules)
    names = None if modalities is None else list(modalities)
    if names is not None:
        by_modality(pairs, names)  # raises before Java starts
    scores = caption_scores(pairs, measure, rules == "strict")
    scored: dict[str, Any] = {**caption_row(scores, measure), "total": len(scores)}
    if names is None:
        return _with_unreadable(scored, Task.REFERRING_CAPTION, rules, predictions)
    groups = by_modality(scores, names)
    rows = caption_rows(groups, measure)
    mean = caption_row((row[measure] for row in rows.values()), measure)
    rows = {name: row | {"total": len(groups[name])} for name, row in rows.items()}
    scored |= {"modalities": rows, "mean": mean, "n_modalities": len(rows)}
    return _with_unreadable(scored, Task.REFERRING_CAPTION, rules, predictions, names)


def _with_unreadable(
    scored: dict[str, Any], task: Task, rules: str, responses: Sequence[str], modalities: Sequence[str] = ()
) -> dict[str, Any]:
    """Strict scores with the share of unreadable answers; those of the paper's rules have no such key."""
    if rules == "paper":
        return scored
    unreadable = [outcome_of(task, response) is Outcome.UNREADABLE for response in responses]
    for name, group in by_modality(unreadable, modalities).items() if modalities else ():
        if name in scored["modalities"]:
            scored["modalities"][name]["unreadable_rate"] = sum(group) / len(group)
    return scored | {"unreadable_rate": sum(unreadable) / len(unreadable)}


def score_each_caption(
    predictions: Sequence[Prediction], rules: Rules | str = "paper", measure: RcMeasure | str = "spice"
) -> list[float]:
    """RC: the score of each answer, by one start of the measure's program."""
    responses = [each.response for each in predictions]
    pairs = compared_texts([each.annotation for each in predictions], responses, rules)
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


def compared_texts(references: Sequence[str], responses: Sequence[str], rules: str) -> list[tuple[str, str]]:
    """Pairs (reference, cleaned response) whose words are compared.

    Strict rules remove tags and boxes first; an unreadable response has no words.
    """
    pairs = [
        (reference, paper_rules.clean_response(response))
        for reference, response in zip(references, responses, strict=True)
    ]
    return pairs if rules == "paper" else [(read(first).text, _words(second)) for first, second in pairs]


def _words(cleaned: str) -> str:
    unreadable = outcome_of(Task.IMAGE_ANALYSIS, cleaned) is Outcome.UNREADABLE
    return "" if unreadable else read(cleaned).text


def _check_boxes(predictions: Sequence[Prediction], task: Task) -> None:
    """Files of the original do not name their task; whether they hold boxes shows it (BiRD 3)."""
    unnamed = [each for each in predictions if not each.task]
    boxed = next((each for each in unnamed if read(each.annotation).boxes), None)
    evidence = ""
    if unnamed and (boxed is not None) != (task == Task.VISUAL_GROUNDING):
        evidence = f"a reference holds a box (id {boxed.id})" if boxed else "no reference holds a box"
    elif unnamed and task == Task.IMAGE_ANALYSIS and all(read(each.question).boxes for each in unnamed):
        evidence = "every question points at a box"
    if evidence:
        raise ValueError(f"{evidence}, so these are no {task.upper()} predictions; check --task")


def check_rules(rules: str) -> None:
    """Raises ValueError if rules are unknown."""
    if rules not in get_args(Rules):
        raise ValueError(f"rules {rules!r} are unknown; use {' or '.join(get_args(Rules))}")


def check_texts(predictions: Sequence[str], references: Sequence[str]) -> None:
    """Raises ValueError if there are no predictions, or not as many references."""
    if len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions and {len(references)} references; give one reference for each"
        )
    if not predictions:
        raise ValueError("there are no predictions, so there is nothing to score")


def _strict_grounding(reference: str, response: str) -> Recall:
    return pair(reference, response).recall


def _strict_name(reference: str, response: str) -> Recall:
    if outcome_of(Task.REFERRING_CLASSIFICATION, response) is not Outcome.ANSWERED:
        return Recall(0, 1)
    return Recall(int(answer_holds(read(reference).text, read(response).text)), 1)


_ALL = "all"  # the group of every answer; no modality has this name
_RECALLS: Mapping[tuple[Task, str], Callable[[str, str], Recall]] = {
    (Task.VISUAL_GROUNDING, "paper"): paper_rules.grounding_recall,
    (Task.VISUAL_GROUNDING, "strict"): _strict_grounding,
    (Task.REFERRING_CLASSIFICATION, "paper"): paper_rules.name_recall,
    (Task.REFERRING_CLASSIFICATION, "strict"): _strict_name,
}
