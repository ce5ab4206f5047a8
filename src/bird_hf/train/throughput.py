"""Tokens per second, padding, supervised tokens and MFU of a run, for its log."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from ..hub.packed_attention import PADDING
from .collate import IGNORED
from .flops import Part, Parts, Work, training_flops
from .packed_trainer import PackedTrainer

# Sides of the square matrices whose product measures a device: large enough for its peak, done in milliseconds.
_SIDES = {"cuda": 8192, "cpu": 512}
_REPEATS = 5
_NAMES = [item.name for item in fields(Parts)]


class MeasuredTrainer(PackedTrainer):
    """Adds to each entry of the log what the steps since the last one computed, over all processes.

    tokens_per_second: without padding; loading data counts as time, evaluating and saving do not. padding_share: of
    all positions. supervised_tokens: those with a label. mfu: model FLOPs utilisation (see `flops`), without what
    checkpointing repeats, of `log_peak_tflops`, or of a matrix product measured once in the run.
    """

    logs_mfu = True

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._clock = _Clock()
        self._counts: torch.Tensor | None = None
        self._peak_flops: float | None = None
        self._parts = parts_of(self.model)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        self._clock.start()
        for batch in inputs if isinstance(inputs, list) else [inputs]:
            counts = counts_of(batch)
            self._counts = counts if self._counts is None else self._counts + counts
        return super().training_step(model, inputs, num_items_in_batch)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if not self.control.should_log:  # else `log` stops the clock, after the device has finished
            self._clock.stop()
        super()._maybe_log_save_evaluate(*args, **kwargs)
        self._clock.start()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs or "train_runtime" in logs:  # of some steps, or the last of a run
            self._clock.stop()
            if "loss" in logs and self._counts is not None:
                logs = logs | self._measured(self._counts)
            self._clock.reset()
            self._counts = None
        super().log(logs, start_time)

    def _measured(self, counts: torch.Tensor) -> dict[str, float]:
        total = self.accelerator.reduce(counts, "sum").tolist()
        images, positions, supervised, attended, tokens = total
        seconds = max(self._clock.seconds, 1e-9)
        found = {
            "tokens_per_second": tokens / seconds,
            "padding_share": 1 - tokens / positions,
            "supervised_tokens": supervised,
        }
        if self.logs_mfu:
            config = self.accelerator.unwrap_model(self.model).config
            flops = training_flops(config, Work(images, positions, supervised, attended), self._parts)
            found["mfu"] = flops / seconds / (self._peak() * self.accelerator.num_processes)
        return {name: float(f"{value:.4g}") if value % 1 else value for name, value in found.items()}

    def _peak(self) -> float:
        """FLOP/s of one device."""
        if self._peak_flops is None:
            given = self.args.log_peak_tflops
            self._peak_flops = (
                matmul_flops(self.args.device, self._dtype()) if given is None else given * 1e12
            )
        return self._peak_flops

    def _dtype(self) -> torch.dtype:
        if self.args.bf16:
            return torch.bfloat16
        return torch.float16 if self.args.fp16 else next(self.model.parameters()).dtype


class _Clock:
    """Seconds in which it ran."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def stop(self) -> None:
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    def reset(self) -> None:
        self.seconds, self._since = 0.0, None


def counts_of(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Of a batch of `GroundingCollator`: images, positions, supervised tokens, attended pairs, tokens; (5,) int64.

    A position counts the tokens before it that its turn sees, so that the pairs are a sum over positions.
    """
    is_token = batch["row_ids"] != PADDING
    images = batch["pixel_values"].shape[0] if "pixel_values" in batch else 0
    return torch.stack(
        [
            is_token.new_tensor(images, dtype=torch.int64),
            is_token.new_tensor(is_token.numel(), dtype=torch.int64),
            (batch["labels"][:, 1:] != IGNORED).sum(),
            ((batch["position_ids"] + 1) * is_token).sum(),
            is_token.sum(),
        ]
    )


def parts_of(model: nn.Module) -> Parts:
    """How each part of a model trains, read from its parameters."""
    adapters, last, trained = (
        dict.fromkeys(_NAMES, 0),
        dict.fromkeys(_NAMES, False),
        dict.fromkeys(_NAMES, False),
    )
    for name, value in model.named_parameters():
        if not value.requires_grad:
            continue
        part = next((part for part in _NAMES[:3] if f".{part}." in f".{name}"), _NAMES[3])
        if "lora_" in name:
            adapters[part] += getattr(value, "ds_numel", value.numel())  # ds_numel: ZeRO-3's shards
            last[part] |= ".down_proj." in name
        else:
            trained[part] = True
    return Parts(**{part: Part(trained[part], adapters[part], last[part]) for part in _NAMES})


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a product of two square matrices, the median of a few: what a device reaches at best."""
    side = _SIDES.get(device.type, _SIDES["cpu"])
    own = torch.Generator(device).manual_seed(0)  # a log must not change what a run draws
    left, right = torch.randn(2, side, side, device=device, generator=own).to(dtype)
    took = []
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        (left @ right)[0, 0].item()  # waits for the device
        took.append(time.perf_counter() - start)
    return 2 * side**3 / statistics.median(took[1:])
