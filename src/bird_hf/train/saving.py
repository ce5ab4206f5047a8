"""The trained model as a folder that opens: gathered from all processes, written by one, then opened and compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from peft import get_peft_model_state_dict
from safetensors import safe_open
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel
from transformers.trainer import TRAINING_ARGS_NAME
from trl import SFTTrainer

from ..atomic_writes import replacing_folder
from ..hub.configuration_bird import BirdConfig
from ..hub.modeling_bird import BirdForConditionalGeneration
from ..hub.processing_bird import BirdProcessor
from .checkpoints import WRITE_ERRORS
from .sharding import models_are_whole, zero_stage

Shape = tuple[int, ...]


def save_for_use(trainer: SFTTrainer, folder: Path) -> Path:
    """Save the trained model in bf16, or its adapter, with the processor, ready for `from_pretrained`.

    Every process calls it, and all return once the folder is complete. Raises ValueError if the disk is full, or if
    what was saved lacks a parameter, has one of another shape, or holds NaN; then `folder` is left as it was. The
    error is raised by the main process; the others end with exit code 2.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    is_sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
    if isinstance(model, PreTrainedModel) and not is_sharded:
        model.to(torch.bfloat16)
    vars(model.config).pop("use_cache", None)  # written by the trainer, for training only
    weights = _gathered(trainer, model) if is_sharded else None

    def write() -> None:
        with replacing_folder(folder) as making, models_are_whole(trainer.args):
            if weights is None:
                trainer.save_model(str(making))
            else:
                _save_gathered(trainer, model, weights, making)
            (making / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # a pickle, which loading does not need
            check_saved(making, model, folder, type(trainer.processing_class))

    on_main_process(trainer, write, f"{folder} cannot be written")
    return folder


def on_main_process(trainer: SFTTrainer, action: Callable[[], None], failure: str) -> None:
    """Run an action on the main process while the others wait. If it fails, every process ends.

    Raises ValueError on the main process, `failure` with the reason if a file cannot be written; SystemExit(2) on the
    others.
    """
    error: Exception | None = None
    if trainer.accelerator.is_main_process:
        try:
            action()
        except ValueError as caught:
            error = caught
        except WRITE_ERRORS as caught:
            error = ValueError(f"{failure} ({' '.join(str(caught).split())[:200]})")
            error.__cause__ = caught
    failed = torch.tensor([float(error is not None)], device=trainer.accelerator.device)
    failed = broadcast(failed)
    if error is not None:
        raise error
    if failed.item():
        raise SystemExit(2)


def _gathered(trainer: SFTTrainer, model: nn.Module) -> dict[str, torch.Tensor]:
    """All weights that are saved, on the CPU of the main process; a part of them, or none, on the others.

    A whole model is in bf16, as one that is not sharded; an adapter keeps its dtype.
    """
    dtype = torch.bfloat16 if isinstance(model, PreTrainedModel) else None
    if zero_stage(trainer.args) == 3:
        return _gathered_from_zero3(model, dtype, trainer.accelerator.is_main_process)
    if trainer.is_fsdp_enabled:
        weights = trainer.accelerator.get_state_dict(
            trainer.model
        )  # whole, whatever fsdp_state_dict_type says
    else:
        weights = model.state_dict() if trainer.accelerator.is_main_process else {}  # ZeRO-2: all have all
    return {name: _on_cpu(value, dtype) for name, value in weights.items()}


def _gathered_from_zero3(model: nn.Module, dtype: torch.dtype | None, keep: bool) -> dict[str, torch.Tensor]:
    """Gathers one parameter at a time, so that no GPU ever holds the whole model."""
    import deepspeed

    is_whole = isinstance(model, PreTrainedModel)
    weights = {}
    for name, value in model.named_parameters():
        if is_whole or value.requires_grad:
            with deepspeed.zero.GatheredParameters([value]):
                if keep:
                    weights[name] = _on_cpu(value, dtype)
    if keep and is_whole:
        persistent = model.state_dict().keys()
        weights |= {
            name: _on_cpu(value, dtype) for name, value in model.named_buffers() if name in persistent
        }
    return weights


def _on_cpu(value: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return value.detach().to("cpu", dtype if value.is_floating_point() else None, copy=True)


def _save_gathered(trainer: SFTTrainer, model: Any, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """As `trainer.save_model`, of weights that were gathered.

    A whole model is saved by one that is not sharded: FSDP gives a model another class, of which `save_pretrained`
    would copy the code.
    """
    if isinstance(model, PreTrainedModel):
        with torch.device("meta"):
            whole = _class_of(model)(model.config).to(torch.bfloat16)
        whole.generation_config = model.generation_config
        model = whole
    model.save_pretrained(folder, state_dict=weights)
    trainer.processing_class.save_pretrained(folder)


def _class_of(model: PreTrainedModel) -> Any:
    """The class of a model, without what FSDP2 makes of it."""
    return next(kind for kind in type(model).__mro__ if not issubclass(kind, FSDPModule))


def check_saved(files: Path, model: nn.Module, folder: Path, processor_class: Any = BirdProcessor) -> None:
    """Compare saved weights, name by name, with those that the saved configuration needs.

    files: where they are; folder: how messages call it. Of models of other families, whose weights transformers may
    save under older names, parameters are counted. Raises ValueError if a parameter is missing, has another shape, or
    is not finite, or if the processor does not open.
    """
    if isinstance(model, PreTrainedModel) and not isinstance(model, BirdForConditionalGeneration):
        _check_count(files, model, folder)
        processor_class.from_pretrained(files)
        return
    wanted = _shapes_of_new(files) if isinstance(model, PreTrainedModel) else _shapes_of_adapter(model)
    saved, not_finite = _shapes_in(files)
    wrong = sorted(name for name, shape in wanted.items() if saved.get(name) != shape)
    if wrong:
        there = saved.get(wrong[0])
        fault = "is missing" if there is None else f"has shape {there}, not {wanted[wrong[0]]}"
        right = {name: shape for name, shape in saved.items() if wanted.get(name) == shape}
        raise ValueError(
            f"{folder} holds {_count(right):,} of {_count(wanted):,} parameters ({wrong[0]} {fault}), so it was not "
            "kept; the last checkpoint beside it holds the rest"
        )
    if not_finite:
        raise ValueError(
            f"{folder}: {not_finite[0]} holds NaN or infinity, so it was not kept; an earlier checkpoint beside it may "
            "be good"
        )
    processor_class.from_pretrained(files)


def _check_count(files: Path, model: nn.Module, folder: Path) -> None:
    saved, not_finite = _shapes_in(files)
    wanted = sum(
        getattr(value, "ds_numel", value.numel()) for value in model.parameters()
    )  # ds_numel: ZeRO-3's
    if _count(saved) < wanted or not_finite:
        fault = f"{not_finite[0]} holds NaN or infinity" if not_finite else "some are missing"
        raise ValueError(
            f"{folder} holds {_count(saved):,} of {wanted:,} parameters ({fault}), so it was not kept; the last "
            "checkpoint beside it holds the rest"
        )


def _count(shapes: Mapping[str, Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _shapes_of_new(files: Path) -> dict[str, Shape]:
    """The parameters and buffers of a model that is built from a saved configuration; tied ones once."""
    config = BirdConfig.from_pretrained(files)
    with torch.device("meta"):
        model = BirdForConditionalGeneration(config)
    persistent = model.state_dict().keys()
    buffers = {name: value for name, value in model.named_buffers() if name in persistent}
    return {name: tuple(value.shape) for name, value in [*model.named_parameters(), *buffers.items()]}


def _shapes_of_adapter(model: nn.Module) -> dict[str, Shape]:
    """The tensors of an adapter, by the names under which peft saves them."""
    whole = {
        name: torch.empty(getattr(value, "ds_shape", value.shape), device="meta")  # ds_shape: ZeRO-3's shards
        for name, value in model.named_parameters()
    }
    named = get_peft_model_state_dict(model, state_dict=whole, save_embedding_layers=False)
    return {name: tuple(value.shape) for name, value in named.items()}


def _shapes_in(folder: Path) -> tuple[dict[str, Shape], list[str]]:
    """The shapes of all tensors in the safetensors files of a folder, and the names of those that are not finite."""
    shapes: dict[str, Shape] = {}
    not_finite = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                value = tensors.get_tensor(name)
                shapes[name] = tuple(value.shape)
                if value.is_floating_point() and not torch.isfinite(value).all():
                    not_finite.append(name)
    return shapes, not_finite
