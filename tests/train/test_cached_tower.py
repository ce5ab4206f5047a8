"""With `cache_image_features` a run has the losses that it has without, and computes each image once."""

import json
import os
import subprocess

import pytest
import torch

from bird_hf.train.cached_tower import IMAGE_FEATURES, PATCH_STATES, bird_model, what_is_kept
from bird_hf.train.from_scratch.config import FromScratchConfig

LORA = {"use_peft": True, "lora_r": 4, "lora_target_modules": r".*language_model.*\.(q|v)_proj"}
TWO_EPOCHS = {"max_steps": 4, "per_device_train_batch_size": 2, "logging_steps": 1, "learning_rate": 1e-3}

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]


def count_images(trainer):
    """The images that the tower computes from now on, call by call."""
    counts = []
    tower = bird_model(trainer.model).vision_tower
    tower.register_forward_hook(lambda module, given, output: counts.append(len(output.last_hidden_state)))
    return counts


def losses_of(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        pytest.param({}, PATCH_STATES, id="float32"),
        pytest.param({"bf16": True, "gradient_checkpointing": True}, PATCH_STATES, id="bf16 autocast"),
        pytest.param({"dtype": "bfloat16"}, PATCH_STATES, id="bf16 weights"),
        pytest.param(LORA | {"bf16": True}, IMAGE_FEATURES, id="all below the language model frozen"),
    ],
)
def test_losses_are_those_without_it_and_each_image_is_computed_once(
    trainer_of, tiny_checkpoint, tmp_path, fields, kept
):
    fields = TWO_EPOCHS | fields | {"model_name_or_path": str(tiny_checkpoint)}
    plain = trainer_of(**fields)
    seen = count_images(plain)
    expected = losses_of(plain)
    assert len(set(expected)) == 4 and sum(seen) == 8

    cached = trainer_of(**fields, cache_image_features=str(tmp_path / "features"))
    assert cached.cached_tower.kept == kept
    seen = count_images(cached)
    assert losses_of(cached) == expected
    assert sum(seen) == 4  # of the first epoch
    for name, value in plain.model.named_parameters():
        assert torch.equal(value, cached.model.get_parameter(name)), name

    again = trainer_of(**fields, cache_image_features=str(tmp_path / "features"))
    seen = count_images(again)
    assert losses_of(again) == expected and not seen


def test_an_evaluation_reads_the_store_too(trainer_of, tiny_checkpoint, tmp_path):
    trainer = trainer_of(
        model_name_or_path=str(tiny_checkpoint), cache_image_features=str(tmp_path / "features")
    )
    seen = count_images(trainer)
    first, second = (trainer.evaluate(trainer.train_dataset)["eval_loss"] for _ in range(2))
    assert first == second and sum(seen) == 4


def test_a_changed_image_is_another_image(trainer_of, batch_of, tiny_checkpoint, tmp_path):
    trainer = trainer_of(
        model_name_or_path=str(tiny_checkpoint), cache_image_features=str(tmp_path / "features")
    )
    batch, seen = batch_of(trainer, 2), count_images(trainer)
    trainer.cached_tower.replace_pixels(batch)
    batch["pixel_values"][1] = batch["pixel_values"][1].flip(-1)  # as an augmentation would
    del batch["image_keys"]
    given = trainer.cached_tower.replace_pixels(batch)
    assert seen == [2, 1]
    with torch.no_grad():
        expected = bird_model(trainer.model).vision_tower(batch["pixel_values"]).last_hidden_state
    torch.testing.assert_close(given[PATCH_STATES], expected)


def test_weights_that_differ_share_no_record(trainer_of, batch_of, tiny_checkpoint, tmp_path):
    counts = []
    for change in (0.0, 1e-3):
        trainer = trainer_of(
            model_name_or_path=str(tiny_checkpoint), cache_image_features=str(tmp_path / "features")
        )
        with torch.no_grad():
            bird_model(trainer.model).vision_tower.pre_norm.bias += change
        seen = count_images(trainer)
        trainer.cached_tower.replace_pixels(batch_of(trainer))
        counts.append(sum(seen))
    assert counts == [4, 4]


REFUSED = [
    pytest.param(
        {"freeze_vision": False}, "needs a frozen vision tower; set freeze_vision: true", id="trained"
    ),
    pytest.param(
        LORA | {"lora_target_modules": r".*vision_tower.*q_proj"},
        "no LoRA in the tower",
        id="LoRA in the tower",
    ),
    pytest.param(
        {"cache_image_features_gb": 1e-6},
        r"needs 0\.00 GB: 4 images of 16 x 32 values of 4 bytes; cache_image_features_gb is 1e-06: raise it",
        id="too small",
    ),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_it_is_refused_beforehand_in_one_line(trainer_of, tiny_checkpoint, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message) as error:
        trainer_of(
            model_name_or_path=str(tiny_checkpoint), cache_image_features=str(tmp_path / "features"), **fields
        )
    assert "\n" not in str(error.value) and not (tmp_path / "features").exists()


def test_training_from_scratch_which_trains_the_tower_refuses_it(tmp_path):
    with pytest.raises(
        ValueError, match="cache_image_features needs a frozen vision tower; this recipe trains it"
    ):
        FromScratchConfig(
            output_dir=str(tmp_path), cache_image_features=str(tmp_path), bf16=False, use_cpu=True
        )


def test_what_is_kept_follows_from_what_is_trained(trainer_of, tiny_checkpoint):
    model = bird_model(trainer_of(model_name_or_path=str(tiny_checkpoint)).model)
    assert what_is_kept(model) == PATCH_STATES
    model.resampler.requires_grad_(False)
    assert what_is_kept(model) == IMAGE_FEATURES


PROCESS = """
import json, os, sys
from pathlib import Path
from bird_hf.train import run
from bird_hf.train.cached_tower import bird_model
trainer = run.build(run.read(["--config", sys.argv[1]]))
seen = []
tower = bird_model(trainer.model).vision_tower
tower.register_forward_hook(lambda module, given, output: seen.append(len(output.last_hidden_state)))
trainer.train()
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
Path(sys.argv[2], os.environ["RANK"] + ".json").write_text(json.dumps([sum(seen), losses]))
"""


def test_two_processes_share_one_store(forked_python, write_recipe, tmp_path, tiny_checkpoint):
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    fields = TWO_EPOCHS | {
        "per_device_train_batch_size": 1,
        "max_steps": 6,
        "model_name_or_path": str(tiny_checkpoint),
    }
    found = []
    for number, features in enumerate((None, str(tmp_path / "features"))):
        recipe = write_recipe(tmp_path / str(number), cache_image_features=features, **fields)
        command = [forked_python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command += [script, recipe, tmp_path]
        environment = os.environ | {"PYTHON_EXEC": str(forked_python)}  # with which torchrun starts processes
        subprocess.run(command, check=True, timeout=600, capture_output=True, env=environment)
        found.append([json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)])
    plain, cached = found
    assert sum(images for images, _ in plain) == 12  # two processes, three epochs
    assert sum(images for images, _ in cached) == 4
    assert cached[0][1] == plain[0][1] and len(set(plain[0][1])) == 6
