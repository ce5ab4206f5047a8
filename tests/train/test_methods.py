"""The ways of training that a recipe names by flags: LoRA, DoRA and QLoRA; loggers; rows of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset, Image, load_dataset
from peft import PeftModel

from bird_hf.checkpoint.adapters import merge_adapter
from bird_hf.hub.modeling_bird import BirdForConditionalGeneration
from bird_hf.train import run, sft

LORA_RECIPE = Path(__file__).parents[2] / "recipes" / "lora.yaml"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]


def arguments(folder, data, model, **fields) -> list[str]:
    """`--config recipes/lora.yaml` for two quiet steps."""
    own = {"model_name_or_path": model, "dataset_name": data, "output_dir": folder / "run", "max_steps": 2}
    own |= {"warmup_steps": 0, "bf16": "false", "disable_tqdm": "true", "learning_rate": 1e-2, **fields}
    return [
        "--config",
        str(LORA_RECIPE),
        *(text for name, value in own.items() for text in (f"--{name}", str(value))),
    ]


@pytest.mark.parametrize(
    ("flags", "trained"),
    [
        ({"use_dora": "true"}, {"lora_A", "lora_B", "lora_magnitude_vector"}),
        ({"use_rslora": "true"}, {"lora_A", "lora_B"}),
        ({"load_in_4bit": "true", "use_bnb_nested_quant": "true"}, {"lora_A", "lora_B"}),
        ({"load_in_4bit": "true", "use_dora": "true"}, {"lora_A", "lora_B", "lora_magnitude_vector"}),
    ],
    ids=["DoRA", "rsLoRA", "QLoRA", "QDoRA"],
)
def test_adapters_are_trained_open_on_their_base_and_merge(
    tmp_path, four_phantoms, tiny_checkpoint, flags, trained
):
    trainer = run.build(run.read(arguments(tmp_path, four_phantoms, tiny_checkpoint, **flags)))
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    learnt = {name for name, value in trainer.model.named_parameters() if value.requires_grad}
    assert {kind for kind in trained if any(kind in name for name in learnt)} == trained
    final = sft.train(trainer)
    moved = {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}
    assert moved and moved <= learnt
    base = BirdForConditionalGeneration.from_pretrained(tiny_checkpoint)
    opened = PeftModel.from_pretrained(base, final).state_dict()
    kept = {name: value for name, value in trainer.model.state_dict().items() if "lora_" in name}
    for name, value in kept.items():
        torch.testing.assert_close(opened[name], value.to(opened[name].dtype), atol=0, rtol=0)
    merge_adapter(final, tiny_checkpoint, tmp_path / "merged")
    merged = BirdForConditionalGeneration.from_pretrained(tmp_path / "merged").state_dict()
    plain = BirdForConditionalGeneration.from_pretrained(tiny_checkpoint).state_dict()
    changed = {name for name, value in merged.items() if not torch.equal(value, plain[name].to(value.dtype))}
    assert any(".self_attn.q_proj." in name for name in changed)


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
def test_quantized_weights_are_not_trained_themselves(trainer_of, tiny_checkpoint, bits):
    with pytest.raises(ValueError, match=f"{bits} freezes the weights, .*set use_peft: true") as error:
        trainer_of(model_name_or_path=str(tiny_checkpoint), **{bits: True})
    assert "\n" not in str(error.value)


def test_without_bitsandbytes_the_extra_is_named(trainer_of, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr("bird_hf.train.sft.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs bitsandbytes; .*pip install -e \"\.\[quantized\]\""):
        trainer_of(model_name_or_path=str(tiny_checkpoint), load_in_4bit=True, use_peft=True)


# --- loggers --------------------------------------------------------------------------------------------------


def test_tensorboard_has_the_log(trainer_of, tmp_path, tiny_checkpoint, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    trainer_of(model_name_or_path=str(tiny_checkpoint), report_to="tensorboard", logging_steps=1).train()
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert {"train/loss", "train/tokens_per_second", "train/mfu"} <= {*events.Tags()["scalars"]}


def test_trackio_has_the_log(trainer_of, tiny_checkpoint):
    trainer_of(
        model_name_or_path=str(tiny_checkpoint), report_to="trackio", logging_steps=1, project="bird"
    ).train()
    from trackio.utils import TRACKIO_DIR  # HF_HOME of the tests, as it was on the first import

    assert list(TRACKIO_DIR.glob("bird*"))


# --- rows -----------------------------------------------------------------------------------------------------


def messages(*texts):
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def rows_of(kind: str, four_phantoms: str) -> Dataset:
    pictures = load_dataset(four_phantoms, "chat", split="train").cast_column("image", Image(decode=False))[
        "image"
    ]
    if kind == "several images":
        rows = [
            {"images": [pictures[0], pictures[1]], "messages": messages("Which is larger?", "The first.")},
            {"images": [pictures[2]], "messages": messages("What is it?", "A fundus.")},
        ]
        return Dataset.from_list(rows).cast_column("images", [Image()])
    if kind == "conversations":
        talk = messages("What is it?", "CT.", "Of what?", "The chest.")
        rows = [{"image": picture, "messages": talk, "independent": False} for picture in pictures]
        return Dataset.from_list(rows).cast_column("image", Image())
    return Dataset.from_list([{"messages": messages("Are you well?", "Yes.")}] * 4)


@pytest.mark.parametrize("kind", ["several images", "conversations", "text alone"])
@pytest.mark.parametrize("fields", [{}, {"packing": True, "max_length": 500}], ids=["plain", "packed"])
def test_rows_of_every_kind_are_trained(
    trainer_of, tiny_checkpoint, four_phantoms, monkeypatch, kind, fields
):
    monkeypatch.setattr(run, "load_split", lambda script, split: rows_of(kind, four_phantoms))
    trainer = trainer_of(
        model_name_or_path=str(tiny_checkpoint), text_only=kind == "text alone", logging_steps=1, **fields
    )
    compute, batches = trainer.compute_loss, []

    def recorded(model, inputs, *args, **kwargs):
        batches.append(dict(inputs))
        return compute(model, inputs, *args, **kwargs)

    trainer.compute_loss = recorded
    trainer.train()
    images = sum(len(batch["pixel_values"]) for batch in batches if "pixel_values" in batch)
    assert images == {"several images": 3, "conversations": 4, "text alone": 0}[kind]
    answers = sum(
        int((batch["labels"] == trainer.processing_class.tokenizer.eos_token_id).sum()) for batch in batches
    )
    assert answers == {"several images": 2, "conversations": 8, "text alone": 4}[kind]
    assert max(int(batch["turn_ids"].max()) for batch in batches) == 1  # a conversation is one turn
    assert trainer.state.log_history[0]["loss"] > 0
