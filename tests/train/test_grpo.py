"""GRPO on a checkpoint: questions from Med-GRIT rows, answers drawn from the policy, a folder that opens."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset, Features, IterableDataset, load_dataset
from datasets import Image as ImageFeature
from PIL import Image
from transformers import GenerationConfig

from bird_hf.checkpoint.load import load_checkpoint
from bird_hf.sample import embedded_checkpoint
from bird_hf.train import grpo, run
from bird_hf.train.grpo import (
    BirdGRPOConfig,
    grounding_prompts,
    rewarded,
    sampling_from_policy,
)
from bird_hf.train.recipe import BirdSFTConfig

pytestmark = pytest.mark.usefixtures("own_folder")

GRPO = {
    "method": "grpo",
    "num_generations": 2,
    "max_completion_length": 8,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "learning_rate": 1e-3,
}
LORA = {"use_peft": True, "lora_r": 2, "lora_target_modules": r".*language_model.*\.q_proj"}
WHERE, HERE = "Where is the liver?", "Here is the <ref>liver</ref><box>(200,300),(500,700)</box>."


def rows(messages, image=True, **columns):
    """A dataset of one row."""
    names = [("user", "assistant")[number % 2] for number in range(len(messages))]
    turns = [{"role": role, "content": text} for role, text in zip(names, messages, strict=True)]
    picture = Image.new("L", (8, 8)) if image else None
    row = {"image_id": "ct_1", "messages": turns, "image": picture} | columns
    types = Features(Dataset.from_list([row]).features | {"image": ImageFeature()})
    return Dataset.from_list([row], features=types)


# --- the recipe -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "options", "config"),
    [
        ({}, [], BirdSFTConfig),
        ({"method": "sft"}, [], BirdSFTConfig),
        ({"method": "grpo"}, [], BirdGRPOConfig),
        ({}, ["--method", "grpo"], BirdGRPOConfig),
        ({"method": "sft"}, ["--method=grpo"], BirdGRPOConfig),
        ({"method": "grpo"}, ["--method", "sft"], BirdSFTConfig),
    ],
)
def test_the_method_says_how_a_recipe_is_read(write_recipe, tmp_path, fields, options, config):
    path = write_recipe(tmp_path, per_device_train_batch_size=8, **fields)
    recipe = run.read(["--config", str(path), *options])
    assert type(recipe.training) is config


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"num_generation": 2},
            r"^num_generation is not a field of a recipe; did you mean num_generations\?",
        ),
        ({"max_turns": 2}, "^max_turns is not a field of a recipe; "),  # of supervised training
        ({"data": "x"}, "^data is not a field of a recipe; it is now called dataset_name"),
    ],
)
def test_a_field_that_is_not_of_grpo_is_refused(write_recipe, tmp_path, fields, said):
    with pytest.raises(ValueError, match=said):
        run.read(["--config", str(write_recipe(tmp_path, **(GRPO | fields)))])


@pytest.mark.parametrize("worth", [-0.1, 1.5])
def test_a_denial_is_worth_no_more_than_a_box_can_be(worth):
    with pytest.raises(ValueError, match=rf"^denial_reward is {worth}; it must be from 0 to 1$"):
        rewarded(worth)


def test_an_unknown_method_is_refused(write_recipe, tmp_path):
    path = str(write_recipe(tmp_path))
    for arguments in (["--method", "ppo"], ["--config", str(write_recipe(tmp_path / "ppo", method="ppo"))]):
        with pytest.raises(ValueError, match=r"^method is 'ppo', but must be one of sft, grpo, any_vlm$"):
            run.read(["--config", path, *arguments])


# --- questions ------------------------------------------------------------------------------------------------


def test_chat_rows_and_grounding_rows_give_the_same_questions(four_phantoms):
    chat, alone = (
        grounding_prompts(load_dataset(four_phantoms, name, split="train")) for name in ("chat", "vg")
    )
    assert len(chat) == len(alone) > 4
    assert chat[0]["prompt"][0]["role"] == "user" and chat[0]["image"].size
    for one, other in zip(chat.with_format(None), alone.with_format(None), strict=True):
        one.pop("row"), other.pop("row")
        assert one == other
    assert any(row["absent"] for row in chat.with_format(None))
    pictures = chat[0:3]["image"]
    assert pictures[0] is pictures[1]  # decoded once


@pytest.mark.parametrize(
    ("messages", "columns", "count"),
    [
        pytest.param([WHERE, HERE], {}, 1, id="a box in the answer alone"),
        pytest.param(["What is <box>(1,2),(3,4)</box>?", HERE], {}, 0, id="a box in the question"),
        pytest.param([WHERE, "There is no liver."], {"task": "vg"}, 1, id="the task of the row"),
        pytest.param([WHERE, "There is no liver."], {"forms": ["vg/plain/x"]}, 1, id="the form of the question"),
        pytest.param([WHERE, HERE], {"forms": ["vg_pair/plain/x"]}, 1, id="a pair"),
        pytest.param(["Is there a liver?", "No liver."], {"forms": ["presence/x"]}, 0, id="another form"),
        pytest.param([WHERE, HERE, WHERE, HERE], {"independent": True}, 2, id="two turns"),
    ],
)  # fmt: skip
def test_grounding_questions_are_found(messages, columns, count):
    dataset = rows([*messages, "Where is it?", HERE], **{"forms": ["", "", ""], **columns})
    assert len(grounding_prompts(dataset)) == count + 1


def test_a_turn_that_depends_on_others_is_asked_with_them():
    prompts = grounding_prompts(rows([WHERE, HERE, "And its left lobe?", HERE], independent=False))
    assert [len(row["prompt"]) for row in prompts] == [1, 3]
    assert len(grounding_prompts(rows([WHERE, HERE, WHERE, HERE], independent=True))[1]["prompt"]) == 1


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (lambda: rows(["Why?", "So."]), "no visual grounding question; set dataset_config"),
        (lambda: rows([WHERE, HERE]).remove_columns("image"), "no column image"),
        (lambda: rows(["<|im_end|>", HERE]), r"control token <\|im_end\|>"),
        (lambda: IterableDataset.from_generator(lambda: iter(())), "set dataset_streaming: false"),
    ],
)
def test_data_without_questions_is_refused(dataset, said):
    with pytest.raises(ValueError, match=said):
        grounding_prompts(dataset())


def test_a_row_without_its_image_is_refused():
    with pytest.raises(ValueError, match="row 0 has no image; method grpo needs the pixels"):
        grounding_prompts(rows([WHERE, HERE], image=False))


# --- sampling -------------------------------------------------------------------------------------------------


def test_answers_are_drawn_from_the_policy(trainer_of, four_phantoms):
    """The log-probabilities with which tokens were drawn are those that the loss computes for them."""
    trainer = trainer_of(
        **GRPO | {"model_name_or_path": str(embedded_checkpoint()), "max_completion_length": 24}
    )
    model = trainer.model
    assert model.config.coordinate_smoothing_sigma and model.generation_config.sequence_bias
    drawn = {}
    generate = model.generate

    def recorded(**inputs):
        config = inputs.pop("generation_config")
        config.return_dict_in_generate = config.output_scores = True
        drawn["inputs"], drawn["outputs"] = inputs, generate(**inputs, generation_config=config)
        return drawn["outputs"].sequences

    model.generate = recorded
    examples = [trainer.train_dataset[number] for number in (0, 0, 1, 1)]
    trainer._generate_and_score_completions(examples)
    scores = torch.stack(drawn["outputs"].scores, dim=1).log_softmax(-1)  # (B, T, V)
    ids = drawn["outputs"].sequences
    new = ids[:, -scores.shape[1] :]
    sampled = scores.gather(-1, new[..., None])[..., 0]
    mask = torch.cat([drawn["inputs"]["attention_mask"], torch.ones_like(new)], dim=1)
    pictures = [example["image"] for example in examples]
    pixels = trainer.processing_class.image_processor(pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        policy, _, _ = trainer._get_per_token_logps_and_entropies(
            model, ids, mask, new.shape[1], pixel_values=pixels, num_images=[1] * 4
        )
    ended = (new == trainer._tokenizer.eos_token_id).int().cumsum(-1)
    is_answer = torch.cat([torch.zeros_like(ended[:, :1]), ended[:, :-1]], dim=1) == 0  # the ending token too
    assert is_answer.sum() > 20
    torch.testing.assert_close(policy[is_answer], sampled[is_answer], atol=1e-3, rtol=1e-3)


def test_what_changes_probabilities_is_off_while_sampling_only():
    model, _ = load_checkpoint(embedded_checkpoint())
    before = (model.config.coordinate_smoothing_sigma, model.generation_config.to_dict())
    with sampling_from_policy(model):
        assert not model.config.coordinate_smoothing_sigma
        assert model.generation_config.to_dict() == GenerationConfig().to_dict()
    assert (model.config.coordinate_smoothing_sigma, model.generation_config.to_dict()) == before


# --- training -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
def test_embeddings_are_frozen_with_the_head_tied_to_them(trainer_of, four_phantoms, frozen):
    trainer = trainer_of(
        **GRPO | {"model_name_or_path": str(embedded_checkpoint()), "freeze_embeddings": frozen}
    )
    assert trainer.model.lm_head.weight.requires_grad is not frozen
    assert trainer.model.model.resampler.query.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("lora", [{}, LORA], ids=["full", "lora"])
def test_a_recipe_trains_and_gives_a_folder_that_opens(
    write_recipe, tmp_path, tiny_checkpoint, monkeypatch, lora
):
    # A tiny model with random weights writes nothing that could be rewarded.
    monkeypatch.setattr(grpo, "box_reward", length_reward)
    path = write_recipe(tmp_path, model_name_or_path=str(tiny_checkpoint), max_steps=2, save_strategy="steps",
                        save_steps=1, **GRPO | lora)  # fmt: skip
    final = run.main(["--config", str(path)])
    if lora:
        assert (final / "adapter_model.safetensors").is_file()
        return
    model, _ = load_checkpoint(final)
    first, _ = load_checkpoint(tiny_checkpoint)
    moved = {
        name
        for (name, one), other in zip(model.named_parameters(), first.parameters(), strict=True)
        if not torch.equal(one.float(), other.to(torch.bfloat16).float())
    }
    assert not {name for name in moved if "vision_tower" in name or "projector" in name}  # frozen
    assert {"lm_head.weight"} < moved
    assert model.generation_config.to_dict() == first.generation_config.to_dict()


def length_reward(completions, **columns):
    return [float(len(completion[-1]["content"]) + number) for number, completion in enumerate(completions)]


@pytest.mark.slow
def test_training_raises_the_reward(trainer_of, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(grpo, "box_reward", even_reward)
    own = {
        "num_generations": 8,
        "per_device_train_batch_size": 16,
        "max_completion_length": 4,
        "max_steps": 15,
    }
    trainer = trainer_of(model_name_or_path=str(tiny_checkpoint), **GRPO | own | {"learning_rate": 1e-2})
    trainer.train()
    rewards = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.15


def even_reward(completion_ids, **columns):
    """The share of tokens with an even id, which a model with random weights does not prefer."""
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]
