"""The embedded sample: its splits share no case, and its test split shares none with the training set."""

from __future__ import annotations

import pytest

from bird_hf.data.embedded import sample_set, training_set
from bird_hf.data.embedded.cases import EMBEDDED_CASES
from bird_hf.data.embedded.sample_set import (
    FIRST_PHANTOM_SEED,
    PHANTOMS_PER_MODALITY,
    SAMPLE_MIN_AREA,
    sample_dialogues,
    sample_images,
    sample_phantoms,
    spaced_slices,
    write_sample,
)
from bird_hf.data.records import Modality
from bird_hf.data.teachers.wordings import Wordings
from bird_hf.hub.grounding import read

pytestmark = pytest.mark.slow

SMALL = {"train": "breast1", "test": "brain2"}  # the two volumes that are quickest to read


@pytest.fixture
def small(monkeypatch):
    """One volume per split, two slices per axis, one phantom per modality."""
    cases = tuple(case for case in EMBEDDED_CASES if case.name in SMALL.values())
    monkeypatch.setattr(sample_set, "EMBEDDED_CASES", cases)
    monkeypatch.setattr(sample_set, "PHANTOMS_PER_MODALITY", {"train": 1, "test": 1})
    monkeypatch.setattr(sample_set, "SLICES_PER_PLANE", {"train": 2, "test": 2})


def phantom_seeds(split) -> set[int]:
    first = FIRST_PHANTOM_SEED[split]
    return set(range(first, first + PHANTOMS_PER_MODALITY[split]))


def test_volumes_of_the_splits_are_other_cases():
    cases = {split: {case.case_id for case in EMBEDDED_CASES if case.split == split} for split in SMALL}
    assert cases["train"] and cases["test"] and not cases["train"] & cases["test"]
    assert len({case.image_file for case in EMBEDDED_CASES}) == len(EMBEDDED_CASES)


def test_phantoms_of_the_splits_and_of_the_training_set_have_other_seeds():
    train, test = phantom_seeds("train"), phantom_seeds("test")
    assert len(train) == PHANTOMS_PER_MODALITY["train"] and not train & test
    # Image i of the training set is drawn with this seed plus i.
    assert max(train | test) < training_set._FIRST_PHANTOM_SEED


def test_phantoms_of_the_training_set_begin_at_its_first_seed(monkeypatch):
    monkeypatch.setattr(training_set, "_SHARES", {"phantom_ct": 1.0})
    (row,) = training_set.training_rows(7, 0)
    assert row["case_id"] == f"phantom_ct/{training_set._FIRST_PHANTOM_SEED + 7}"


@pytest.mark.parametrize("split", ["train", "test"])
def test_phantoms_are_of_every_modality_and_carry_their_seeds(split):
    records = [record for _, record in sample_phantoms(split, 1)]
    assert [record.info.modality for record in records] == list(Modality)
    assert {record.info.case_id.split("/")[1] for record in records} == {str(FIRST_PHANTOM_SEED[split])}
    assert all(record.info.synthetic for record in records)


def test_slices_are_spaced_over_those_that_show_an_object():
    case = next(case for case in EMBEDDED_CASES if case.name == "lung2")
    few = [record for _, record in spaced_slices(case, 3)]
    every = [record for _, record in spaced_slices(case, 10_000)]
    for axis in case.axes:
        picked = [record.info.slice_index for record in few if record.info.axis is axis]
        shown = [record.info.slice_index for record in every if record.info.axis is axis]
        assert len(shown) > 3
        middle = shown[round((len(shown) - 1) / 2)]
        assert picked == [shown[0], middle, shown[-1]]
    assert all(record.present for record in few)
    assert all(instance.area >= SAMPLE_MIN_AREA for record in every for instance in record.present)


def test_splits_share_no_case(small):
    cases = {split: {record.info.case_id for _, record in sample_images(split, 1, 2)} for split in SMALL}
    assert not cases["train"] & cases["test"]
    for split, name in SMALL.items():
        assert f"pyradiomics/{name}" in cases[split]
        assert len(cases[split]) == 1 + len(Modality)


def test_dialogues_are_the_same_every_time(small):
    assert list(sample_dialogues("test")) == list(sample_dialogues("test"))


def test_training_split_is_varied_and_test_split_plain(small):
    def forms(split, *wordings):
        return [turn.form for made, _ in sample_dialogues(split, *wordings) for turn in made.turns]

    assert any("/plain/" not in form for form in forms("train", Wordings.VARIED))
    assert all("/plain/" in form for form in (*forms("train"), *forms("test")))


def test_written_sample_loads_and_leaks_nothing(small, tmp_path):
    datasets = pytest.importorskip("datasets")
    counts = write_sample(tmp_path / "med-grit")
    assert set(counts) == {"vg", "roc", "rc", "mia", "chat"}
    cases = {}
    for split in ("train", "test"):
        rows = datasets.load_dataset(
            str(tmp_path / "med-grit"), "vg", split=split, cache_dir=str(tmp_path / "cache")
        )
        assert len(rows) == counts["vg"][split]
        cases[split] = set(rows["case_id"])
        assert all(not read(text).issues for row in rows["messages"] for text in (m["content"] for m in row))
        varied = any("/plain/" not in form for row in rows["forms"] for form in row)
        assert varied == (split == "train")
    assert not cases["train"] & cases["test"]
    assert "For research only" in (tmp_path / "med-grit" / "README.md").read_text(encoding="utf-8")
