"""Several datasets in one run, in the shares that a recipe gives them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from datasets import Dataset, IterableDataset, concatenate_datasets, interleave_datasets, load_dataset
from datasets.exceptions import DatasetsError
from trl import ScriptArguments

from .recipe import nearest

Rows: TypeAlias = Dataset | IterableDataset
# What an entry of `datasets` may be called elsewhere, and its name here.
_OTHER_NAMES = {"dataset_name": "path", "dataset_config": "name", "config": "name", "fraction": "weight"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One of several datasets, an entry of `datasets`; named as `load_dataset` and TRL name its parts.

    path: a Med-GRIT folder or a hub repository. name: its config. split: of the rows that are trained. test_split: of
    the held-out rows; None if it has none. weight: how often its rows are drawn, relative to the others.
    """

    path: str
    name: str | None
    split: str
    test_split: str | None
    weight: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], script: ScriptArguments) -> Source:
        """An entry of a recipe. Raises ValueError if it has no path, an unknown field, or no positive weight."""
        if not isinstance(values, Mapping):
            raise ValueError(f"datasets: {values!r} is not an entry such as {{path: med-grit, weight: 1}}")
        known = {item.name for item in fields(cls)}
        for key in values:
            if key not in known:
                near = _OTHER_NAMES.get(key)
                advice = f"it is called {near} here" if near else nearest(key, known)
                raise ValueError(
                    f"datasets: {key} is not a field of a dataset; {advice or 'see ' + ', '.join(known)}"
                )
        if not values.get("path"):
            raise ValueError(
                "datasets: an entry has no path; set it to a Med-GRIT folder or a hub repository"
            )
        weight = values.get("weight")
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if weight is not None and not (is_number and 0 < weight < float("inf")):
            raise ValueError(
                f"datasets: the weight of {values['path']} is {weight!r}, but must be a number above 0"
            )
        defaults = {
            "name": script.dataset_config,
            "split": script.dataset_train_split,
            "test_split": script.dataset_test_split,
        }
        return cls(**defaults | dict(values))


def sources_of(script: ScriptArguments, args: Any) -> list[Source]:
    """The entries of a recipe's `datasets`; none if it names one dataset.

    Raises ValueError if both are set, or if only some entries have a weight.
    """
    given = getattr(args, "datasets", None)
    if not given:
        return []
    if script.dataset_name:
        raise ValueError(f"the recipe sets both datasets and dataset_name {script.dataset_name}; remove one")
    sources = [Source.from_dict(values, script) for values in given]
    without = [source.path for source in sources if source.weight is None]
    if without and len(without) < len(sources):
        raise ValueError(
            f"datasets: {without[0]} has no weight and others have one; set it for all or for none"
        )
    if without and len(sources) > 1 and script.dataset_streaming:
        raise ValueError("datasets: streamed datasets are mixed by weight; set a weight for each")
    return sources


def mixed_rows(sources: Sequence[Source], script: ScriptArguments, seed: int) -> Rows:
    """The rows of several datasets: all of them, or, with weights, drawn in their shares.

    With weights an epoch lasts until every row has been drawn; rows of a dataset that is exhausted before are repeated.
    Raises ValueError if a dataset cannot be loaded, or if columns differ in kind.
    """
    parts = [_load(source, source.split, script.dataset_streaming) for source in sources]
    weights = [source.weight for source in sources if source.weight is not None]
    if len(parts) == 1:
        return parts[0]
    if not weights:
        return _joined(parts)
    total = sum(weights)
    mixed = _joined(
        parts,
        probabilities=[weight / total for weight in weights],
        seed=seed,
        stopping_strategy="all_exhausted",
    )
    if isinstance(mixed, Dataset):
        sizes = ", ".join(f"{source.path} {len(part)}" for source, part in zip(sources, parts, strict=True))
        log.info("an epoch has %d rows, drawn by weight (%s)", len(mixed), sizes)
    return mixed


def held_out_rows(sources: Sequence[Source], script: ScriptArguments) -> Rows:
    """The held-out rows of several datasets, one after the other. Raises ValueError if there are none."""
    parts = [
        _load(source, source.test_split, script.dataset_streaming) for source in sources if source.test_split
    ]
    if not parts:
        raise ValueError(
            "eval_strategy needs held-out rows, and no entry of datasets has a test_split; set one"
        )
    return _joined(parts)


def _joined(parts: list[Rows], **drawing: Any) -> Rows:
    """One after the other, or interleaved by what `interleave_datasets` is told."""
    try:
        return interleave_datasets(parts, **drawing) if drawing else concatenate_datasets(parts)
    except ValueError as error:
        said = " ".join(str(error).split())
        raise ValueError(f"datasets: their columns differ in kind ({said})") from error


def _load(source: Source, split: str, streaming: bool) -> Rows:
    try:
        return load_dataset(source.path, source.name, split=split, streaming=streaming)
    except (ValueError, OSError, DatasetsError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"datasets: {source.path} has no readable split {split!r} ({said})") from error


def balanced_places(dataset: Dataset, column: str) -> np.ndarray:
    """The places of rows such that every value of a column is met as often: rows of rarer values are repeated.

    Raises ValueError if there is no such column, or only one value.
    """
    if column not in dataset.column_names:
        raise ValueError(
            f"balance_by: the rows have no column {column}; they have {', '.join(dataset.column_names)}"
        )
    values = np.array([str(value) for value in dataset[column]])
    found, counts = np.unique(values, return_counts=True)
    if len(found) < 2:
        raise ValueError(
            f"balance_by: all rows have the {column} {found[0]}; name several datasets, or configs of one, in datasets"
        )
    most = int(counts.max())
    log.info(
        "an epoch has %d rows: %d of each %s (there are %s)",
        most * len(found),
        most,
        column,
        ", ".join(f"{value} {count}" for value, count in zip(found, counts, strict=True)),
    )
    return np.concatenate([np.resize(np.flatnonzero(values == value), most) for value in found])
