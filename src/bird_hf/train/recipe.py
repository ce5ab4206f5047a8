"""Recipes: TRL's `ScriptArguments` and `ModelConfig`, and `BirdSFTConfig`, read from one flat YAML file.

As in TRL's own scripts, any field of the three can be set in the file or on the command line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml
from trl import ModelConfig, ScriptArguments, SFTConfig, TrlParser


@dataclass
class BirdSFTConfig(SFTConfig):
    """TRL's `SFTConfig` with the fields that training a BiRD model needs besides.

    freeze_vision: train the resampler and the language model only (BiRD 4.2).
    global_batch_size: rows per optimizer step over all processes; `gradient_accumulation_steps` follows from it.
    max_turns: maximum number of independent turns of an image per step; drawn anew each time the row is met.
    cache_image_features: folder that keeps what the frozen vision tower computes, so that each image is computed once.
    cache_image_features_gb: the most that this folder may hold.
    """

    freeze_vision: bool = field(default=True, metadata={"help": "keep the vision tower and projector frozen"})
    global_batch_size: int | None = field(
        default=None, metadata={"help": "rows per step, over all processes"}
    )
    max_turns: int | None = field(default=None, metadata={"help": "maximum turns of an image per step"})
    cache_image_features: str | None = field(
        default=None, metadata={"help": "folder that keeps the frozen vision tower's features"}
    )
    cache_image_features_gb: float = field(default=50.0, metadata={"help": "most that this folder may hold"})

    # The collator prepares images and turns, so TRL must leave the rows as they are.
    remove_unused_columns: bool | None = False
    max_length: int | None = 2048

    # Fields of earlier recipes and their new names; None if they were removed.
    OLD_FIELDS: ClassVar[dict[str, str | None]] = {
        "model": "model_name_or_path",
        "data": "dataset_name",
        "data_config": "dataset_config",
        "digit_weights": None,
    }

    def __post_init__(self) -> None:
        if self.global_batch_size is None:
            super().__post_init__()
            return
        processes = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun, accelerate and deepspeed
        steps = accumulation_steps(self.global_batch_size, self.per_device_train_batch_size, processes)
        if self.gradient_accumulation_steps not in (1, steps):
            raise ValueError(
                f"gradient_accumulation_steps {self.gradient_accumulation_steps} and global_batch_size "
                f"{self.global_batch_size} contradict each other; set one of them"
            )
        self.gradient_accumulation_steps: int = steps  # before DeepSpeed's settings are filled in from it
        super().__post_init__()
        if self.train_batch_size * self.world_size * steps != self.global_batch_size:
            raise ValueError(
                f"one process sees {self.n_gpu} GPUs, and global_batch_size counts processes; start one for each "
                "with torchrun --nproc_per_node, or show it one GPU with CUDA_VISIBLE_DEVICES"
            )


@dataclass(frozen=True)
class Recipe:
    """The three groups of arguments that a recipe sets, as TRL's scripts name them."""

    script: ScriptArguments
    training: BirdSFTConfig
    model: ModelConfig


def read_recipe(arguments: Sequence[str], config_class: type[BirdSFTConfig] = BirdSFTConfig) -> Recipe:
    """Parse `--config FILE.yaml [--field value ...]`; values on the command line take precedence.

    Raises ValueError if a field is unknown (the message names the nearest or the new one), or has a value of the
    wrong type.
    """
    parser = _Parser([ScriptArguments, config_class, ModelConfig])
    known = {action.dest for action in parser._actions} | {"config", "env"}
    options = {option.lstrip("-") for action in parser._actions for option in action.option_strings}
    for name in field_names(arguments):
        if name not in known | options:
            raise ValueError(f"{name} is not a field of a recipe; {_advice(name, known, config_class)}")
    return Recipe(*parser.parse_args_and_config(list(arguments)))


def field_names(arguments: Sequence[str]) -> set[str]:
    """The fields that command-line arguments and the recipe they name set."""
    names = {text[2:].split("=")[0] for text in arguments if text.startswith("--")}
    for option, value in pairwise(arguments):
        if option == "--config":
            names |= yaml.safe_load(Path(value).read_text(encoding="utf-8")).keys()
    return names


def nearest(name: str, known: Any) -> str:
    """The advice for an unknown name: `did you mean X?`, or an empty string if nothing is near."""
    close = get_close_matches(name, sorted(known), n=1)
    return f"did you mean {close[0]}?" if close else ""


def _advice(name: str, known: set[str], config_class: type[BirdSFTConfig]) -> str:
    if name in config_class.OLD_FIELDS:
        new = config_class.OLD_FIELDS[name]
        return f"it is now called {new}" if new else "it was removed"
    return nearest(name, known) or "see recipes/ and the fields of TRL's SFTConfig and ModelConfig"


class _Parser(TrlParser):
    """TRL's parser, with one-line errors."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"recipe: {message}")


def accumulation_steps(global_batch: int, per_device: int, processes: int) -> int:
    """Number of batches of `per_device` rows that each process accumulates per step of `global_batch` rows.

    Raises ValueError if that is not a whole number.
    """
    at_once = per_device * processes
    if global_batch < 1 or global_batch % at_once:
        raise ValueError(
            f"global_batch_size {global_batch} is not a multiple of the {at_once} rows that {processes} process(es) "
            f"of {per_device} take at once; change per_device_train_batch_size or the number of processes"
        )
    return global_batch // at_once
