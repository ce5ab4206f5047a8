"""The recipe of a run, kept in its output folder, so that the run is only ever continued as it was begun."""

from __future__ import annotations

import json
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers.trainer_utils import sort_checkpoints

from ..atomic_writes import write_text
from .recipe import Recipe
from .sharding import sharding_of

RECORD = "run.json"
FINAL = "final"
# A run may be made longer; its learning rate then follows the longer schedule from there on.
_MAY_GROW = ("max_steps", "num_train_epochs")
# Fields, by the start of their names, that change no weight: where and how often is logged, saved and evaluated, and
# on what devices. The rows of a step and the kind of sharding are compared in their place.
_FREE = tuple(
    name
    for group in (
        (
            "logging_",
            "log_",
            "report_to",
            "run_name",
            "project",
            "trackio",
            "disable_tqdm",
            "debug",
            "include_",
        ),
        ("save_", "eval_", "do_", "dataset_test", "prediction_loss", "metric_for", "greater_is", "load_best"),
        ("early_stopping",),
        ("output_dir", "resume_from", "restore_callback", "ignore_data_skip", "hub_", "push_to_hub"),
        ("use_cpu", "deepspeed", "fsdp", "ddp_", "accelerator_config", "parallelism_config", "dataloader_"),
        (
            "per_device_",
            "gradient_accumulation",
            "activation_",
            "global_batch_size",
            "gradient_checkpointing",
        ),
        ("attn_implementation", "torch_compile", "torch_empty", "tf32", "use_liger", "cache_image_features"),
        ("skip_memory", "enable_jit"),
    )
    for name in group
)

log = logging.getLogger(__name__)


def finished_model(recipe: Recipe) -> Path | None:
    """The folder of the trained model if the recipe has been run to its end, else None: train, or go on.

    Raises ValueError, naming the fields, if the output folder holds a run of another recipe.
    """
    output = Path(recipe.training.output_dir)
    final = output / FINAL
    wanted = _fields_of(recipe)
    recorded, finished_at = _read(output / RECORD)
    if recorded is None or not (final.is_dir() or sort_checkpoints(str(output))):  # nothing to go on from
        return None
    _refuse_other(output, recorded, wanted)
    is_longer = any(wanted[name] != recorded.get(name, wanted[name]) for name in _MAY_GROW)
    if finished_at is None or not final.is_dir():
        return None
    if is_longer:
        log.info(
            "%s was finished after %d steps; it goes on, because the recipe is longer", final, finished_at
        )
        return None
    log.info(
        "%s was finished after %d steps; nothing to do. Raise max_steps or num_train_epochs to go on, or give another "
        "output_dir",
        final,
        finished_at,
    )
    return final


def record(recipe: Recipe, finished_at: int | None = None) -> None:
    """Write the recipe into its output folder; `finished_at` is the number of steps of a run that has ended."""
    output = Path(recipe.training.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"finished_at": finished_at, "fields": _fields_of(recipe)}, indent=1)
    write_text(output / RECORD, text + "\n")


def _read(path: Path) -> tuple[dict[str, Any] | None, int | None]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["fields"]), content["finished_at"]
    except FileNotFoundError:  # a new run, or one that was started from Python
        return None, None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it to go on with the run beside it") from error


def _fields_of(recipe: Recipe) -> dict[str, Any]:
    """The fields that decide what a run ends in, as JSON has them."""
    args = recipe.training
    found = {
        item.name: getattr(group, item.name)
        for group in (recipe.script, recipe.model, args)
        for item in fields(group)
        if not item.name.startswith(_FREE)
    }
    is_packed = getattr(args, "pack_rows", False)  # then a step has these rows, on however many processes
    found["rows per step"] = (
        args.global_batch_size
        if is_packed
        else args.train_batch_size * args.gradient_accumulation_steps * max(1, args.world_size)
    )
    found["sharding"] = sharding_of(args)
    if found["sharding"] != "none":
        found["processes"] = args.world_size  # each keeps a share of the checkpoint
    return json.loads(json.dumps(found, default=str))


def _refuse_other(output: Path, recorded: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = []
    for name in sorted(
        recorded.keys() & wanted.keys()
    ):  # a newer version may have fields that an older had not
        old, new = recorded[name], wanted[name]
        if old != new and not (name in _MAY_GROW and _is_more(new, old)):
            differing.append(f"{name} was {_short(old)}, now {_short(new)}")
    if differing:
        raise ValueError(
            f"output_dir {output} holds a run of another recipe ({'; '.join(differing)}); give another output_dir, or "
            "the recipe of that run to go on with it"
        )


def _is_more(new: float, old: float) -> bool:
    return new > old > 0  # max_steps -1: by epochs


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
