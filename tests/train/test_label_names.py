"""What a trained checkpoint says it knows is what its training data has boxes of."""

from __future__ import annotations

from copy import deepcopy

import pytest
from datasets import Dataset, load_dataset

from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.train.label_names import add_label_names, label_names_of

pytestmark = pytest.mark.slow


def item(label, present=True):
    return {"label": label, "present": present, "box": [0.0, 0.0, 1.0, 1.0] if present else None}


ROWS = [
    {"modality": "mr", "objects": [item("thalamus"), item("prostate", present=False)]},
    {"modality": "ct", "objects": [item("spleen"), item("liver"), item("liver")]},
    {"modality": "ct", "objects": [item("prostate", present=False)]},
    {"modality": "mr", "objects": [item("prostate")]},
    {"modality": "pet", "objects": [item("gallstone", present=False)]},
]
NAMES = {"ct": ["liver", "spleen"], "mr": ["prostate", "thalamus"]}


def test_names_are_those_with_a_box_by_modality():
    assert label_names_of(Dataset.from_list(ROWS)) == NAMES


def test_names_of_all_batches_are_found(monkeypatch):
    monkeypatch.setattr("bird_hf.train.label_names._ROWS_PER_BATCH", 1)
    assert label_names_of(Dataset.from_list(ROWS)) == NAMES


def test_published_data_has_its_names(four_phantoms):
    rows = load_dataset(four_phantoms, "chat", split="train")
    expected: dict[str, set[str]] = {}
    for row in rows:
        found = {each["label"] for each in row["objects"] if each["present"]}
        expected.setdefault(row["modality"], set()).update(found)
    assert label_names_of(rows) == {name: sorted(expected[name]) for name in sorted(expected)}
    assert len(expected) == 4


@pytest.mark.parametrize(
    "dataset",
    [
        Dataset.from_list(ROWS).to_iterable_dataset(),
        Dataset.from_list([{"messages": "no objects"}]),
        Dataset.from_list([]),
    ],
    ids=["streamed", "other columns", "empty"],
)
def test_data_without_a_list_of_objects_has_no_names(dataset):
    assert label_names_of(dataset) == {}


def test_names_are_added_to_those_of_the_checkpoint(tiny_processor):
    config = BirdConfig(label_names={"ct": ["liver", "heart"], "fundus": ["optic disc"]})
    processor = deepcopy(tiny_processor)
    add_label_names(config, processor, Dataset.from_list(ROWS))
    assert config.label_names == {
        "ct": ["heart", "liver", "spleen"],
        "fundus": ["optic disc"],
        "mr": ["prostate", "thalamus"],
    }
    assert processor.label_names == config.label_names
    assert processor.known_names == ("heart", "liver", "optic disc", "prostate", "spleen", "thalamus")
