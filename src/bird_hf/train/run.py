"""`bird train`: run a recipe, from a checkpoint or, with `new_model`, from random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainingArguments
from trl import ScriptArguments

from . import grpo, mixture, resuming, sft
from .any_vlm import trainer as any_vlm
from .any_vlm.config import METHOD as ANY_VLM
from .any_vlm.config import AnyVlmConfig
from .from_scratch import cpu_attention
from .from_scratch import trainer as from_scratch
from .from_scratch.config import OWN_FIELDS, FromScratchConfig
from .recipe import BirdSFTConfig, Recipe, field_names, method_of, read_recipe
from .sft import load_split
from .sharding import start_deepspeed_on_cpus


def main(arguments: Sequence[str]) -> Path:
    """Run `--config recipes/NAME.yaml [--field value ...]`; returns the folder of the trained model.

    A run that was stopped resumes from its last whole checkpoint; one that has ended is left as it is.
    Raises ValueError if output_dir holds a run of another recipe.
    """
    recipe = read(arguments)
    if (final := resuming.finished_model(recipe)) is not None:
        return final
    trainer = build(recipe)
    if trainer.accelerator.is_main_process:
        resuming.record(recipe)
    final = sft.train(trainer)
    if trainer.accelerator.is_main_process:
        resuming.record(recipe, finished_at=trainer.state.global_step)
    return final


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
    start_deepspeed_on_cpus(args)
    if isinstance(args, FromScratchConfig):
        from_scratch.render_missing(script, args)
    if script.dataset_streaming:
        _read_streams_in_each_process(args)
    rows = _rows(script, args)
    held_out = _rows(script, args, held_out=True) if args.eval_strategy != "no" else None
    return _builder(args)(recipe, rows, held_out, callbacks)


def _rows(script: ScriptArguments, args: TrainingArguments, held_out: bool = False) -> mixture.Rows:
    """The rows of a recipe that are trained, or those that are held out."""
    sources = mixture.sources_of(script, args)
    if not sources:
        return load_split(script, script.dataset_test_split if held_out else script.dataset_train_split)
    if held_out:
        return mixture.held_out_rows(sources, script)
    return mixture.mixed_rows(sources, script, args.seed if args.data_seed is None else args.data_seed)


def _read_streams_in_each_process(args: TrainingArguments) -> None:
    """As accelerate does not by default: it sends batches from one process, and what names their rows is not sent."""
    args.accelerator_config.dispatch_batches = False
    if isinstance(args, FromScratchConfig) and (args.new_model or args.detection_loss_weight):
        raise ValueError("new_model and detection_loss_weight need all rows; set dataset_streaming: false")


def _builder(args: TrainingArguments) -> Callable[..., Trainer]:
    if isinstance(args, grpo.BirdGRPOConfig):
        return grpo.build_trainer
    if isinstance(args, AnyVlmConfig):
        return any_vlm.build_trainer
    return from_scratch.build_trainer if isinstance(args, FromScratchConfig) else sft.build_trainer
