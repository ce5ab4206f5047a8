"""`bird train`: run a recipe, from a checkpoint or, with `new_model`, from random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainingArguments

from . import grpo, sft
from .any_vlm import trainer as any_vlm
from .any_vlm.config import METHOD as ANY_VLM
from .any_vlm.config import AnyVlmConfig
from .from_scratch import cpu_attention
from .from_scratch import trainer as from_scratch
from .from_scratch.config import OWN_FIELDS, FromScratchConfig
from .recipe import BirdSFTConfig, Recipe, field_names, method_of, read_recipe
from .sft import load_split


def main(arguments: Sequence[str]) -> Path:
    """Run `--config recipes/NAME.yaml [--field value ...]`; returns the folder of the trained model.

    A run that was stopped resumes from its last checkpoint.
    """
    return sft.train(build(read(arguments)))


def read(arguments: Sequence[str]) -> Recipe:
    """Parse a recipe: as a `BirdGRPOConfig` if its method is grpo, as an `AnyVlmConfig` if it is any_vlm, else as a
    `FromScratchConfig` if it sets one of its fields, such as `new_model`.
    """
    method = method_of(arguments)
    if method == "grpo":
        return read_recipe(arguments, grpo.BirdGRPOConfig)
    if method == ANY_VLM:
        return read_recipe(arguments, AnyVlmConfig)
    is_own = not field_names(arguments).isdisjoint(OWN_FIELDS)
    return read_recipe(arguments, FromScratchConfig if is_own else BirdSFTConfig)


def build(recipe: Recipe, callbacks: Sequence[Any] = ()) -> Trainer:
    """The trainer of a recipe, with its data."""
    cpu_attention.register()  # for fine-tuning on a CPU too
    script, args = recipe.script, recipe.training
    if isinstance(args, FromScratchConfig):
        from_scratch.render_missing(script, args)
    rows = load_split(script, script.dataset_train_split)
    held_out = load_split(script, script.dataset_test_split) if args.eval_strategy != "no" else None
    return _builder(args)(recipe, rows, held_out, callbacks)


def _builder(args: TrainingArguments) -> Callable[..., Trainer]:
    if isinstance(args, grpo.BirdGRPOConfig):
        return grpo.build_trainer
    if isinstance(args, AnyVlmConfig):
        return any_vlm.build_trainer
    return from_scratch.build_trainer if isinstance(args, FromScratchConfig) else sft.build_trainer
