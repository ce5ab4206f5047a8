"""A loss or gradient that is NaN or infinite stops the run on every process, and the batch of such a loss is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from trl import SFTTrainer

from ..atomic_writes import replacing_folder, write_text
from .sharding import gather_head

ROW_NAMES = "row_names"  # the key of a batch that holds the image_id of its rows
_TENSORS, _FACTS = "batch.safetensors", "batch.json"


@dataclass(frozen=True)
class NamingCollator:
    """Adds the names of its rows to the batch of another collator, so that a bad batch can be traced to its data."""

    collator: Any

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        return {**self.collator(rows), ROW_NAMES: [_name(row) for row in rows]}

    def collate_step(self, step: Sequence[Any]) -> list[dict[str, Any]]:
        """The micro-batches of packed sequences; see `GroundingCollator.collate_step`."""
        return [
            {**batch, ROW_NAMES: [_name(row) for sequence in sequences for _, row in sequence]}
            for batch, sequences in zip(self.collator.collate_step(step), step, strict=True)
        ]


def _name(row: Mapping[str, Any]) -> str:
    return str(row.get("image_id", "without image_id"))


class FiniteGradients:
    """Mixed into a `Trainer`: stops before a step whose gradient is NaN or infinite, though its loss is not."""

    accelerator: Any
    state: Any

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """As in `Trainer`, for all processes together. Raises ValueError if it is not finite.

        float16 makes infinite gradients on its way to a scale that fits, and its scaler leaves their steps out.
        """
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[misc]
        if norm is None or self.accelerator.scaler is not None or math.isfinite(float(norm)):
            return norm
        raise ValueError(
            f"the gradient is {float(norm)} at step {self.state.global_step + 1}, though the loss is not; no weight "
            "was changed by it, and checkpoints stay. Set attn_implementation: eager, or a smaller learning_rate"
        )


class CheckedLossTrainer(SFTTrainer):
    """TRL's `SFTTrainer`, which stops on every process if the loss of a batch is NaN or infinite on one."""

    data_collator: Any

    def get_train_dataloader(self) -> Any:
        collator = self.data_collator
        self.data_collator = NamingCollator(collator)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """TRL's step. Raises ValueError if the loss of any process is not finite, before the weights are changed."""
        names = inputs.pop(ROW_NAMES, [])
        gather_head(self.accelerator.unwrap_model(model))
        loss = super().training_step(model, inputs, *args, **kwargs)
        is_finite = torch.isfinite(loss).all()
        if self.accelerator.gather(is_finite.reshape(1)).all():
            return loss
        step = self.state.global_step + 1
        if is_finite:
            raise ValueError(f"the loss of another process is not finite at step {step}; the run stops")
        output = Path(self.args.output_dir)
        folder = keep_batch(output, step, self.accelerator.process_index, loss.item(), inputs, names)
        raise ValueError(
            f"the loss is {loss.item()} at step {step} (rows {', '.join(names)}); no weight was changed by it, and the "
            f"batch is kept in {folder}: docs/train_on_gpus.md says how to open it"
        )


def keep_batch(
    output: Path, step: int, process: int, loss: float, batch: Mapping[str, Any], names: Sequence[str]
) -> Path:
    """Write a batch into a folder of `output`: its tensors as safetensors, and which rows it came from as JSON."""
    folder = output / f"bad-batch-{step}-process-{process}"
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in batch.items()
        if isinstance(value, torch.Tensor)
    }
    facts = {"step": step, "process": process, "loss": str(loss), "rows": list(names)}
    with replacing_folder(folder) as making:
        save_file(tensors, making / _TENSORS)
        write_text(making / _FACTS, json.dumps(facts, indent=1) + "\n")
    return folder
