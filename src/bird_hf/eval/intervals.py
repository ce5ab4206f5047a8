"""Bootstrap intervals over cases.

Answers about one patient are not independent, so whole cases are drawn with replacement, not answers. The draws of a
modality depend on its number of cases only: two files with answers to the same questions get the same draws, and the
difference of their scores can be taken draw by draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .predictions import Prediction, by_modality

DRAWS = 2000
SCORE = "score"  # the measure of tasks that have only one
LEVEL = 0.95
_SEED = 18
_CELLS = 1_000_000  # drawn cases that are in memory at a time

Array = NDArray[np.float64]


def cases_of(predictions: Sequence[Prediction]) -> tuple[list[str], str]:
    """The case of each answer and the unit that was drawn: "case", or "image" if an answer has no case."""
    if all(each.case_id for each in predictions):
        return [str(each.case_id) for each in predictions], "case"
    return [each.image for each in predictions], "image"


def draw_sums(values: Sequence[Sequence[float]] | Array, cases: Sequence[str]) -> Array:
    """The sums of each column over cases drawn with replacement.

    values: (answers, columns). cases: of each answer. Returns (DRAWS, columns).
    """
    columns = np.asarray(values, dtype=np.float64)
    names, places = np.unique(np.asarray(cases), return_inverse=True)
    number = len(names)
    of_case = np.stack([np.bincount(places, column, minlength=number) for column in columns.T], axis=1)
    rng = np.random.default_rng(_SEED)
    at_once = max(1, _CELLS // number)
    sums = np.empty((DRAWS, columns.shape[1]))
    for start in range(0, DRAWS, at_once):
        rows = min(at_once, DRAWS - start)
        drawn = rng.integers(number, size=(rows, number)) + number * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * number).reshape(rows, number)
        sums[start : start + rows] = weights @ of_case
    return sums


def draw_ratios(hits: Sequence[float], totals: Sequence[float], cases: Sequence[str]) -> Array:
    """The drawn values of sum(hits) / sum(totals); NaN in a draw without totals."""
    sums = draw_sums(np.stack([np.asarray(hits, float), np.asarray(totals, float)], axis=1), cases)
    return ratio(sums[:, 0], sums[:, 1])


def ratio(hits: Array, totals: Array) -> Array:
    """hits / totals; NaN where the total is 0."""
    return np.divide(hits, totals, out=np.full(len(hits), np.nan), where=totals > 0)


def mean_draws(of_modality: Sequence[Array]) -> Array:
    """The unweighted mean over modalities, draw by draw, without those that a draw has no total of."""
    stacked = np.stack(of_modality)
    known = ~np.isnan(stacked)
    return ratio(np.where(known, stacked, 0.0).sum(axis=0), known.sum(axis=0).astype(float))


def interval_of(draws: Array, cases: int) -> list[float] | None:
    """The central 95 % of draws as [low, high]; None with fewer than two cases, which say nothing about others."""
    known = draws[~np.isnan(draws)]
    if cases < 2 or not len(known):
        return None
    low, high = np.percentile(known, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return [float(low), float(high)]


def intervals_of(
    predictions: Sequence[Prediction], draws: Mapping[str, Mapping[str, Array]]
) -> dict[str, Any]:
    """`interval` and `cases` of drawn scores: of the mean and by modality; by measure if there are several."""
    cases, unit = cases_of(predictions)
    groups = by_modality(cases, [each.modality for each in predictions])
    numbers = {name: len(set(group)) for name, group in groups.items()}
    total = len(set(cases))
    answers = {name: len(group) for name, group in groups.items()}
    counted = {"unit": unit, "total": total, "modalities": numbers, "answers": answers}
    of_mean: dict[str, Any] = {}
    of_modality: dict[str, dict[str, Any]] = {}
    for measure, drawn in draws.items():
        enough = all(numbers[name] > 1 for name in drawn) and bool(drawn)
        of_mean[measure] = interval_of(mean_draws([*drawn.values()]), total) if enough else None
        for name, values in drawn.items():
            of_modality.setdefault(name, {})[measure] = interval_of(values, numbers[name])
    if [*draws] == [SCORE]:
        interval = {
            "mean": of_mean[SCORE],
            "modalities": {name: row[SCORE] for name, row in of_modality.items()},
        }
    else:
        interval = {"mean": of_mean, "modalities": of_modality}
    return {"interval": interval, "cases": counted}
