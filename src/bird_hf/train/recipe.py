"""Recipes: TRL's `ScriptArguments` and `ModelConfig`, and `BirdSFTConfig`, read from one flat YAML file.

As in TRL's own scripts, any field of the three can be set in the file or on the command line.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, NoReturn, TypeVar

import torch
import yaml
from transformers import TrainingArguments
from trl import ModelConfig, ScriptArguments, SFTConfig, TrlParser

from ..extras import missing_extra
from . import segment_attention
from .collate import DROP, ERROR, SPLIT
from .packing import PAIRS, ROWS

TOO_LONG = [ERROR, SPLIT, DROP]
BALANCED = ["modality", "task"]

log = logging.getLogger(__name__)


# The packages, any of which a logger of `report_to` needs.
_LOGGERS = {
    "comet_ml": ("comet_ml",),
    "mlflow": ("mlflow",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}

Config = TypeVar("Config", bound=TrainingArguments)


@dataclass
class BirdSFTConfig(SFTConfig):
    """TRL's `SFTConfig` with the fields that training a BiRD model needs besides.

    method: `sft`; a recipe with `method: grpo` is read as a `BirdGRPOConfig` (grpo.py), one with `method: any_vlm` as
        an `AnyVlmConfig` (any_vlm/config.py).
    freeze_vision: train the resampler and the language model only (BiRD 4.2).
    packing: several rows in a sequence of up to `max_length`, none seeing another; see `packing.PackedSteps`. The
        default is true if `attn_implementation` is set to flex_attention (on CUDA) or segments (on a CPU), else false.
        `per_device_train_batch_size` then counts sequences.
    global_batch_size: rows per optimizer step over all processes; `gradient_accumulation_steps` follows from it.
    global_batch_unit: with packing, "pairs" counts question-answer pairs instead of rows.
    max_turns: maximum number of independent turns of an image per step; drawn anew each time the row is met.
    too_long: what happens to a row of more than `max_length` tokens: "error", "split" between its independent turns,
        or "drop".
    images_dir: folder with IMAGE_ID.png of rows that hold no pixels.
    text_only: train rows without an image on their text; otherwise they are refused.
    cache_image_features: folder that keeps what the frozen vision tower computes, so that each image is computed once.
    cache_image_features_gb: the most that this folder may hold.
    datasets: several datasets instead of `dataset_name`, each with a weight; see `mixture.Source`.
    balance_by: repeat rows so that each modality, or each task, is met as often.
    streaming_buffer: rows of a streamed dataset that the next one is drawn from.
    eval_questions: VG and as many ROC questions that are answered at each evaluation; see `held_out`.
    early_stopping_patience: stop after this many evaluations that do not improve `metric_for_best_model`.
    log_peak_tflops: TFLOP/s of one device that `mfu` in the log is a share of; the default is measured.
    """

    method: Literal["sft", "grpo", "any_vlm"] = field(default="sft", metadata={"help": "how to train"})
    freeze_vision: bool = field(default=True, metadata={"help": "keep the vision tower and projector frozen"})
    global_batch_size: int | None = field(
        default=None, metadata={"help": "rows per step, over all processes"}
    )
    global_batch_unit: str = field(
        default=ROWS, metadata={"help": "what global_batch_size counts", "choices": [ROWS, PAIRS]}
    )
    max_turns: int | None = field(default=None, metadata={"help": "maximum turns of an image per step"})
    too_long: str = field(
        default=ERROR, metadata={"help": "what happens to rows that are too long", "choices": TOO_LONG}
    )
    images_dir: str | None = field(default=None, metadata={"help": "folder of the images of rows without"})
    text_only: bool = field(default=False, metadata={"help": "train rows without an image on their text"})
    datasets: list[dict[str, Any]] | None = field(
        default=None, metadata={"help": "several datasets, each with a weight"}
    )
    balance_by: str | None = field(
        default=None, metadata={"help": "what is met as often", "choices": BALANCED}
    )
    streaming_buffer: int = field(default=1000, metadata={"help": "rows that a streamed row is drawn from"})
    eval_questions: int = field(
        default=0, metadata={"help": "VG and ROC questions answered at each evaluation"}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "stop after this many evaluations without a gain"}
    )
    log_peak_tflops: float | None = field(
        default=None, metadata={"help": "TFLOP/s of a device, for mfu; measured by default"}
    )
    packing: bool = field(default=False, metadata={"help": "several rows in a sequence"})
    pack_rows: bool = field(default=False, init=False)  # what the recipe says of packing
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
        _check_packages(self)
        self._check_evaluation()
        # TRL's packing, which is for text only, stays off.
        self.pack_rows, self.packing = self.packing, False
        processes = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun, accelerate and deepspeed
        if self.pack_rows:
            self._accumulate_packed(processes)
        elif self.global_batch_unit != ROWS:
            raise ValueError(f"global_batch_unit {self.global_batch_unit} needs packing; set packing to true")
        elif self.global_batch_size is not None:
            self._accumulate(self.global_batch_size, processes)
        super().__post_init__()
        if self.global_batch_size is not None and self.n_gpu > 1:
            raise ValueError(
                f"one process sees {self.n_gpu} GPUs, and global_batch_size counts processes; start one for each "
                "with torchrun --nproc_per_node, or show it one GPU with CUDA_VISIBLE_DEVICES"
            )

    def _check_evaluation(self) -> None:
        for name, least in (("eval_questions", 0), ("early_stopping_patience", 1), ("streaming_buffer", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}, but must be at least {least}")
        if self.log_peak_tflops is not None and not self.log_peak_tflops > 0:
            raise ValueError(f"log_peak_tflops is {self.log_peak_tflops}, but must be above 0")
        needs = [name for name in ("eval_questions", "early_stopping_patience") if getattr(self, name)]
        if needs and self.eval_strategy == "no":
            raise ValueError(f"{needs[0]} needs evaluations; set eval_strategy to steps or epoch")
        if self.early_stopping_patience and not (self.load_best_model_at_end and self.metric_for_best_model):
            raise ValueError(
                "early_stopping_patience needs load_best_model_at_end: true and metric_for_best_model, such as "
                "vg_recall; set both"
            )

    def _accumulate(self, global_batch: int, processes: int) -> None:
        """Set `gradient_accumulation_steps`, before DeepSpeed's settings are filled in from it."""
        steps = accumulation_steps(global_batch, self.per_device_train_batch_size, processes)
        if self.gradient_accumulation_steps not in (1, steps):
            self._refuse_both()
        self.gradient_accumulation_steps: int = steps

    def _accumulate_packed(self, processes: int) -> None:
        """Packed steps hold as many sequences as they need, so that a step is one batch for transformers."""
        if self.max_length is None:
            raise ValueError("packing needs max_length, the length of a sequence; set it")
        if self.global_batch_size is None:
            self.global_batch_size = (
                self.per_device_train_batch_size * self.gradient_accumulation_steps * processes
            )
        elif self.gradient_accumulation_steps != 1:
            self._refuse_both()
        if self.global_batch_size < 1:
            raise ValueError(f"global_batch_size is {self.global_batch_size}, but must be at least 1")
        self.gradient_accumulation_steps = 1

    def _refuse_both(self) -> NoReturn:
        raise ValueError(
            f"gradient_accumulation_steps {self.gradient_accumulation_steps} and global_batch_size "
            f"{self.global_batch_size} contradict each other; set one of them"
        )


def _check_packages(args: BirdSFTConfig) -> None:
    """Raises ValueError if a recipe asks for DeepSpeed or a logger that is not installed."""
    if args.deepspeed and find_spec("deepspeed") is None:
        raise ValueError(f"the field deepspeed needs DeepSpeed; {missing_extra('deepspeed')}")
    wanted = args.report_to or []
    for name in [wanted] if isinstance(wanted, str) else wanted:
        packages = _LOGGERS.get(name, ())
        if packages and not any(find_spec(package) for package in packages):
            raise ValueError(f"report_to: {name} needs pip install {packages[0]}; or set report_to: none")


@dataclass(frozen=True)
class Recipe(Generic[Config]):
    """The three groups of arguments that a recipe sets, as TRL's scripts name them."""

    script: ScriptArguments
    training: Config
    model: ModelConfig


def read_recipe(arguments: Sequence[str], config_class: Any = BirdSFTConfig) -> Recipe:
    """Parse `--config FILE.yaml [--field value ...]`; values on the command line take precedence.

    config_class: of the training arguments; it has `OLD_FIELDS`.

    Raises ValueError if a field is unknown (the message names the nearest or the new one), or has a value of the
    wrong type.
    """
    parser = _known_fields_parser(arguments, config_class)
    packs = issubclass(config_class, BirdSFTConfig)
    default = packing_default(field_values(arguments)) if packs else []
    return Recipe(*parser.parse_args_and_config([*arguments, *default]))


def packing_default(values: Mapping[str, Any]) -> list[str]:
    """Arguments that set `packing` where the recipe leaves it open, and unset it where it cannot be.

    Whether it is on must be known before transformers and DeepSpeed read the sizes of batches.
    """
    if _is_true(values.get("dataset_streaming")):
        if _is_true(values.get("packing")):
            log.warning("packing is off: it needs the lengths of all rows, and the dataset is streamed")
        return ["--packing", "false"]
    on_gpu = torch.cuda.is_available() and not _is_true(values.get("use_cpu"))
    without_dense_mask = "flex_attention" if on_gpu else segment_attention.NAME
    is_open = "packing" not in values and values.get("attn_implementation") == without_dense_mask
    return ["--packing", "true"] if is_open else []


def _is_true(value: Any) -> bool:
    return str(value).lower() in ("true", "1", "yes")


def read_fields(
    arguments: Sequence[str], config_class: type[BirdSFTConfig] = BirdSFTConfig
) -> dict[str, Any]:
    """The values of all fields, without the arguments being made of them: those ask for the GPUs they will run on.

    Raises ValueError as `read_recipe` does for names and types on the command line.
    """
    parser = _known_fields_parser(arguments, config_class)
    values = list(arguments)
    if "--config" in values:
        place = values.index("--config")
        file = yaml.safe_load(Path(values[place + 1]).read_text(encoding="utf-8"))
        parser.set_defaults_with_config(**{name: value for name, value in file.items() if name != "env"})
        del values[place : place + 2]
    return vars(parser.parse_args(values))


def field_names(arguments: Sequence[str]) -> set[str]:
    """The fields that command-line arguments and the recipe they name set."""
    return set(field_values(arguments))


def field_values(arguments: Sequence[str]) -> dict[str, Any]:
    """The fields that command-line arguments and the recipe they name set, and what they say."""
    values: dict[str, Any] = {}
    for option, value in pairwise(arguments):
        if option == "--config":
            values |= yaml.safe_load(Path(value).read_text(encoding="utf-8"))
    for option, following in pairwise([*arguments, ""]):
        if option.startswith("--"):
            name, equals, value = option[2:].partition("=")
            values[name] = value if equals else following
    return values


def method_of(arguments: Sequence[str]) -> str:
    """The method that command-line arguments, or else the recipe they name, set; "sft" if neither does."""
    return str(field_values(arguments).get("method", "sft"))


def nearest(name: str, known: Any) -> str:
    """The advice for an unknown name: `did you mean X?`, or an empty string if nothing is near."""
    close = get_close_matches(name, sorted(known), n=1)
    return f"did you mean {close[0]}?" if close else ""


def _advice(name: str, known: set[str], config_class: Any) -> str:
    if name in config_class.OLD_FIELDS:
        new = config_class.OLD_FIELDS[name]
        return f"it is now called {new}" if new else "it was removed"
    return nearest(name, known) or "see recipes/ and the fields of TRL's SFTConfig and ModelConfig"


def _known_fields_parser(arguments: Sequence[str], config_class: Any) -> _Parser:
    """The parser of a recipe, after the names and choices that arguments and recipe set have been checked."""
    parser = _Parser([ScriptArguments, config_class, ModelConfig])
    known = {action.dest for action in parser._actions} | {"config", "env"}
    options = {option.lstrip("-") for action in parser._actions for option in action.option_strings}
    choices = {action.dest: action.choices for action in parser._actions if action.choices}
    for name, value in field_values(arguments).items():
        if name not in known | options:
            raise ValueError(f"{name} is not a field of a recipe; {_advice(name, known, config_class)}")
        # argparse does not check values that come from a file.
        if value is not None and str(value) not in map(str, choices.get(name, [value])):
            raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(map(str, choices[name]))}")
    return parser


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
