"""recipes/paper.yaml, run for three steps on a tiny model: what trains, at which rates, on how many rows."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from transformers import TrainerCallback

from bird_hf.data.folder.publish import image_cell, publish
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality, Task
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.train.recipe import Recipe, accumulation_steps, read_recipe
from bird_hf.train.sft import build_trainer, load_split

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[2] / "recipes"
PEAK = 2e-5
GLOBAL_BATCH = 128
STEPS, WARMUP = 150, 2  # of the whole run below, two epochs; 1 % of its steps, rounded up

FROZEN = """
    model.vision_tower.position_embedding
    model.vision_tower.patch_embedding.weight
    model.vision_tower.pre_norm.{weight,bias}
    model.vision_tower.blocks.N.attention_norm.{weight,bias}
    model.vision_tower.blocks.N.attention.{q,k,v,out}_proj.{weight,bias}
    model.vision_tower.blocks.N.mlp_norm.{weight,bias}
    model.vision_tower.blocks.N.mlp.{fc1,fc2}.{weight,bias}
    model.projector.norm.{weight,bias}
    model.projector.linear.weight
"""
TRAINED = """
    model.resampler.query
    model.resampler.kv_proj.weight
    model.resampler.{query,kv}_norm.{weight,bias}
    model.resampler.attention.{q,k,v,out}_proj.{weight,bias}
    model.language_model.embed_tokens.weight
    model.language_model.layers.N.self_attn.{q,k,v}_proj.{weight,bias}
    model.language_model.layers.N.self_attn.o_proj.weight
    model.language_model.layers.N.mlp.{gate,up,down}_proj.weight
    model.language_model.layers.N.{input,post_attention}_layernorm.weight
    model.language_model.norm.weight
    lm_head.weight
"""


def expand(pattern: str) -> list[str]:
    """`a.{b,c}` -> [`a.b`, `a.c`]."""
    braces = re.search(r"\{(.*?)\}", pattern)
    if not braces:
        return [pattern]
    head, tail = pattern[: braces.start()], pattern[braces.end() :]
    return [name for choice in braces[1].split(",") for name in expand(head + choice + tail)]


def named(patterns: str) -> set[str]:
    return {name for pattern in patterns.split() for name in expand(pattern)}


def without_numbers(names) -> set[str]:
    return {re.sub(r"\.\d+\.", ".N.", name) for name in names}


class FirstThreeSteps(TrainerCallback):
    """Notes the learning rate that each step is made with, and ends the run after the third."""

    def __init__(self):
        self.rates: list[float] = []

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        (rate,) = {group["lr"] for group in optimizer.param_groups}
        self.rates.append(rate)

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 3


def paper_recipe(**fields) -> Recipe:
    arguments = [text for name, value in fields.items() for text in (f"--{name}", str(value))]
    return read_recipe(["--config", str(RECIPES / "paper.yaml"), *arguments])


@pytest.fixture(scope="module", autouse=True)
def _same_environment_after():
    """Training arguments set variables of the environment."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_checkpoint):
    """Three steps of the recipe: (trainer, weights before, learning rates, rows and sequences of each batch)."""
    folder = tmp_path_factory.mktemp("paper")
    dialogues = []
    for seed, modality in enumerate(Modality):
        image = draw_phantom(modality, seed, 64)
        turns = {Task.VISUAL_GROUNDING: 1, Task.REFERRING_CLASSIFICATION: 1}
        dialogue = write_dialogue(record_of(image), np.random.default_rng(seed), turns, absent=0)
        dialogues.append((dialogue, image_cell(image)))
    publish({"train": dialogues}, folder / "med-grit", "# Eight phantoms\n")
    recipe = paper_recipe(
        model_name_or_path=tiny_checkpoint,
        dataset_name=folder / "med-grit",
        output_dir=folder / "run",
        use_cpu=True,
    )
    rows = load_split(recipe.script, "train")
    rows = rows.select([index % len(rows) for index in range(STEPS * GLOBAL_BATCH // 2)])
    noting = FirstThreeSteps()
    trainer = build_trainer(recipe, rows, callbacks=[noting])
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    losses_of, batches = trainer.compute_loss, []

    def counted(model, inputs, *args, **kwargs):
        batches.append((len(inputs["pixel_values"]), len(inputs["input_ids"])))  # a row has one image
        return losses_of(model, inputs, *args, **kwargs)

    trainer.compute_loss = counted
    trainer.train()
    return trainer, before, noting.rates, batches


def test_the_adapter_and_the_language_model_train_and_vision_is_frozen(run):
    trainer, before, _, _ = run
    after = dict(trainer.model.named_parameters())
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert without_numbers(moved) == named(TRAINED)
    assert without_numbers(after.keys() - moved) == named(FROZEN)
    assert moved == {name for name, value in after.items() if value.requires_grad}


def test_the_learning_rate_warms_up_over_a_hundredth_and_falls_as_a_cosine(run):
    trainer, _, rates, _ = run

    def expected(step: int) -> float:
        if step < WARMUP:
            return PEAK * step / WARMUP
        return PEAK * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))

    assert trainer.state.max_steps == STEPS
    assert rates == pytest.approx([0.0, PEAK / 2, PEAK])
    (of_step,) = set(trainer.lr_scheduler.lr_lambdas)
    for step in (0, 1, 2, 3, 38, 76, 149, 150):
        assert PEAK * of_step(step) == pytest.approx(expected(step), abs=1e-12)
    assert (expected(76), expected(150)) == pytest.approx((PEAK / 2, 0))


def test_a_step_is_128_rows(run):
    _, _, rates, batches = run
    assert len(rates) == 3
    assert sum(rows for rows, _ in batches) == 3 * GLOBAL_BATCH
    assert max(sequences for _, sequences in batches) == 4
    assert all(rows > 2 * sequences for rows, sequences in batches)


def test_the_optimizer_is_adamw_with_the_originals_settings(run):
    trainer, _, _, _ = run
    optimizer = trainer.optimizer.optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}
    decays = {
        name: group["weight_decay"] for group in optimizer.param_groups for name in _names(trainer, group)
    }
    assert {decay for name, decay in decays.items() if "norm" not in name and "bias" not in name} == {0.1}
    assert trainer.args.bf16 and trainer.args.max_length == 2048


def _names(trainer, group) -> list[str]:
    own = {id(parameter) for parameter in group["params"]}
    return [name for name, parameter in trainer.model.named_parameters() if id(parameter) in own]


@pytest.mark.parametrize(
    ("gpus", "per_device", "accumulated"), [(1, 4, 32), (4, 4, 8), (8, 4, 4), (8, 16, 1)]
)
def test_the_batch_stays_128_on_any_number_of_gpus(gpus, per_device, accumulated):
    assert accumulation_steps(GLOBAL_BATCH, per_device, gpus) == accumulated


@pytest.mark.parametrize(("gpus", "per_device"), [(3, 4), (64, 4), (1, 5)])
def test_a_number_of_gpus_that_does_not_divide_128_is_refused(monkeypatch, tmp_path, gpus, per_device):
    monkeypatch.setenv("WORLD_SIZE", str(gpus))
    fields = {"output_dir": tmp_path, "use_cpu": True, "per_device_train_batch_size": per_device}
    with pytest.raises(ValueError, match=f"global_batch_size 128 .* {gpus} process") as error:
        paper_recipe(**fields, packing=False)
    assert "\n" not in str(error.value)


def test_accumulation_that_contradicts_the_global_batch_is_refused(tmp_path):
    unpacked = {"output_dir": tmp_path, "use_cpu": True, "packing": False}
    assert paper_recipe(**unpacked).training.gradient_accumulation_steps == 32
    for fields in (unpacked, unpacked | {"packing": True}):
        with pytest.raises(ValueError, match="gradient_accumulation_steps 8 and global_batch_size 128"):
            paper_recipe(**fields, gradient_accumulation_steps=8)


def test_every_setting_states_its_source():
    for line in (RECIPES / "paper.yaml").read_text(encoding="utf-8").splitlines():
        if re.match(r"\w+:", line):
            assert re.search(r" # (4\.2|script|ours)", line), line


def test_deepspeed_settings_are_zero_stage_2_and_leave_the_batch_to_the_recipe():
    settings = HfDeepSpeedConfig(str(RECIPES / "zero2.json"))
    assert settings.is_zero2()
    assert (
        settings.get_value("gradient_accumulation_steps") == settings.get_value("train_batch_size") == "auto"
    )


def test_its_data_may_be_a_named_subset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "bird_hf.train.sft.load_dataset", lambda *names, **options: asked.append((names, options))
    )
    recipe = paper_recipe(
        dataset_name="med-grit", dataset_config="chat_20k", output_dir=tmp_path, use_cpu=True
    )
    load_split(recipe.script, recipe.script.dataset_train_split)
    assert asked == [(("med-grit", "chat_20k"), {"split": "train", "streaming": False})]
