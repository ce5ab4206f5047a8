"""Training from scratch: losses, stages, Muon, and a stopped run that ends bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file
from transformers import TrainerCallback

from bird_hf.checkpoint.load import load_checkpoint
from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.train import run
from bird_hf.train.from_scratch import trainer as from_scratch
from bird_hf.train.sft import save_for_use

NANO = Path(__file__).parents[3] / "recipes" / "nano.yaml"
SUPERVISED = {
    "freeze_vision": False,
    "attn_implementation": "cpu_eager",
    "detection_loss_weight": 0.5,
    "attention_loss_weight": 0.3,
}
STAGES = [{"train": "vision", "steps": 4}, {"train": "answers"}]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]


def weights_of(trainer):
    trained = [*trainer.model.named_parameters(), *trainer._head_parameters().items()]
    return {name: value.detach().clone() for name, value in trained}


# --- the loss -------------------------------------------------------------------------------------------------


def test_loss_is_the_weighted_likelihood_of_the_answers_by_their_tokens(trainer_of, batch_of, new_model):
    trainer = trainer_of(new_model=new_model, punctuation_weight=0.25, text_weight=0.75)
    batch = batch_of(trainer)
    model = trainer.model.eval()
    weights, labels = batch["loss_weights"][:, 1:], batch["labels"][:, 1:]
    assert set(weights[labels != -100].tolist()) == {1.0, 0.25, 0.75}
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


def test_the_detection_loss_is_added_by_its_weight(trainer_of, batch_of, new_model):
    losses = []
    for weight in (0.0, 0.5, 1.0):
        trainer = trainer_of(new_model=new_model, detection_loss_weight=weight)
        batch = batch_of(trainer)
        assert ("image_token_classes" in batch) == bool(weight)
        trainer.current_gradient_accumulation_steps = 1
        with torch.no_grad():
            losses.append(trainer.compute_loss(trainer.model.eval(), batch).item())
    assert losses[0] < losses[1] < losses[2]
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-3)


def test_the_attention_loss_is_added_by_its_weight(trainer_of, batch_of, new_model):
    losses = []
    for weight in (0.0, 0.5, 1.0):
        trainer = trainer_of(new_model=new_model, **SUPERVISED | {"attention_loss_weight": weight})
        trainer.current_gradient_accumulation_steps = 1
        with torch.no_grad():
            losses.append(trainer.compute_loss(trainer.model.eval(), batch_of(trainer)).item())
    assert losses[0] < losses[1] < losses[2]
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-3)


def test_coordinates_have_gaussian_labels_in_the_trainers_loss(trainer_of, batch_of, new_model):
    sizes = new_model | {"coordinate_tokens": True}
    plain, *labelled = (trainer_of(new_model=sizes, coordinate_label_sigma=sigma) for sigma in (0, 1e-3, 5.0))
    batch = batch_of(plain)
    with torch.no_grad():
        exact, sharp, soft = (
            trainer.compute_loss(trainer.model.eval(), dict(batch)).item() for trainer in (plain, *labelled)
        )
    assert sharp == pytest.approx(exact, rel=1e-6)  # a Gaussian of no width is the number
    assert soft != pytest.approx(exact, rel=5e-5)


def test_gaussian_labels_need_coordinate_tokens(trainer_of, new_model):
    with pytest.raises(ValueError, match="coordinate_label_sigma needs a model with coordinate tokens"):
        trainer_of(new_model=new_model, coordinate_label_sigma=5.0)


def test_a_model_from_scratch_is_fine_tuned_with_its_own_losses(trainer_of, new_model, tmp_path):
    first = trainer_of(new_model=new_model | {"coordinate_tokens": True})
    save_for_use(first, tmp_path / "first")
    tuned = trainer_of(
        model_name_or_path=str(tmp_path / "first"), dtype="float32", coordinate_label_sigma=5.0
    )
    assert tuned.coordinate_loss is not None
    weights = tuned.model.state_dict()
    for name, value in load_file(tmp_path / "first" / "model.safetensors").items():
        assert torch.equal(weights[name], value.float()), name


def test_an_adapter_is_refused_and_not_silently_left_out(trainer_of, new_model):
    with pytest.raises(ValueError, match=r"^use_peft cannot be combined with .*coordinate_label_sigma"):
        trainer_of(new_model=new_model, use_peft=True)


def test_a_recipe_names_a_checkpoint_or_a_new_model(trainer_of, new_model, tmp_path):
    with pytest.raises(ValueError, match="sets both `model_name_or_path` and `new_model`; remove one"):
        trainer_of(new_model=new_model, model_name_or_path=str(tmp_path))
    with pytest.raises(ValueError, match="sets neither `model_name_or_path`"):
        trainer_of(coordinate_label_sigma=5.0)


def test_attention_supervision_needs_cpu_eager_attention(trainer_of, new_model):
    with pytest.raises(ValueError, match="attention_loss_weight needs attn_implementation cpu_eager"):
        trainer_of(new_model=new_model, **SUPERVISED | {"attn_implementation": "sdpa"})


@pytest.mark.slow
def test_loss_falls(trainer_of, new_model):
    trainer = trainer_of(
        new_model=new_model,
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


@pytest.mark.slow
@pytest.mark.parametrize("muon", [None, 0.02], ids=["sgd", "muon"])
def test_batch_1_by_accumulation_4_equals_4_by_1(trainer_of, new_model, muon):
    after = []
    for batch, accumulation in ((1, 4), (4, 1)):
        trainer = trainer_of(
            new_model=new_model,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            text_weight=0.3,
            optim="sgd",  # the step is the gradient; Adam's first step would hide its size
            learning_rate=1e-2,
            muon_learning_rate=muon,
            freeze_vision=False,
            max_grad_norm=0.0,
            logging_steps=1,
        )
        before = weights_of(trainer)
        trainer.train()
        moved = {name: value - before[name] for name, value in weights_of(trainer).items()}
        after.append((moved, trainer.state.log_history[0]["loss"]))
    (one, one_loss), (other, other_loss) = after
    assert one_loss == pytest.approx(other_loss, rel=1e-5)
    assert max(value.abs().max() for value in one.values()) > 1e-4
    if muon is None:
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-3)
    else:  # AdamW's first step is the sign of the gradient, so only Muon's matrices are compared
        name = "model.language_model.layers.0.mlp.up_proj.weight"
        torch.testing.assert_close(one[name], other[name], atol=1e-4, rtol=1e-2)


# --- stages ---------------------------------------------------------------------------------------------------


def rates_of(trainer, steps):
    trainer.create_optimizer_and_scheduler(steps)
    rates = []
    for _ in range(steps):
        rates.append(trainer.lr_scheduler.get_last_lr()[0])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    return rates


SCHEDULE = {"lr_scheduler_type": "linear", "learning_rate": 1.0, "detection_loss_weight": 1.0}


def test_each_stage_has_a_schedule_of_its_own(trainer_of, new_model):
    trainer = trainer_of(new_model=new_model, stages=STAGES, max_steps=10, warmup_steps=1, **SCHEDULE)
    assert rates_of(trainer, 10) == pytest.approx([0, 1, 2 / 3, 1 / 3, 0, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5])


def test_there_may_be_more_stages_than_two(trainer_of, new_model):
    stages = [{"train": "vision", "steps": 2}, {"train": "answers", "steps": 3}, {"train": "answers"}]
    trainer = trainer_of(new_model=new_model, stages=stages, max_steps=9, **SCHEDULE)
    assert rates_of(trainer, 9) == pytest.approx([1, 1 / 2, 1, 2 / 3, 1 / 3, 1, 3 / 4, 1 / 2, 1 / 4])


@pytest.mark.parametrize(
    ("step", "parts"),
    [
        (3, {"vision_tower", "resampler", "projector", "detection_head", "embed_tokens"}),
        (4, {"vision_tower", "resampler", "projector", "detection_head", "embed_tokens", "layers"}),
    ],
    ids=["vision", "answers"],
)
def test_each_stage_trains_its_parts(trainer_of, batch_of, new_model, step, parts):
    trainer = trainer_of(new_model=new_model, stages=STAGES, max_steps=9, **SUPERVISED)
    trainer.current_gradient_accumulation_steps, trainer.state.global_step = 1, step
    trainer.compute_loss(trainer.model.train(), batch_of(trainer)).backward()
    named = [*trainer.model.named_parameters(), *trainer._head_parameters().items()]
    trained = {name for name, weight in named if weight.grad is not None}
    known = {"vision_tower", "resampler", "projector", "detection_head", "embed_tokens", "layers"}
    assert {part for part in known if any(part in name.split(".") for name in trained)} == parts


def test_a_vision_stage_needs_images(trainer_of, new_model):
    trainer = trainer_of(
        new_model=new_model, stages=STAGES, max_steps=9, detection_loss_weight=1.0, text_only=True
    )
    row = trainer.train_dataset[0] | {"image": None}
    with pytest.raises(ValueError, match="a batch has no image to train vision on"):
        trainer.compute_loss(trainer.model.train(), trainer.data_collator([row]))


@pytest.mark.parametrize("muon", [None, 0.02], ids=["adamw", "muon"])
def test_the_detection_head_is_trained_with_the_model_and_starts_each_step_without_gradients(
    trainer_of, new_model, muon
):
    trainer = trainer_of(new_model=new_model, muon_learning_rate=muon, max_steps=2, **SUPERVISED)
    before = weights_of(trainer)
    trainer.train()
    head = {name for name in before if name.startswith("detection_head")}
    assert head and all(not torch.equal(weights_of(trainer)[name], before[name]) for name in head)
    assert all(parameter.grad is None for parameter in trainer.detection_head.parameters())


def test_gradients_of_the_detection_head_are_clipped_with_the_models(trainer_of, batch_of, new_model):
    trainer = trainer_of(new_model=new_model, max_grad_norm=0.01, max_steps=2, **SUPERVISED)
    trainer.current_gradient_accumulation_steps = 1
    trainer.compute_loss(trainer.model.train(), batch_of(trainer)).backward()
    head = [*trainer.detection_head.parameters()]
    everything = [value.grad for value in (*trainer.model.parameters(), *head) if value.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in everything]).norm()
    assert norm > 0.1
    torch.testing.assert_close(trainer._clip_grad_norm(trainer.model), norm)
    after = torch.stack([gradient.norm() for gradient in everything]).norm()
    assert after == pytest.approx(0.01, rel=1e-3)


# --- a run ----------------------------------------------------------------------------------------------------


class StopAt2(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 2


@pytest.mark.slow
@pytest.mark.parametrize("muon", [None, 0.02], ids=["adamw", "muon"])
def test_a_stopped_run_ends_as_if_it_had_never_stopped(write_recipe, tmp_path, new_model, muon):
    fields = {
        "new_model": new_model,
        "max_steps": 4,
        "per_device_train_batch_size": 1,
        "save_strategy": "steps",
        "save_steps": 2,
        "lr_scheduler_type": "linear",
        "muon_learning_rate": muon,
        "stages": [{"train": "vision", "steps": 1}, {"train": "answers"}],
        **SUPERVISED,
    }
    folders = [tmp_path / name for name in ("unbroken", "stopped")]
    recipes = [write_recipe(folder, **fields) for folder in folders]
    run.main(["--config", str(recipes[0])])
    run.build(run.read(["--config", str(recipes[1])]), [StopAt2()]).train()
    stopped = folders[1] / "run"
    assert sorted(path.name for path in stopped.glob("checkpoint-*")) == ["checkpoint-2"]
    saved_at = (stopped / "checkpoint-2" / "model.safetensors").stat().st_mtime_ns
    final = run.main(["--config", str(recipes[1])])

    assert final == stopped / "final"
    # It resumed at step 2: a run from the start would have come to the same weights, and saved step 2 again.
    assert (stopped / "checkpoint-2" / "model.safetensors").stat().st_mtime_ns == saved_at
    for file in ("model.safetensors", "detection_head.safetensors"):
        one, other = (load_file(folder / "run" / "checkpoint-4" / file) for folder in folders)
        torch.testing.assert_close(one, other, atol=0, rtol=0)
        half_way = load_file(stopped / "checkpoint-2" / file)
        assert any(not torch.equal(half_way[name], value) for name, value in other.items())


@pytest.mark.slow
def test_a_run_of_all_stages_leaves_a_model_that_opens(write_recipe, tmp_path, new_model):
    stages = [{"train": "vision", "steps": 2}, {"train": "answers"}]
    recipe = write_recipe(tmp_path, new_model=new_model, stages=stages, max_steps=4, **SUPERVISED)
    final = run.main(["--config", str(recipe)])
    assert not [name for name in load_file(final / "model.safetensors") if "detection_head" in name]
    assert not (final / "detection_head.safetensors").exists()
    load_checkpoint(final)


@pytest.mark.slow
def test_a_saved_model_answers_as_the_trained_one(trainer_of, tmp_path, new_model):
    trainer = trainer_of(new_model=new_model)
    trainer.train()
    model, _ = load_checkpoint(save_for_use(trainer, tmp_path / "out"))
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value.float()), name


def test_a_new_model_ends_answers_with_the_end_of_turn_of_its_tokenizer(trainer_of, new_model):
    trainer = trainer_of(new_model=new_model)
    tokenizer, config = trainer.processing_class.tokenizer, trainer.model.config
    assert trainer.model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert config.image_token_id == tokenizer.convert_tokens_to_ids("<imgpad>")
    assert config.text_config.vocab_size == len(tokenizer) <= new_model["vocab_size"]
    assert trainer.model.lm_head.weight is trainer.model.get_input_embeddings().weight


def test_data_is_rendered_only_if_it_is_missing(trainer_of, tmp_path, new_model, four_phantoms, monkeypatch):
    asked = []

    def render(out, images, seed):
        asked.append((out.name, images, seed))
        Path(four_phantoms).rename(out)

    monkeypatch.setattr(from_scratch, "render_training_set", render)
    missing = tmp_path / "missing"
    fields = {"new_model": new_model, "dataset_name": str(missing), "render_images": 3, "seed": 5}
    try:
        for _ in range(2):
            assert len(trainer_of(**fields).train_dataset) == 4
    finally:
        missing.rename(four_phantoms)
    assert asked == [("missing", 3, 5)]


# --- the recipe of bird-nano ----------------------------------------------------------------------------------


def test_nano_recipe_is_a_model_under_10_million_parameters(tmp_path):
    recipe = run.read(["--config", str(NANO), "--output_dir", str(tmp_path)])
    args, sizes = recipe.training, recipe.training.new_model
    text = {"vocab_size": sizes["vocab_size"], **sizes["text_config"]}
    model_config = BirdConfig(
        text_config=text, tie_word_embeddings=True, vision_config=sizes["vision_config"]
    )
    with torch.device("meta"):
        model = BirdForConditionalGeneration(model_config)
    assert 8_000_000 < model.num_parameters() < 10_000_000
    assert args.render_images and recipe.script.dataset_config == "chat" and not args.freeze_vision
    assert args.text_weight < 1 and args.coordinate_label_sigma


def test_nano_recipe_sets_every_field_that_training_from_scratch_adds():
    recipe = yaml.safe_load(NANO.read_text())
    added = set(run.FromScratchConfig.__annotations__) - {"OLD_FIELDS"}
    assert added <= recipe.keys()


# --- the names that a model knows, and the case of its questions ---------------------------------------------


def test_a_new_checkpoint_lists_the_names_of_its_data(write_recipe, tmp_path, new_model, four_phantoms):
    path = write_recipe(tmp_path, new_model=new_model | {"lowercase_questions": True})
    model, processor = load_checkpoint(run.main(["--config", str(path)]))
    assert model.config.label_names == processor.label_names != {}
    assert processor.lowercase_questions


def test_the_tokenizer_is_trained_on_questions_as_they_are_read():
    row = {"messages": [{"role": "user", "content": "WHERE?"}, {"role": "assistant", "content": "Here."}]}
    rows = Dataset.from_list([row])
    plain, folded = (list(from_scratch.conversation_texts(rows, option)) for option in (False, True))
    assert "WHERE?" in plain and "Here." in plain
    assert folded == ["where?" if text == "WHERE?" else text for text in plain]
