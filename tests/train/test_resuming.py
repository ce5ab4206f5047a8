"""A run goes on from its last whole checkpoint, as it was begun; what is bad stops it and is not kept as good."""

from __future__ import annotations

import json
import logging
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bird_hf.train import run, sft
from bird_hf.train.checkpoints import MANIFEST, fault_of, last_whole_checkpoint, write_manifest
from bird_hf.train.saving import save_for_use

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A folder with the kinds of files of a checkpoint, and its manifest."""
    folder = tmp_path / "run" / "checkpoint-2"
    (folder / "global_step2").mkdir(parents=True)
    save_file({"weight": torch.ones(3)}, folder / "model.safetensors")
    (folder / "global_step2" / "states.pt").write_bytes(b"12345")
    write_manifest(folder)
    return folder


def run_fields(tiny_checkpoint: Path, **fields) -> dict:
    return {
        "model_name_or_path": str(tiny_checkpoint),
        "max_steps": 4,
        "per_device_train_batch_size": 1,
        "save_strategy": "steps",
        "save_steps": 2,
        "lr_scheduler_type": "linear",
    } | fields


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


# --- which checkpoints are whole ------------------------------------------------------------------------------


def test_a_checkpoint_with_its_manifest_is_whole(checkpoint):
    assert fault_of(checkpoint) is None
    assert last_whole_checkpoint(checkpoint.parent) == checkpoint


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (
            lambda folder: (folder / MANIFEST).unlink(),
            "manifest.json is missing",
        ),  # killed while it was written
        (lambda folder: (folder / MANIFEST).write_text("{"), "manifest.json is damaged"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "manifest.json is damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (
            lambda folder: (folder / "global_step2" / "states.pt").write_bytes(b"1"),
            "states.pt has 1 of 5 bytes",
        ),
        # of the right size, but nothing that opens
        (
            lambda folder: (folder / "model.safetensors").write_bytes(
                b"\0" * (folder / "model.safetensors").stat().st_size
            ),
            "model.safetensors is damaged",
        ),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_passed_over(checkpoint, caplog, damage, fault):
    damage(checkpoint)
    assert fault in str(fault_of(checkpoint))
    with caplog.at_level(logging.WARNING):
        assert last_whole_checkpoint(checkpoint.parent) is None
    assert "checkpoint-2 is not whole" in caplog.text


def test_a_run_killed_while_a_checkpoint_was_written_goes_on_from_the_one_before(
    write_recipe, tmp_path, tiny_checkpoint
):
    folders = [tmp_path / name for name in ("unbroken", "killed")]
    recipes = [write_recipe(folder, **run_fields(tiny_checkpoint)) for folder in folders]
    run.main(["--config", str(recipes[0])])
    run.build(run.read(["--config", str(recipes[1])])).train()
    killed = folders[1] / "run"
    (killed / "checkpoint-4" / MANIFEST).unlink()
    weights = killed / "checkpoint-4" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    final = run.main(["--config", str(recipes[1])])
    torch.testing.assert_close(weights_in(final), weights_in(folders[0] / "run" / "final"), atol=0, rtol=0)
    assert fault_of(killed / "checkpoint-4") is None


def test_a_run_killed_before_its_model_was_saved_takes_no_further_step(
    write_recipe, tmp_path, tiny_checkpoint
):
    recipe = write_recipe(tmp_path / "run-once", **run_fields(tiny_checkpoint))
    run.build(run.read(["--config", str(recipe)])).train()
    saved = {
        name: value.bfloat16() for name, value in weights_in(tmp_path / "run-once/run/checkpoint-4").items()
    }
    final = run.main(["--config", str(recipe)])
    torch.testing.assert_close(weights_in(final), saved, atol=0, rtol=0)


def test_a_full_disk_at_a_checkpoint_is_one_line_and_earlier_checkpoints_stay(
    write_recipe, tmp_path, tiny_checkpoint
):
    """The operating system refuses to write more than the weights, as it refuses to write on a full disk."""
    fields = run_fields(tiny_checkpoint, save_total_limit=1, max_steps=2)
    recipe = write_recipe(tmp_path / "full", **fields)
    run.main(["--config", str(recipe)])
    output = tmp_path / "full" / "run"
    weights = (output / "checkpoint-2" / "model.safetensors").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (weights + 1000, hard)
    )  # the optimizer's file is twice as large
    try:
        with pytest.raises(ValueError, match="checkpoint-4 cannot be written, and earlier") as error:
            run.main(["--config", str(recipe), "--max_steps", "4"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert last_whole_checkpoint(output) == output / "checkpoint-2"
    assert not (output / "checkpoint-4").exists()


# --- a run is continued as it was begun -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"learning_rate": 1e-3}, r"learning_rate was 2e-05, now 0\.001"),
        ({"dataset_config": "vg"}, "dataset_config was chat, now vg"),
        ({"use_peft": True}, "use_peft was False, now True"),
        ({"max_steps": 3}, "max_steps was 4, now 3"),
        ({"per_device_train_batch_size": 2}, "rows per step was 1, now 2"),
        ({"seed": 7, "weight_decay": 0.5}, "seed was 42, now 7; weight_decay was 0.0, now 0.5"),
    ],
)
def test_another_recipe_in_the_same_folder_is_refused(write_recipe, tmp_path, tiny_checkpoint, fields, said):
    begun = run.read(["--config", str(write_recipe(tmp_path, **run_fields(tiny_checkpoint)))])
    run.resuming.record(begun)
    (tmp_path / "run" / "checkpoint-2").mkdir()
    recipe = write_recipe(tmp_path, **run_fields(tiny_checkpoint) | fields)
    with pytest.raises(ValueError, match=f"run holds a run of another recipe .*{said}") as error:
        run.main(["--config", str(recipe)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"logging_steps": 1, "disable_tqdm": False},
        {"save_steps": 3, "save_total_limit": 1},
        {"max_steps": 8},  # longer
        {"per_device_train_batch_size": 1, "global_batch_size": 1},  # the same rows per step
        {"gradient_checkpointing": True},
    ],
    ids=str,
)
def test_fields_that_change_no_weight_may_differ(write_recipe, tmp_path, tiny_checkpoint, fields):
    run.resuming.record(run.read(["--config", str(write_recipe(tmp_path, **run_fields(tiny_checkpoint)))]))
    (tmp_path / "run" / "checkpoint-2").mkdir()
    changed = run.read(["--config", str(write_recipe(tmp_path, **run_fields(tiny_checkpoint) | fields))])
    assert run.resuming.finished_model(changed) is None


def test_a_recipe_may_be_changed_before_anything_was_saved(write_recipe, tmp_path, tiny_checkpoint):
    run.resuming.record(run.read(["--config", str(write_recipe(tmp_path, **run_fields(tiny_checkpoint)))]))
    changed = run.read(["--config", str(write_recipe(tmp_path, **run_fields(tiny_checkpoint, seed=7)))])
    assert run.resuming.finished_model(changed) is None


def test_a_finished_run_is_left_as_it_is(write_recipe, tmp_path, tiny_checkpoint, caplog):
    recipe = write_recipe(tmp_path, **run_fields(tiny_checkpoint))
    final = run.main(["--config", str(recipe)])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    with caplog.at_level(logging.INFO):
        assert run.main(["--config", str(recipe)]) == final
    assert "was finished after 4 steps; nothing to do" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_a_token_is_not_written_into_the_record(write_recipe, tmp_path, tiny_checkpoint):
    fields = run_fields(tiny_checkpoint, hub_token="hf_secret")
    run.resuming.record(run.read(["--config", str(write_recipe(tmp_path, **fields))]))
    assert "hf_secret" not in (tmp_path / "run" / "run.json").read_text()


# --- what is bad stops the run --------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_batch(
    trainer_of, tmp_path, broken_checkpoint, monkeypatch
):
    trainer = trainer_of(model_name_or_path=str(broken_checkpoint), max_steps=3)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    with pytest.raises(
        ValueError, match=r"the loss is nan at step 1 \(rows .*bad-batch-1-process-0"
    ) as error:
        sft.train(trainer)
    assert "\n" not in str(error.value)
    folder = tmp_path / "run" / "bad-batch-1-process-0"
    facts = json.loads((folder / "batch.json").read_text())
    names = {row["image_id"] for row in trainer.train_dataset}
    assert facts["loss"] == "nan" and facts["step"] == 1 and set(facts["rows"]) == names
    batch = load_file(folder / "batch.safetensors")
    assert torch.isfinite(batch["pixel_values"]).all()
    with torch.no_grad():
        outputs = trainer.model(**batch)  # as docs/train_on_gpus.md opens it
    assert torch.isnan(outputs.loss)
    for name, value in trainer.model.named_parameters():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0, equal_nan=True)
    assert not (tmp_path / "run" / "final").exists()


def test_a_gradient_that_is_not_finite_stops_the_run(trainer_of, tmp_path, tiny_checkpoint):
    trainer = trainer_of(model_name_or_path=str(tiny_checkpoint), max_steps=3)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.model.model.resampler.query.register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(ValueError, match="the gradient is nan at step 1, though the loss is not") as error:
        sft.train(trainer)
    assert "\n" not in str(error.value)
    for name, value in trainer.model.named_parameters():
        assert torch.equal(value, before[name]), name
    assert not (tmp_path / "run" / "final").exists()


def test_weights_that_are_not_finite_are_not_kept_as_a_model(trainer_of, tmp_path, broken_checkpoint):
    trainer = trainer_of(model_name_or_path=str(broken_checkpoint))
    with pytest.raises(ValueError, match=r"out: model\.language_model\.norm\.weight holds NaN or infinity"):
        save_for_use(trainer, tmp_path / "out")
    assert not (tmp_path / "out").exists()
