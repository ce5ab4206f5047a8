"""The names that a model is trained on, for its configuration and its processor."""

from __future__ import annotations

from collections import defaultdict

import pyarrow.compute as pc
from datasets import Dataset, IterableDataset

from ..hub.configuration_bird import BirdConfig
from ..hub.processing_bird import BirdProcessor

_COLUMNS = ["modality", "objects"]
_ROWS_PER_BATCH = 10_000


def add_label_names(config: BirdConfig, processor: BirdProcessor, dataset: Dataset | IterableDataset) -> None:
    """Add the names of a dataset's objects to those that a model knows, in its configuration and its processor."""
    names = {modality: set(known) for modality, known in config.label_names.items()}
    for modality, found in label_names_of(dataset).items():
        names.setdefault(modality, set()).update(found)
    config.label_names = {modality: sorted(names[modality]) for modality in sorted(names)}
    processor.label_names = {modality: list(known) for modality, known in config.label_names.items()}


def label_names_of(dataset: Dataset | IterableDataset) -> dict[str, list[str]]:
    """For each modality, the names of the objects that have a box in some image, sorted.

    A name that only occurs as absent is not among them: it may be a word that no image of the data could show.
    Returns {} for streamed data, which would have to be read twice, and for rows without these columns.
    """
    if isinstance(dataset, IterableDataset) or not set(_COLUMNS) <= set(dataset.column_names):
        return {}
    names: dict[str, set[str]] = defaultdict(set)
    tables = dataset.select_columns(_COLUMNS).with_format("arrow")
    for table in tables.iter(_ROWS_PER_BATCH):
        for modality in pc.unique(table["modality"]).to_pylist():
            rows = table.filter(pc.equal(table["modality"], modality))
            objects = pc.list_flatten(rows["objects"])
            labels = pc.struct_field(objects, "label").filter(pc.struct_field(objects, "present"))
            names[modality].update(pc.unique(labels).to_pylist())
    return {modality: sorted(names[modality]) for modality in sorted(names) if names[modality]}
