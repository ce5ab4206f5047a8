"""A loss that is NaN or infinite: its batch is kept on disk, and the run stops on every process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..atomic_writes import replacing_folder, write_text

ROW_NAMES = "row_names"  # the key of a batch that holds the image_id of its rows
_TENSORS, _FACTS = "batch.safetensors", "batch.json"


@dataclass(frozen=True)
class NamingCollator:
    """Adds the names of its rows to the batch of another collator, so that a bad batch can be traced to its data."""

    collator: Callable[[Any], dict[str, Any]]

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        return {**self.collator(rows), ROW_NAMES: list(_names(rows))}


def _names(rows: Any) -> list[str]:
    if isinstance(rows, Mapping):
        return [str(rows.get("image_id", "without image_id"))]
    return [name for row in rows for name in _names(row)]  # a row, or rows that are packed together


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
