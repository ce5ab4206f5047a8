"""Two prediction files with answers to the same questions: the difference of their scores, with intervals.

Both files are scored on the same drawn cases, so what is hard for both does not widen the interval of the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..data.records import Task
from .intervals import Array, cases_of, interval_of, mean_draws
from .predictions import Prediction
from .score import score_with_draws


def compare_predictions(
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    task: Task | str,
    rules: str = "paper",
    rc_measure: str = "spice",
) -> dict[str, Any]:
    """The scores of two files, and `difference`: the second minus the first.

    `difference` holds by measure (`score`, or the measures of texts) the `mean` and the `modalities`, each with
    "difference" and "interval". Raises ValueError if the files do not answer the same questions.
    """
    _check_same(first, second)
    units = {cases_of(each)[1] for each in (first, second)}
    if units == {"case", "image"}:  # only one file knows the cases: both are drawn by image
        first, second = ([replace(each, case_id=None) for each in file] for file in (first, second))
    scored = [score_with_draws(file, task, rules, rc_measure=rc_measure) for file in (first, second)]
    cases = scored[0].found["cases"]["modalities"]
    measures = {
        measure: _difference([each.draws[measure] for each in scored], [each.found for each in scored], measure, cases)
        for measure in scored[0].draws
    }  # fmt: skip
    return {
        "task": str(task),
        "rules": rules,
        "first": scored[0].found,
        "second": scored[1].found,
        "difference": measures,
    }


def _difference(
    draws: Sequence[Mapping[str, Array]],
    found: Sequence[Mapping[str, Any]],
    measure: str,
    cases: Mapping[str, int],
) -> dict[str, Any]:
    names = [name for name in draws[0] if name in draws[1]]
    first, second = ({name: file["modalities"][name][measure] for name in names} for file in found)
    drawn = {name: draws[1][name] - draws[0][name] for name in names}
    rows = {
        name: {"difference": second[name] - first[name], "interval": interval_of(drawn[name], cases[name])}
        for name in names
    }
    if not names:
        return {"mean": {"difference": None, "interval": None}, "modalities": {}}
    mean = sum(row["difference"] for row in rows.values()) / len(rows)
    enough = all(cases[name] > 1 for name in names)
    interval = interval_of(mean_draws([*drawn.values()]), sum(cases[name] for name in names))
    return {"mean": {"difference": mean, "interval": interval if enough else None}, "modalities": rows}


def _check_same(first: Sequence[Prediction], second: Sequence[Prediction]) -> None:
    if len(first) != len(second):
        raise ValueError(
            f"the files answer {len(first)} and {len(second)} questions; compare files of the same split"
        )
    for one, other in zip(first, second, strict=True):
        for name in ("image", "question", "annotation"):
            if getattr(one, name) != getattr(other, name):
                raise ValueError(
                    f"the files differ at id {one.id}: {name} {getattr(one, name)[:60]!r} and "
                    f"{getattr(other, name)[:60]!r}; compare files of the same split"
                )
