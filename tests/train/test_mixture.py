"""Several datasets in the shares of a recipe, balanced sampling, and streams."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset, load_dataset
from trl import ScriptArguments

from bird_hf.train import run
from bird_hf.train.collate import GroundingCollator
from bird_hf.train.mixture import Source, balanced_places, held_out_rows, mixed_rows, sources_of
from bird_hf.train.plan import Hardware, make_plan
from bird_hf.train.recipe import BirdSFTConfig
from bird_hf.train.streaming import streamed_rows

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]


def config(tmp_path, **fields) -> BirdSFTConfig:
    return BirdSFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **fields)


@pytest.fixture
def two_folders(tmp_path) -> list[str]:
    """Dataset folders of 30 and 10 rows, which name the folder they are from."""
    folders = []
    for name, count in (("large", 30), ("small", 10)):
        folder = tmp_path / name
        for split in ("train", "test"):
            rows = [{"image_id": f"{name}-{number}", "place": split} for number in range(count)]
            Dataset.from_list(rows).to_parquet(folder / f"{split}-00000.parquet")
        folders.append(str(folder))
    return folders


def mixture(folders, weights=(None, None), streaming=False, **fields):
    script = ScriptArguments(dataset_streaming=streaming)
    given = [
        {"path": path} if weight is None else {"path": path, "weight": weight}
        for path, weight in zip(folders, weights, strict=True)
    ]
    args = type("Args", (), {"datasets": given})()
    return sources_of(script, args), script


def shares(rows) -> Counter:
    return Counter(row["image_id"].split("-")[0] for row in rows)


# --- datasets -------------------------------------------------------------------------------------------------


def test_without_weights_every_row_is_met_once(two_folders):
    rows = mixed_rows(*mixture(two_folders), seed=0)
    assert shares(rows) == {"large": 30, "small": 10} and len(set(rows["image_id"])) == 40


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (0.2, 0.8)])
def test_weights_are_shares_and_no_row_is_left_out(two_folders, weights):
    rows = mixed_rows(*mixture(two_folders, weights), seed=0)
    assert len(set(rows["image_id"])) == 40
    expected = weights[0] / sum(weights)
    assert shares(rows)["large"] / len(rows) == pytest.approx(expected, abs=0.15)


def test_the_order_follows_from_the_seed_alone(two_folders):
    first, again, other = (
        mixed_rows(*mixture(two_folders, (1, 1)), seed=seed)["image_id"] for seed in (0, 0, 1)
    )
    assert list(first) == list(again) != list(other)


def test_streams_are_mixed_as_datasets_are(two_folders):
    rows = list(mixed_rows(*mixture(two_folders, (1, 1), streaming=True), seed=0))
    assert 0.3 < shares(rows)["large"] / len(rows) < 0.7


def test_held_out_rows_are_those_of_all_datasets_that_have_some(two_folders):
    sources, script = mixture(two_folders)
    assert shares(held_out_rows(sources, script)) == {"large": 30, "small": 10}
    script = ScriptArguments()
    sources = [
        Source(path, None, "train", split) for path, split in zip(two_folders, (None, "test"), strict=True)
    ]
    rows = held_out_rows(sources, script)
    assert shares(rows) == {"small": 10} and set(rows["place"]) == {"test"}
    with pytest.raises(ValueError, match="no entry of datasets has a test_split"):
        held_out_rows(sources[:1], script)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"path": "a", "wieght": 1}, r"wieght is not a field of a dataset; did you mean weight\?"),
        ({"dataset_name": "a"}, "dataset_name is not a field of a dataset; it is called path here"),
        ({"path": "a", "fraction": 0.5}, "fraction is not a field .*; it is called weight here"),
        ({"name": "chat"}, "an entry has no path"),
        ("med-grit", "'med-grit' is not an entry such as {path: med-grit, weight: 1}"),
        ({"path": "a", "weight": 0}, "the weight of a is 0, but must be a number above 0"),
        ({"path": "a", "weight": "much"}, "the weight of a is 'much'"),
        ({"path": "a", "weight": float("nan")}, "the weight of a is nan"),
        ({"path": "a", "weight": float("inf")}, "the weight of a is inf"),
        ({"path": "a", "weight": True}, "the weight of a is True"),
        ({"path": "a", "weight": -1}, "the weight of a is -1"),
    ],
)
def test_an_entry_that_cannot_be_read_is_one_line(entry, said):
    with pytest.raises(ValueError, match=f"^datasets: .*{said}|^datasets: {said}") as error:
        Source.from_dict(entry, ScriptArguments())
    assert "\n" not in str(error.value)


def test_contradictions_are_refused(two_folders, tmp_path):
    args = config(tmp_path, datasets=[{"path": "a"}])
    with pytest.raises(ValueError, match="sets both datasets and dataset_name b"):
        sources_of(ScriptArguments(dataset_name="b"), args)
    with pytest.raises(ValueError, match="large has no weight and others have one"):
        mixture(two_folders, (None, 1))
    with pytest.raises(ValueError, match="streamed datasets are mixed by weight"):
        mixture(two_folders, streaming=True)
    sources, script = mixture([*two_folders, str(tmp_path / "nowhere")], (1, 1, 1))
    with pytest.raises(ValueError, match=r"datasets: .*nowhere has no readable split 'train'"):
        mixed_rows(sources, script, seed=0)


def test_columns_that_differ_in_kind_are_one_line(two_folders, tmp_path):
    Dataset.from_list([{"image_id": 5}]).to_parquet(tmp_path / "numbers" / "train-0.parquet")
    with pytest.raises(ValueError, match="datasets: their columns differ in kind") as error:
        mixed_rows(*mixture([two_folders[0], str(tmp_path / "numbers")], (1, 1)), seed=0)
    assert "\n" not in str(error.value)


# --- balance --------------------------------------------------------------------------------------------------


def test_rarer_values_are_repeated_and_no_row_is_left_out():
    rows = Dataset.from_list([{"modality": name} for name in ["ct"] * 7 + ["mr"] * 2 + ["pet"]])
    places = balanced_places(rows, "modality")
    assert Counter(rows.select(places)["modality"]) == {"ct": 7, "mr": 7, "pet": 7}
    assert set(places.tolist()) == set(range(10))
    counts = Counter(places.tolist())
    assert max(counts[place] for place in (7, 8)) - min(counts[place] for place in (7, 8)) <= 1


def test_what_cannot_be_balanced_is_refused():
    rows = Dataset.from_list([{"task": "chat"}] * 3)
    with pytest.raises(ValueError, match="all rows have the task chat; name several datasets"):
        balanced_places(rows, "task")
    with pytest.raises(ValueError, match="the rows have no column modality; they have task"):
        balanced_places(rows, "modality")


# --- in a run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", [False, True])
def test_tasks_are_mixed_and_balanced_by_a_recipe(trainer_of, tiny_checkpoint, four_phantoms, packing):
    """Each of the four images has two VG rows, one of ROC, and others."""
    trainer = trainer_of(
        model_name_or_path=str(tiny_checkpoint),
        dataset_name=None,
        datasets=[{"path": four_phantoms, "name": name, "test_split": "train"} for name in ("vg", "roc")],
        balance_by="task",
        packing=packing,
        eval_strategy="steps",
    )
    rows = Counter(trainer.train_dataset["task"])
    assert rows["vg"] == rows["roc"] > 4
    assert Counter(trainer.eval_dataset["task"])["roc"] == 4
    trainer.train()
    assert np.isfinite(trainer.state.log_history[-1]["train_loss"])


def test_a_choice_that_is_unknown_is_refused(write_recipe, tmp_path):
    path = write_recipe(tmp_path, balance_by="colour")
    with pytest.raises(ValueError, match="balance_by is 'colour', but must be one of modality, task"):
        run.read(["--config", str(path)])


# --- streams --------------------------------------------------------------------------------------------------

STREAMED = {"dataset_streaming": True, "per_device_train_batch_size": 2, "max_steps": 4}


def test_a_streamed_run_trains_every_row_in_a_new_order_each_epoch(trainer_of, tiny_checkpoint):
    trainer = trainer_of(model_name_or_path=str(tiny_checkpoint), **STREAMED)
    seen, collate = [], trainer.data_collator
    trainer.data_collator = lambda rows: seen.append([row["image_id"] for row in rows]) or collate(rows)
    trainer.train()
    first, second = ([*seen[start], *seen[start + 1]] for start in (0, 2))
    assert sorted(first) == sorted(second) and len(set(first)) == 4


def test_rows_of_a_stream_that_are_too_long_are_left_out(tiny_processor, four_phantoms, tmp_path):
    rows = load_dataset(four_phantoms, "chat", split="train", streaming=True)
    plain = GroundingCollator(tiny_processor)
    lengths = sorted(len(plain.pack(row).input_ids) for row in rows)
    collator = GroundingCollator(tiny_processor, max_length=lengths[1], too_long="drop")
    kept = list(streamed_rows(rows, collator, config(tmp_path, max_steps=1)))
    assert len(kept) == sum(length <= lengths[1] for length in lengths) < 4


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_steps": -1}, "its number of rows is not known; set max_steps"),
        ({"balance_by": "modality"}, "balance_by needs all rows"),
        ({"streaming_buffer": 0}, "streaming_buffer is 0, but must be at least 1"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(trainer_of, tiny_checkpoint, fields, said):
    with pytest.raises(ValueError, match=said):
        trainer_of(model_name_or_path=str(tiny_checkpoint), **(STREAMED | fields))


def test_a_new_model_is_not_made_from_a_stream(trainer_of, new_model):
    with pytest.raises(ValueError, match="new_model and detection_loss_weight need all rows"):
        trainer_of(new_model=new_model, **STREAMED)


@pytest.mark.parametrize("weights", [(None, None), (1, 4)])
def test_a_plan_has_the_rows_of_an_epoch(write_recipe, tmp_path, four_phantoms, tiny_checkpoint, weights):
    entries = [{"path": four_phantoms, "name": name} for name in ("vg", "roc")]
    if weights[0]:
        entries = [entry | {"weight": weight} for entry, weight in zip(entries, weights, strict=True)]
    fields = {"model_name_or_path": str(tiny_checkpoint), "dataset_name": None, "datasets": entries}
    path = write_recipe(tmp_path, **fields)
    planned = make_plan(["--config", str(path)], Hardware(devices=1))["data"]
    parts = [load_dataset(four_phantoms, name, split="train") for name in ("vg", "roc")]
    if weights[0]:  # until every row has been drawn
        assert planned["rows"] == max(round(len(parts[0]) * 5), round(len(parts[1]) * 5 / 4))
    else:
        assert planned["rows"] == sum(map(len, parts))
    assert not planned["assumed"]
