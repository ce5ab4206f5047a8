"""A recipe is trained as it says, stops and resumes, and gives a checkpoint that opens."""

from __future__ import annotations

import json
import shutil
from copy import copy
from pathlib import Path

import pytest
import torch
from datasets import load_dataset
from peft import PeftModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from bird_hf.checkpoint.adapters import merge_adapter
from bird_hf.checkpoint.load import load_checkpoint
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.train import run, sft
from bird_hf.train.collate import GroundingCollator
from bird_hf.train.sft import save_for_use

RECIPES = Path(__file__).parents[2] / "recipes"
ROWS = 4
LORA = {
    "use_peft": True,
    "lora_r": 4,
    "lora_target_modules": r".*language_model.*\.(q|k|v|o)_proj",
    "learning_rate": 1e-2,
}

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]


def weights_of(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


# --- the loss -------------------------------------------------------------------------------------------------


def test_loss_is_the_likelihood_of_the_answers_by_their_tokens(trainer_of, batch_of, tiny_checkpoint):
    trainer = trainer_of(model_name_or_path=str(tiny_checkpoint))
    batch = batch_of(trainer)
    model = trainer.model.eval()
    labels = batch["labels"][:, 1:]
    seen = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        nll = torch.nn.functional.cross_entropy(
            model(**seen).logits[:, :-1].transpose(1, 2), labels, reduction="none"
        )
        loss = trainer.compute_loss(model, dict(batch))
        of_more = trainer.compute_loss(model, dict(batch), num_items_in_batch=torch.tensor(1000))
    expected = nll[labels != -100].sum()
    torch.testing.assert_close(loss, expected / (labels != -100).sum())
    torch.testing.assert_close(of_more, expected / 1000)


def test_tokens_are_counted_without_padding(trainer_of, batch_of, tiny_checkpoint):
    trainer = trainer_of(model_name_or_path=str(tiny_checkpoint), logging_steps=1)
    packed = [trainer.data_collator.pack(trainer.train_dataset[index]) for index in range(ROWS)]
    trainer.train()
    (entry,) = [entry for entry in trainer.state.log_history if "num_tokens" in entry]
    assert entry["num_tokens"] == sum(len(row.input_ids) for row in packed)


@pytest.mark.slow
def test_batch_1_by_accumulation_4_equals_4_by_1(trainer_of, tiny_checkpoint):
    after = []
    for batch, accumulation in ((1, 4), (4, 1)):
        trainer = trainer_of(
            model_name_or_path=str(tiny_checkpoint),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            optim="sgd",  # the step is the gradient; Adam's first step would hide its size
            learning_rate=1e-3,
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
    torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-3)


# --- what is trained ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_vision_stays_as_it_is_and_the_rest_is_trained(trainer_of, tiny_checkpoint, freeze):
    trainer = trainer_of(
        model_name_or_path=str(tiny_checkpoint), freeze_vision=freeze, gradient_checkpointing=True
    )
    before = weights_of(trainer.model)
    trainer.train()
    after = weights_of(trainer.model)
    still = {name for name, value in after.items() if torch.equal(value, before[name])}
    frozen = {name for name in after if "vision_tower" in name or "projector" in name}
    assert still == (frozen if freeze else set())


def test_the_optimizer_is_the_recipes(trainer_of, tiny_checkpoint):
    trainer = trainer_of(model_name_or_path=str(tiny_checkpoint), optim="sgd")
    assert type(trainer.create_optimizer()).__name__ == "SGD"


def test_with_lora_only_the_language_models_attention_is_adapted(trainer_of, tiny_checkpoint):
    trainer = trainer_of(model_name_or_path=str(tiny_checkpoint), **LORA)
    trained = {name for name, value in trainer.model.named_parameters() if value.requires_grad}
    assert len(trained) == 2 * 4 * 2  # layers, projections, and two matrices each
    assert all(".language_model.layers." in name and ".self_attn." in name for name in trained)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [{}, {"load_in_4bit": "true"}], ids=["whole", "4-bit base"])
def test_the_lora_recipe_adapts_the_language_model_only(tmp_path, four_phantoms, tiny_checkpoint, bits):
    fields = {
        "model_name_or_path": tiny_checkpoint,
        "dataset_name": four_phantoms,
        "output_dir": tmp_path / "run",
    }
    fields |= {"max_steps": 1, "warmup_steps": 0, "bf16": "false", "disable_tqdm": "true", **bits}
    arguments = [text for name, value in fields.items() for text in (f"--{name}", str(value))]
    trainer = run.build(run.read(["--config", str(RECIPES / "lora.yaml"), *arguments]))
    assert getattr(trainer.model, "is_loaded_in_4bit", False) == bool(bits)
    before = weights_of(trainer.model)
    final = sft.train(trainer)
    moved = {
        name for name, value in weights_of(trainer.model).items() if not torch.equal(value, before[name])
    }
    assert moved and all(".language_model.layers." in name and "lora_" in name for name in moved)
    assert (final / "adapter_model.safetensors").is_file()


def test_a_recipe_that_names_no_model_is_refused(trainer_of):
    with pytest.raises(ValueError, match=r"neither `model_name_or_path`.*nor `new_model`") as error:
        trainer_of()
    assert "\n" not in str(error.value)


def test_a_checkpoint_or_a_dataset_that_is_missing_is_one_line(trainer_of):
    with pytest.raises(
        ValueError, match="model_name_or_path nowhere is neither a checkpoint folder"
    ) as error:
        trainer_of(model_name_or_path="nowhere")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="sets no dataset_name"):
        trainer_of(model_name_or_path="nowhere", dataset_name=None)


def _without(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.language_model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _of_another_kind(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llava"}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_of_another_kind, "contains a model of type 'llava', not 'bird'"),
        (_without, r"1 tensors of the weights are missing, such as model\.language_model\.norm\.weight"),
        (lambda folder: (folder / "config.json").unlink(), "is not a checkpoint: it has no config.json"),
        # a path in a folder that exists is not looked for on the hub
        (shutil.rmtree, r"bird is neither a checkpoint folder \(there is none of this name\)"),
    ],
)
def test_a_checkpoint_that_is_not_one_of_bird_is_one_line(
    trainer_of, tmp_path, tiny_checkpoint, change, said
):
    folder = tmp_path / "models" / "bird"
    shutil.copytree(tiny_checkpoint, folder)
    change(folder)
    with pytest.raises(ValueError, match=said) as error:
        trainer_of(model_name_or_path=str(folder))
    assert "\n" not in str(error.value)


# --- a run ----------------------------------------------------------------------------------------------------


class StopAt2(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 2


@pytest.mark.slow
@pytest.mark.parametrize("lora", [{}, LORA], ids=["whole", "lora"])
def test_a_stopped_run_ends_as_if_it_had_never_stopped(write_recipe, tmp_path, tiny_checkpoint, lora):
    fields = {
        "model_name_or_path": str(tiny_checkpoint),
        "max_steps": 4,
        "per_device_train_batch_size": 1,
        "save_strategy": "steps",
        "save_steps": 2,
        "lr_scheduler_type": "linear",
        **lora,
    }
    folders = [tmp_path / name for name in ("unbroken", "stopped")]
    recipes = [write_recipe(folder, **fields) for folder in folders]
    run.main(["--config", str(recipes[0])])
    run.build(run.read(["--config", str(recipes[1])]), [StopAt2()]).train()
    stopped = folders[1] / "run"
    assert sorted(path.name for path in stopped.glob("checkpoint-*")) == ["checkpoint-2"]
    file = "adapter_model.safetensors" if lora else "model.safetensors"
    saved_at = (stopped / "checkpoint-2" / file).stat().st_mtime_ns
    final = run.main(["--config", str(recipes[1])])

    assert final == stopped / "final"
    # It resumed at step 2: a run from the start would have come to the same weights, and saved step 2 again.
    assert (stopped / "checkpoint-2" / file).stat().st_mtime_ns == saved_at
    one, other = (load_file(folder / "run" / "checkpoint-4" / file) for folder in folders)
    torch.testing.assert_close(one, other, atol=0, rtol=0)
    half_way = load_file(stopped / "checkpoint-2" / file)
    assert any(not torch.equal(half_way[name], value) for name, value in other.items())


@pytest.mark.slow
def test_a_trained_model_opens_and_is_bf16_safetensors(write_recipe, tmp_path, tiny_checkpoint):
    folder = run.main(["--config", str(write_recipe(tmp_path, model_name_or_path=str(tiny_checkpoint)))])
    with safe_open(folder / "model.safetensors", framework="pt") as tensors:
        assert {tensors.get_tensor(name).dtype for name in tensors.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert not list(folder.glob("*.bin"))
    assert "use_cache" not in json.loads((folder / "config.json").read_text())  # what the trainer wrote there
    model, processor = load_checkpoint(folder)
    assert model.dtype == torch.float32 and not model.training
    assert processor.image_processor.size["height"] == 32 and processor.num_queries == 4


@pytest.mark.slow
def test_a_saved_model_answers_as_the_trained_one(trainer_of, tmp_path, tiny_checkpoint):
    trainer = trainer_of(model_name_or_path=str(tiny_checkpoint))
    trainer.train()
    model, _ = load_checkpoint(save_for_use(trainer, tmp_path / "out"))
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value.float()), name


@pytest.mark.slow
def test_an_adapter_opens_with_peft_on_its_base(write_recipe, tmp_path, tiny_checkpoint):
    recipe = run.read(
        ["--config", str(write_recipe(tmp_path, model_name_or_path=str(tiny_checkpoint), **LORA))]
    )
    trainer = run.build(recipe)
    folder = sft.train(trainer)
    assert {path.name for path in folder.glob("*.safetensors")} == {"adapter_model.safetensors"}
    assert not list(folder.glob("*.bin"))
    base = BirdForConditionalGeneration.from_pretrained(tiny_checkpoint)
    opened = PeftModel.from_pretrained(base, folder)
    trained = {name: value for name, value in trainer.model.state_dict().items() if "lora_" in name}
    assert trained and any(value.any() for name, value in trained.items() if "lora_B" in name)
    for name, value in trained.items():
        assert torch.equal(opened.state_dict()[name], value), name


def test_a_saved_model_that_lacks_parameters_is_named(trainer_of, tmp_path, tiny_checkpoint, monkeypatch):
    """As under ZeRO-3, where a process that does not gather saves empty tensors."""
    trainer = trainer_of(model_name_or_path=str(tiny_checkpoint))
    save_model = trainer.save_model

    def save_without_embeddings(folder):
        save_model(folder)
        tensors = load_file(f"{folder}/model.safetensors")
        name = "model.language_model.embed_tokens.weight"
        tensors[name] = tensors[name][:0]
        save_file(tensors, f"{folder}/model.safetensors")

    monkeypatch.setattr(trainer, "save_model", save_without_embeddings)
    with pytest.raises(ValueError, match=r"out holds [\d,]+ of [\d,]+ parameters"):
        save_for_use(trainer, tmp_path / "out")


@pytest.mark.slow
def test_a_recipe_may_be_evaluated_on_another_split(trainer_of, tiny_checkpoint):
    trainer = trainer_of(
        model_name_or_path=str(tiny_checkpoint),
        eval_strategy="steps",
        eval_steps=1,
        dataset_test_split="train",
    )
    trainer.train()
    assert [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]


# --- the names that a model knows --------------------------------------------------------------------------


def test_a_trained_checkpoint_lists_the_names_of_its_data(
    write_recipe, tmp_path, tiny_checkpoint, four_phantoms
):
    rows = load_dataset(four_phantoms, "chat", split="train")
    names: dict[str, set[str]] = {}
    for row in rows:
        names.setdefault(row["modality"], set()).update(
            item["label"] for item in row["objects"] if item["present"]
        )
    model, processor = load_checkpoint(
        run.main(["--config", str(write_recipe(tmp_path, model_name_or_path=str(tiny_checkpoint)))])
    )
    assert model.config.label_names == {modality: sorted(names[modality]) for modality in sorted(names)}
    assert processor.label_names == model.config.label_names
    assert set(processor.known_names) == set().union(*names.values())


def test_an_adapter_passes_its_names_on_when_it_is_merged(write_recipe, tmp_path, tiny_checkpoint):
    path = write_recipe(tmp_path, model_name_or_path=str(tiny_checkpoint), **LORA)
    adapter = run.main(["--config", str(path)])
    merge_adapter(adapter, tiny_checkpoint, tmp_path / "merged")
    model, processor = load_checkpoint(tmp_path / "merged")
    assert model.config.label_names == processor.label_names != {}


def test_questions_are_learnt_in_the_case_in_which_they_are_asked(tiny_processor):
    processor = copy(tiny_processor)
    processor.lowercase_questions = True
    row = {
        "image": Image.new("RGB", (9, 9)),
        "messages": [
            {"role": "user", "content": "WHERE Is It?"},
            {"role": "assistant", "content": "Here It Is."},
        ],
    }
    text = processor.tokenizer.decode(GroundingCollator(processor).pack(row).input_ids)
    assert "\nwhere is it?<|im_end|>" in text and "Here It Is.<|im_end|>" in text
