"""A packed step is the step of its rows; a packed run resumes, and says what it cannot do."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.train import run
from bird_hf.train.collate import IGNORED
from bird_hf.train.recipe import BirdSFTConfig, packing_default, read_recipe
from bird_hf.train.sft import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]

SGD = {
    "optim": "sgd",
    "learning_rate": 1e-3,
    "max_grad_norm": 0.0,
    "freeze_vision": False,
    "logging_steps": 1,
}
PACKED = {"packing": True, "per_device_train_batch_size": 1, "max_length": 500}


def weights_of(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def seen_batches(trainer):
    """The batches that a trainer computes, each with the step it belongs to."""
    compute, batches = trainer.compute_loss, []

    def counted(model, inputs, *args, **kwargs):
        batches.append((trainer.state.global_step, dict(inputs)))
        return compute(model, inputs, *args, **kwargs)

    trainer.compute_loss = counted
    return batches


def test_a_packed_step_moves_the_weights_as_its_rows_do(trainer_of, tiny_checkpoint):
    after = []
    for fields in ({}, PACKED | {"global_batch_size": 4}):
        trainer = trainer_of(model_name_or_path=str(tiny_checkpoint), **(SGD | fields))
        before, batches = weights_of(trainer.model), seen_batches(trainer)
        trainer.train()
        moved = {name: value - before[name] for name, value in weights_of(trainer.model).items()}
        after.append((moved, trainer.state.log_history[0]))
    (one, log), (other, packed_log) = after
    assert len(batches) > 1 and max(int(batch["row_ids"].max()) for _, batch in batches) > 0
    assert packed_log["loss"] == pytest.approx(log["loss"], rel=1e-5)
    assert packed_log["num_tokens"] == log["num_tokens"]
    assert max(value.abs().max() for value in one.values()) > 1e-4
    torch.testing.assert_close(other, one, atol=2e-6, rtol=1e-3)


def test_every_epoch_trains_every_row_once_in_steps_of_the_recipes_size(trainer_of, tiny_checkpoint):
    trainer = trainer_of(
        model_name_or_path=str(tiny_checkpoint),
        max_steps=-1,
        num_train_epochs=2,
        global_batch_size=3,
        **PACKED,
    )
    batches = seen_batches(trainer)
    trainer.train()
    assert trainer.state.global_step == 4
    images = Counter()
    for step, batch in batches:
        images[step] += len(batch["pixel_values"])
    assert images == {0: 3, 1: 1, 2: 3, 3: 1}


class StopAt3(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 3


@pytest.mark.parametrize("attention", [None, "sdpa"])
def test_a_packed_run_that_was_stopped_ends_as_if_it_had_not(
    write_recipe, tmp_path, tiny_checkpoint, attention
):
    fields = PACKED | {
        "attn_implementation": attention,
        "model_name_or_path": str(tiny_checkpoint),
        "global_batch_size": 2,
        "max_turns": 2,  # drawn by seed and epoch
        "max_steps": 5,
        "save_strategy": "steps",
        "save_steps": 1,
        "learning_rate": 1e-3,
    }
    folders = [tmp_path / name for name in ("unbroken", "stopped")]
    recipes = [write_recipe(folder, **fields) for folder in folders]
    run.main(["--config", str(recipes[0])])
    run.build(run.read(["--config", str(recipes[1])]), [StopAt3()]).train()
    run.main(["--config", str(recipes[1])])
    one, other = (load_file(folder / "run" / "checkpoint-5" / "model.safetensors") for folder in folders)
    torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_a_step_of_pairs(trainer_of, tiny_checkpoint):
    trainer = trainer_of(
        model_name_or_path=str(tiny_checkpoint), global_batch_size=8, global_batch_unit="pairs", **PACKED
    )
    batches = seen_batches(trainer)
    trainer.train()
    answers = sum(
        int((batch["labels"] == trainer.processing_class.tokenizer.eos_token_id).sum())
        for _, batch in batches
    )
    most = int(trainer.packed_steps.lengths.pairs(None).max())
    assert abs(answers - 8) < most
    assert sum(int((batch["labels"] != IGNORED).sum()) for _, batch in batches) > 0


# --- what a recipe says ---------------------------------------------------------------------------------------


def config(tmp_path, **fields) -> BirdSFTConfig:
    return BirdSFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **fields)


def test_a_packed_step_has_the_rows_that_the_recipe_would_have_without(tmp_path):
    plain = config(tmp_path, packing=True, per_device_train_batch_size=2, gradient_accumulation_steps=3)
    assert plain.pack_rows and not plain.packing  # TRL's packing is for text
    assert (plain.global_batch_size, plain.gradient_accumulation_steps) == (6, 1)
    any_number = config(tmp_path, packing=True, global_batch_size=127)
    assert (any_number.global_batch_size, any_number.gradient_accumulation_steps) == (127, 1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"global_batch_unit": "pairs", "global_batch_size": 8}, "global_batch_unit pairs needs packing"),
        ({"packing": True, "max_length": None}, "packing needs max_length"),
        ({"packing": True, "global_batch_size": 0}, "global_batch_size is 0"),
        (
            {"packing": True, "global_batch_size": 8, "gradient_accumulation_steps": 2},
            "contradict each other",
        ),
    ],
)
def test_what_cannot_be_packed_is_refused(tmp_path, fields, said):
    with pytest.raises(ValueError, match=said):
        config(tmp_path, **fields)


@pytest.mark.parametrize(
    ("fields", "cuda", "said"),
    [
        ({}, True, []),
        ({"attn_implementation": "flex_attention"}, True, ["--packing", "true"]),
        ({"attn_implementation": "flex_attention", "packing": False}, True, []),  # the recipe has said so
        ({"attn_implementation": "flex_attention", "use_cpu": "true"}, True, []),
        ({"attn_implementation": "flex_attention"}, False, []),
        ({"attn_implementation": "segments"}, False, ["--packing", "true"]),
        ({"attn_implementation": "segments", "use_cpu": True}, True, ["--packing", "true"]),
        ({"attn_implementation": "segments", "packing": "false"}, False, []),
        ({"attn_implementation": "segments"}, True, []),  # refused later: segments are for CPUs
        ({}, False, []),
        ({"packing": True, "dataset_streaming": True}, True, ["--packing", "false"]),
        (
            {"attn_implementation": "flex_attention", "dataset_streaming": "True"},
            True,
            ["--packing", "false"],
        ),
    ],
)
def test_packing_is_on_by_default_with_attention_that_needs_no_dense_mask(
    monkeypatch, caplog, fields, cuda, said
):
    monkeypatch.setattr("bird_hf.train.recipe.torch.cuda.is_available", lambda: cuda)
    assert packing_default(fields) == said
    assert ("the dataset is streamed" in caplog.text) == (fields.get("dataset_streaming") is True)


@pytest.mark.parametrize("options", [["--packing", "true"], ["--packing=true"], []])
def test_packing_is_read_from_the_recipe_and_the_command_line(write_recipe, tmp_path, options):
    path = write_recipe(tmp_path, model_name_or_path="bird", packing=not options)
    assert read_recipe(["--config", str(path), *options]).training.pack_rows


def test_flex_attention_is_not_trained_on_a_cpu(trainer_of, tiny_checkpoint):
    with pytest.raises(ValueError, match="flex_attention cannot be trained on a CPU"):
        trainer_of(model_name_or_path=str(tiny_checkpoint), attn_implementation="flex_attention")


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize(
    ("name", "language", "vision"),
    [(None, "segments", "sdpa"), ("segments", "segments", "sdpa"), ("sdpa", "sdpa", "sdpa")],
)
def test_on_a_cpu_the_language_model_alone_attends_by_segments(
    trainer_of, tiny_checkpoint, name, language, vision, packing
):
    trainer = trainer_of(
        model_name_or_path=str(tiny_checkpoint),
        attn_implementation=name,
        global_batch_size=4,
        **PACKED | {"packing": packing, "per_device_train_batch_size": 2},
    )
    model = trainer.model
    assert model.model.language_model.config._attn_implementation == language
    assert model.model.vision_tower.config._attn_implementation == vision
    assert model.model.resampler.config._attn_implementation == vision


def test_what_was_trained_by_segments_generates_and_opens_without_them(trainer_of, tiny_checkpoint):
    trainer = trainer_of(
        model_name_or_path=str(tiny_checkpoint),
        packing=True,
        max_length=500,
        eval_strategy="steps",
        dataset_test_split="train",
        eval_steps=1,
    )
    folder = train(trainer)
    assert [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert not [path for path in folder.rglob("*.json") if "segments" in path.read_text(encoding="utf-8")]
    ids = torch.tensor([[1, 1, 5, 6], [7, 8, 9, 10]])
    asked = {"input_ids": ids, "attention_mask": (ids != 1).long(), "max_new_tokens": 4, "do_sample": False}
    opened = BirdForConditionalGeneration.from_pretrained(folder)
    assert opened.model.language_model.config._attn_implementation == "sdpa"
    assert torch.equal(trainer.model.eval().generate(**asked), opened.generate(**asked))


def test_rows_without_an_image_are_trained_only_if_the_recipe_says_so(
    trainer_of, tiny_checkpoint, four_phantoms, monkeypatch
):
    from bird_hf.train import run as module

    load = module.load_split

    def without_pixels(script, split):
        rows = load(script, split)
        return rows.map(lambda row: row | {"image": None}, features=rows.features)

    monkeypatch.setattr(module, "load_split", without_pixels)
    with pytest.raises(ValueError, match="4 of 4 rows have no image"):
        trainer_of(model_name_or_path=str(tiny_checkpoint))
    trainer_of(model_name_or_path=str(tiny_checkpoint), text_only=True).train()


def test_two_processes_train_what_one_trains(forked_python, write_recipe, tmp_path, tiny_checkpoint):
    """Steps of three rows and of one: in the second, one process has a row that does not count."""
    fields = SGD | PACKED | {"model_name_or_path": str(tiny_checkpoint), "global_batch_size": 3}
    fields |= {"max_steps": 2, "save_strategy": "steps", "save_steps": 2, "max_length": 300}
    found = []
    for processes in (1, 2):
        recipe = write_recipe(tmp_path / str(processes), **fields)
        command = [
            forked_python,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={processes}",
        ]
        command += ["-m", "bird_hf.cli", "train", "--config", recipe]
        environment = os.environ | {"PYTHON_EXEC": str(forked_python)}  # with which torchrun starts processes
        ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert ran.returncode == 0, ran.stderr[-3000:]
        folder = tmp_path / str(processes) / "run" / "checkpoint-2"
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        history = [(entry["loss"], entry["num_tokens"]) for entry in state["log_history"]]
        found.append((load_file(folder / "model.safetensors"), history))
    (one, history), (two, other) = found
    assert [loss for loss, _ in other] == pytest.approx([loss for loss, _ in history], rel=1e-5)
    torch.testing.assert_close(two, one, atol=2e-6, rtol=1e-4)
