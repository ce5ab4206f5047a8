"""A recipe is trained as it says, stops and goes on, and gives a checkpoint that opens."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import TrainerCallback
from trl import TrlParser

from bird_hf.checkpoint.load import load_checkpoint
from bird_hf.data.folder.publish import image_cell, publish
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality, Task
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.train import sft
from bird_hf.train.recipe import BirdSFTConfig
from bird_hf.train.sft import build_trainer, load_training_data, main, save_for_use

ROWS = 4
NEW_MODEL = {
    "vocab_size": 560,
    "vision_config": {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "position_grid": 4,
        "num_queries": 4,
        "resampler_hidden_size": 32,
        "resampler_num_attention_heads": 2,
    },
    "text_config": {
        "model_type": "qwen2",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
}
PLAIN = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
    "lr_scheduler_type": "constant",
    "per_device_train_batch_size": ROWS,
    "max_steps": 1,
}


@pytest.fixture(autouse=True)
def _own_place(tmp_path, monkeypatch):
    """What a run leaves beside its output goes into the test's folder; training arguments set no environment."""
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    wanted = {Task.VISUAL_GROUNDING: 2, Task.REFERRING_CLASSIFICATION: 1}
    dialogues = []
    for seed, modality in enumerate((Modality.CT, Modality.FUNDUS, Modality.PET, Modality.MR)):
        image = draw_phantom(modality, seed, 64)
        dialogue = write_dialogue(record_of(image), np.random.default_rng(seed), wanted, absent=1)
        dialogues.append((dialogue, image_cell(image)))
    folder = tmp_path_factory.mktemp("data") / "med-grit"
    publish({"train": dialogues}, folder, "# Four phantoms\n")
    return str(folder)


def trainer_of(data, tmp_path, callbacks=(), **fields):
    config = BirdSFTConfig(**PLAIN | {"output_dir": str(tmp_path / "run"), "data": data} | fields)
    return build_trainer(config, load_training_data(config), callbacks)


def weights_of(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def write_recipe(folder, data, **fields) -> Path:
    recipe = PLAIN | {"data": data, "output_dir": str(folder / "run"), "new_model": NEW_MODEL} | fields
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


# --- the loss -------------------------------------------------------------------------------------------------


def test_loss_is_the_weighted_likelihood_of_the_answers_by_their_tokens(data, tmp_path, tiny_checkpoint):
    trainer = trainer_of(
        data,
        tmp_path,
        model=str(tiny_checkpoint),
        digit_weights=[3.0, 2.0, 0.5],
        punctuation_weight=0.25,
        text_weight=0.75,
    )
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(ROWS)])
    model = trainer.model.eval()
    weights, labels = batch["loss_weights"][:, 1:], batch["labels"][:, 1:]
    assert set(weights[labels != -100].tolist()) == {3.0, 2.0, 0.5, 0.25, 0.75}
    seen = {name: value for name, value in batch.items() if name not in ("labels", "loss_weights")}
    with torch.no_grad():
        nll = torch.nn.functional.cross_entropy(
            model(**seen).logits[:, :-1].transpose(1, 2), labels, reduction="none"
        )
        loss = trainer.compute_loss(model, dict(batch))
        of_more = trainer.compute_loss(model, dict(batch), num_items_in_batch=torch.tensor(1000))
    expected = (nll * weights)[labels != -100].sum()
    torch.testing.assert_close(loss, expected / (labels != -100).sum())
    torch.testing.assert_close(of_more, expected / 1000)


def test_slots_add_their_loss_to_that_of_the_answers(data, tmp_path, tiny_checkpoint):
    losses = []
    for weight in (0.0, 0.5, 1.0):
        trainer = trainer_of(data, tmp_path, model=str(tiny_checkpoint), slot_loss_weight=weight)
        batch = trainer.data_collator([trainer.train_dataset[index] for index in range(ROWS)])
        assert ("slot_classes" in batch) == bool(weight)
        trainer.current_gradient_accumulation_steps = 1
        with torch.no_grad():
            losses.append(trainer.compute_loss(trainer.model.eval(), batch).item())
    assert losses[0] < losses[1] < losses[2]
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-3)


def rates_of(trainer, steps):
    trainer.create_optimizer_and_scheduler(steps)
    rates = []
    for _ in range(steps):
        rates.append(trainer.lr_scheduler.get_last_lr()[0])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    return rates


def test_what_comes_first_has_a_schedule_of_its_own(data, tmp_path):
    trainer = trainer_of(
        data,
        tmp_path,
        new_model=NEW_MODEL,
        freeze_vision=False,
        max_steps=10,
        slot_loss_weight=1.0,
        slot_warmup_steps=4,
        warmup_steps=1,
        lr_scheduler_type="linear",
        learning_rate=1.0,
    )
    assert rates_of(trainer, 10) == pytest.approx([0, 1, 2 / 3, 1 / 3, 0, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5])


QUESTIONS_FIRST = {
    "new_model": NEW_MODEL | {"text_config": NEW_MODEL["text_config"] | {"num_hidden_layers": 4}},
    "freeze_vision": False,
    "attn_implementation": "dense",
    "slot_loss_weight": 1.0,
    "look_loss_weight": 1.0,
    "look_layers": [0, 1],
    "slot_warmup_steps": 2,
    "question_warmup_steps": 3,
}


def test_each_stage_has_a_schedule_of_its_own(data, tmp_path):
    fields = {"max_steps": 9, "lr_scheduler_type": "linear", "learning_rate": 1.0}
    trainer = trainer_of(data, tmp_path, **QUESTIONS_FIRST, **fields)
    assert rates_of(trainer, 9) == pytest.approx([1, 1 / 2, 1, 2 / 3, 1 / 3, 1, 3 / 4, 1 / 2, 1 / 4])


def layers_trained(trainer, step):
    """The parts and layers that a step of that number trains."""
    trainer.current_gradient_accumulation_steps, trainer.state.global_step = 1, step
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(ROWS)])
    trainer.compute_loss(trainer.model.train(), batch).backward()
    names = {name for name, weight in trainer.model.named_parameters() if weight.grad is not None}
    layers = {int(name.split(".layers.")[1].split(".")[0]) for name in names if ".layers." in name}
    parts = {part for part in ("vision_tower", "question_head") if any(part in name for name in names)}
    return layers, parts


@pytest.mark.parametrize(
    ("step", "keep_looks", "layers", "parts"),
    [
        (1, False, set(), {"vision_tower"}),
        (2, False, {0, 1}, {"vision_tower", "question_head"}),
        (4, True, {0, 1}, {"vision_tower", "question_head"}),
        (5, False, {0, 1, 2, 3}, {"vision_tower", "question_head"}),
        (5, True, {2, 3}, set()),
    ],
    ids=["slots", "questions", "questions, looks kept later", "answers", "answers, looks kept"],
)
def test_each_stage_trains_the_layers_that_it_is_for(data, tmp_path, step, keep_looks, layers, parts):
    trainer = trainer_of(data, tmp_path, max_steps=9, **QUESTIONS_FIRST, keep_looks=keep_looks)
    assert layers_trained(trainer, step) == (layers, parts)


def test_a_part_of_the_rows_is_answered(data, tmp_path):
    """The loss of three rows, the first of which is answered, is that of the first alone."""
    trainer = trainer_of(data, tmp_path, max_steps=9, **QUESTIONS_FIRST, keep_looks=True, answer_rows=1)
    trainer.current_gradient_accumulation_steps, trainer.state.global_step = 1, 5
    rows = [trainer.train_dataset[index] for index in range(3)]
    with torch.no_grad():
        three, one = (
            trainer.compute_loss(trainer.model.train(), trainer.data_collator(rows[:count]))
            for count in (3, 1)
        )
    torch.testing.assert_close(three, one)


def test_questions_need_to_look(data, tmp_path):
    with pytest.raises(ValueError, match="question_warmup_steps needs look_loss_weight"):
        trainer_of(data, tmp_path, **QUESTIONS_FIRST | {"look_loss_weight": 0.0})
    with pytest.raises(ValueError, match="keep_looks needs question_warmup_steps"):
        trainer_of(data, tmp_path, **QUESTIONS_FIRST | {"question_warmup_steps": 0, "keep_looks": True})
    with pytest.raises(ValueError, match="answer_rows needs keep_looks, and no gradient_accumulation_steps"):
        trainer_of(data, tmp_path, **QUESTIONS_FIRST, answer_rows=1)
    for layers in ([0, 4], [-1]):
        with pytest.raises(ValueError, match=r"look_layers \[.*\]: the language model has 4, from 0 on"):
            trainer_of(data, tmp_path, **QUESTIONS_FIRST | {"look_layers": layers})


def test_a_run_of_all_stages_leaves_a_model_that_opens(data, tmp_path):
    final = main(["--config", str(write_recipe(tmp_path, data, **QUESTIONS_FIRST, max_steps=7))])
    assert not [
        name for name in load_file(final / "model.safetensors") if "_head." in name and "lm_head" not in name
    ]
    load_checkpoint(final)


def test_whole_numbers_have_their_bell_in_the_trainers_loss(data, tmp_path):
    """The trainer's loss, where numbers are tokens, is that of the answers with a bell for each number."""
    sizes = NEW_MODEL | {"whole_numbers": True}
    trainers = [trainer_of(data, tmp_path, new_model=sizes, number_spread=spread) for spread in (1e-3, 5.0)]
    plain = trainer_of(data, tmp_path, new_model=sizes)
    batch = plain.data_collator([plain.train_dataset[index] for index in range(ROWS)])
    with torch.no_grad():
        exact, sharp, soft = (
            trainer.compute_loss(trainer.model.eval(), dict(batch)).item() for trainer in (plain, *trainers)
        )
    assert sharp == pytest.approx(exact, rel=1e-6)  # a bell of no width is the number
    assert soft != pytest.approx(exact, rel=5e-5)


@pytest.mark.parametrize(
    "fields", [{"slot_loss_weight": 1.0}, {"attn_implementation": "dense"}], ids=["sdpa", "no slots"]
)
def test_where_attention_goes_needs_slots_and_dense_attention(data, tmp_path, fields):
    with pytest.raises(
        ValueError, match="look_loss_weight needs slot_loss_weight, and attn_implementation dense"
    ):
        trainer_of(data, tmp_path, new_model=NEW_MODEL, look_loss_weight=0.3, **fields)


def test_loss_falls(data, tmp_path):
    trainer = trainer_of(
        data,
        tmp_path,
        new_model=NEW_MODEL,
        freeze_vision=False,
        max_steps=20,
        learning_rate=3e-3,
        muon_learning_rate=0.02,
        logging_steps=1,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 20
    assert np.mean(losses[-3:]) < 0.7 * losses[0]


@pytest.mark.parametrize("muon", [None, 0.02], ids=["adamw", "muon"])
def test_batch_1_by_accumulation_4_equals_4_by_1(data, tmp_path, tiny_checkpoint, muon):
    after = []
    for batch, accumulation in ((1, 4), (4, 1)):
        trainer = trainer_of(
            data,
            tmp_path,
            model=str(tiny_checkpoint),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            digit_weights=[1.0, 0.7, 0.15],
            optim="sgd",  # the step is the gradient; Adam's first step would hide its size
            learning_rate=1e-3,
            muon_learning_rate=muon,
            freeze_vision=False,
            max_grad_norm=0.0,
            logging_steps=1,
        )
        before = weights_of(trainer.model)
        trainer.train()
        moved = {name: value - before[name] for name, value in weights_of(trainer.model).items()}
        after.append((moved, trainer.state.log_history[0]["loss"]))
    (one, one_loss), (other, other_loss) = after
    assert one_loss == pytest.approx(other_loss, rel=1e-5)
    assert max(value.abs().max() for value in one.values()) > 1e-4
    if muon is None:
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-3)
    else:  # AdamW's first step is the sign of the gradient, so only Muon's matrices are compared
        name = "model.language_model.layers.0.mlp.up_proj.weight"
        torch.testing.assert_close(one[name], other[name], atol=1e-4, rtol=1e-2)


# --- what is trained ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_vision_stays_as_it_is_and_the_rest_is_trained(data, tmp_path, tiny_checkpoint, freeze):
    trainer = trainer_of(
        data, tmp_path, model=str(tiny_checkpoint), freeze_vision=freeze, gradient_checkpointing=True
    )
    before = weights_of(trainer.model)
    trainer.train()
    after = weights_of(trainer.model)
    still = {name for name, value in after.items() if torch.equal(value, before[name])}
    frozen = {name for name in after if "vision_tower" in name or "projector" in name}
    assert still == (frozen if freeze else set())


def test_without_muon_the_optimizer_is_the_recipes(data, tmp_path, tiny_checkpoint):
    trainer = trainer_of(data, tmp_path, model=str(tiny_checkpoint), optim="sgd")
    assert type(trainer.create_optimizer()).__name__ == "SGD"


def test_new_model_ends_answers_where_its_tokenizer_does(data, tmp_path):
    trainer = trainer_of(data, tmp_path, new_model=NEW_MODEL)
    tokenizer, config = trainer.processing_class.tokenizer, trainer.model.config
    assert trainer.model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert config.image_token_id == tokenizer.convert_tokens_to_ids("<imgpad>")
    assert config.text_config.vocab_size == len(tokenizer) <= NEW_MODEL["vocab_size"]
    assert trainer.model.lm_head.weight is trainer.model.get_input_embeddings().weight


def test_recipe_that_names_no_model_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match=r"neither `model`.*nor `new_model`") as error:
        trainer_of(data, tmp_path)
    assert "\n" not in str(error.value)


# --- a run ----------------------------------------------------------------------------------------------------


class StopAt2(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 2


def test_stopped_run_goes_on_as_if_it_had_never_stopped(data, tmp_path):
    fields = {
        "max_steps": 4,
        "per_device_train_batch_size": 1,
        "save_strategy": "steps",
        "save_steps": 2,
        "lr_scheduler_type": "linear",
        "muon_learning_rate": 0.02,
        "freeze_vision": False,
        "attn_implementation": "dense",
        "slot_loss_weight": 0.5,
        "look_loss_weight": 0.3,
    }
    folders = [tmp_path / name for name in ("unbroken", "stopped")]
    for folder in folders:
        folder.mkdir()
    recipes = [write_recipe(folder, data, **fields) for folder in folders]
    main(["--config", str(recipes[0])])

    (config,) = TrlParser(BirdSFTConfig).parse_args_and_config(["--config", str(recipes[1])])
    build_trainer(config, load_training_data(config), [StopAt2()]).train()
    run = folders[1] / "run"
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2"]
    saved_at = (run / "checkpoint-2" / "model.safetensors").stat().st_mtime_ns
    final = main(["--config", str(recipes[1])])

    assert final == run / "final"
    # It went on from step 2: a run from the start would have come to the same weights, and saved step 2 again.
    assert (run / "checkpoint-2" / "model.safetensors").stat().st_mtime_ns == saved_at
    one, other = (load_file(folder / "run" / "checkpoint-4" / "model.safetensors") for folder in folders)
    torch.testing.assert_close(one, other, atol=0, rtol=0)
    assert not [name for name in load_file(final / "model.safetensors") if "slot_head" in name]
    assert "use_cache" not in json.loads((final / "config.json").read_text())  # what the trainer wrote there
    half_way = load_file(run / "checkpoint-2" / "model.safetensors")
    assert any(not torch.equal(half_way[name], value) for name, value in other.items())


def test_arguments_override_the_recipe(data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(sft, "build_trainer", lambda config, dataset: seen.append((config, dataset)) or 1 / 0)
    recipe = write_recipe(tmp_path, data, digit_weights=[1.0, 0.7, 0.15], text_weight=0.5)
    with pytest.raises(ZeroDivisionError):
        main(["--config", str(recipe), "--max_steps", "7", "--text_weight", "0.25", "--data_config", "vg"])
    ((config, dataset),) = seen
    assert (config.max_steps, config.text_weight, config.data_config) == (7, 0.25, "vg")
    assert config.new_model == NEW_MODEL
    assert config.loss_weights.coordinate == (1.0, 0.7, 0.15)
    assert set(dataset["task"]) == {"vg"}


def test_trained_model_opens_and_is_bf16_safetensors(data, tmp_path):
    folder = main(["--config", str(write_recipe(tmp_path, data))])
    with safe_open(folder / "model.safetensors", framework="pt") as tensors:
        assert {tensors.get_tensor(name).dtype for name in tensors.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert not list(folder.glob("*.bin"))
    model, processor = load_checkpoint(folder)
    assert model.dtype == torch.float32 and not model.training
    assert processor.image_processor.size["height"] == 32 and processor.num_queries == 4


def test_saved_model_answers_as_the_trained_one(data, tmp_path):
    trainer = trainer_of(data, tmp_path, new_model=NEW_MODEL)
    trainer.train()
    folder = save_for_use(trainer, tmp_path / "out")
    model, _ = load_checkpoint(folder)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value.float()), name


def test_data_is_rendered_only_where_it_is_missing(data, tmp_path, monkeypatch):
    asked = []

    def render(out, images, seed):
        asked.append((out.name, images, seed))
        Path(data).rename(out)

    monkeypatch.setattr(sft, "render_training_set", render)
    missing = tmp_path / "missing"
    config = BirdSFTConfig(
        **PLAIN, output_dir=str(tmp_path / "run"), data=str(missing), render_images=3, seed=5
    )
    assert len(load_training_data(config)) == ROWS
    assert len(load_training_data(config)) == ROWS
    missing.rename(data)
    assert asked == [("missing", 3, 5)]


# --- recipes --------------------------------------------------------------------------------------------------


def test_nano_recipe_is_a_model_under_10_million_parameters():
    recipe = Path(__file__).parents[2] / "recipes" / "nano.yaml"
    (config,) = TrlParser(BirdSFTConfig).parse_args_and_config(["--config", str(recipe)])
    sizes = dict(config.new_model)
    vocab_size = sizes.pop("vocab_size")
    text = {"vocab_size": vocab_size, **sizes.pop("text_config")}
    model_config = BirdConfig(text_config=text, tie_word_embeddings=True, **sizes)
    model_config.vision_config.resampler_identity_init = False  # it computes with values, and meta has none
    with torch.device("meta"):
        model = BirdForConditionalGeneration(model_config)
    assert 8_000_000 < model.num_parameters() < 10_000_000
    assert config.render_images and config.data_config == "chat" and not config.freeze_vision
    assert config.loss_weights.coordinate[0] > config.loss_weights.text and config.number_spread
