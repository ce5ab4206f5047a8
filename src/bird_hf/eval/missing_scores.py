"""Answers to questions for objects that are not in the image: boxed, said absent, or unreadable (BiRD 5, Fig. 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..hub.grounding import read
from .hallucination import Missing, box_given
from .outcomes import Outcome, outcome_of
from .predictions import by_modality
from .score import Rules, check_rules, check_texts


def score_missing(
    predictions: Sequence[str],
    references: Sequence[str],
    rules: Rules | str = "paper",
    modalities: Iterable[str] | None = None,
) -> dict[str, Any]:
    """Answers to questions for objects that are not in the image: those whose reference holds no box.

    Returns `false_box_rate`, `rejection_rate`, `unreadable_rate` (None if there is none) and their number as `total`;
    with modalities, one per answer, also `modalities`, the `mean` of each rate over them, and `n_modalities`. Both
    rules count alike. Raises ValueError if the inputs do not fit each other.
    """
    check_rules(rules)
    check_texts(predictions, references)
    absent = [not read(reference).boxes for reference in references]
    groups = {} if modalities is None else by_modality([*zip(absent, predictions, strict=True)], modalities)
    whole = _missing_row([text for is_absent, text in zip(absent, predictions, strict=True) if is_absent])
    if modalities is None:
        return whole
    rows = {
        name: _missing_row([text for is_absent, text in group if is_absent]) for name, group in groups.items()
    }
    rows = {name: row for name, row in rows.items() if row["total"]}
    rates = [name for name in whole if name != "total"]
    mean = {rate: sum(row[rate] for row in rows.values()) / len(rows) if rows else None for rate in rates}
    return whole | {"modalities": rows, "mean": mean, "n_modalities": len(rows)}


def _missing_row(responses: Sequence[str]) -> dict[str, Any]:
    kinds = [outcome_of(Missing.ABSENT, response) for response in responses]
    counts = {
        "false_box_rate": sum(box_given(response).hits for response in responses),
        "rejection_rate": kinds.count(Outcome.SAID_ABSENT),
        "unreadable_rate": kinds.count(Outcome.UNREADABLE),
    }
    rates = {name: count / len(responses) if responses else None for name, count in counts.items()}
    return {**rates, "total": len(responses)}
