"""Write sharded safetensors tensor by tensor, so that neither a shard nor the model is in memory as a whole.

safetensors' own `save_file` needs all tensors of a file at once: 4 GB for each shard of the full model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import torch

from ..atomic_writes import replacing_file, write_text
from .layouts import Piece
from .weight_reader import DTYPE_NAMES, Weights

SHARD_BYTES = 4_000_000_000  # of tensor data per file
_CHUNK = 1 << 24  # elements that are converted and written at a time


@dataclass(frozen=True)
class Shard:
    """A file to write: the bytes of its header, and the tensors that follow in this order."""

    name: str
    pieces: tuple[Piece, ...]
    dtype: torch.dtype
    header: bytes
    size: int  # of the file

    def is_complete(self, folder: Path) -> bool:
        """Whether the folder contains this file, with the same header and size."""
        path = folder / self.name
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        with path.open("rb") as file:
            return file.read(len(self.header)) == self.header


def plan_shards(
    pieces: Iterable[Piece], shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype
) -> list[Shard]:
    """Distribute tensors over files of at most `SHARD_BYTES`; a larger tensor gets a file of its own."""
    groups: list[list[Piece]] = [[]]
    room = SHARD_BYTES
    for piece in pieces:
        size = prod(shapes[piece.target]) * dtype.itemsize
        if size > room and groups[-1]:
            groups.append([])
            room = SHARD_BYTES
        groups[-1].append(piece)
        room -= size
    names = [f"model-{i:05}-of-{len(groups):05}.safetensors" for i in range(1, len(groups) + 1)]
    if len(groups) == 1:
        names = ["model.safetensors"]
    return [_plan(name, group, shapes, dtype) for name, group in zip(names, groups, strict=True)]


def _plan(name: str, pieces: list[Piece], shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> Shard:
    """Plan a file in the safetensors format: the header's length in 8 bytes, the header as JSON, the tensor data."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for piece in pieces:
        shape, start = shapes[piece.target], end
        end += prod(shape) * dtype.itemsize
        entries[piece.target] = {
            "dtype": DTYPE_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensor data is aligned to 8 bytes
    header = len(text).to_bytes(8, "little") + text
    return Shard(name, tuple(pieces), dtype, header, len(header) + end)


def write_shard(shard: Shard, weights: Weights, folder: Path, progress: Callable[[int], object]) -> None:
    """Write a file atomically, and call `progress` with each number of bytes written.

    Raises ValueError if a value is out of the range of the file's dtype.
    """
    with replacing_file(folder / shard.name) as making, making.open("wb") as file:
        progress(file.write(shard.header))
        for piece in shard.pieces:
            _write_piece(piece, weights, shard.dtype, file, progress)


def _write_piece(
    piece: Piece, weights: Weights, dtype: torch.dtype, file: IO[bytes], progress: Callable[[int], object]
) -> None:
    """Write one tensor. No reference to it remains, so that the file that it is mapped from can be unmapped."""
    for part in piece.cut(weights[piece.source].read()).reshape(-1).split(_CHUNK):
        numbers = part.to(dtype)
        if dtype == torch.float16 and not numbers.isfinite().all():
            raise ValueError(
                f"{piece.source} has values out of the range of float16; use bfloat16 or float32"
            )
        progress(file.write(numbers.view(torch.uint8).numpy()))


def write_index(shards: list[Shard], folder: Path) -> None:
    """Write the index that maps tensors to files; a single file needs none."""
    if len(shards) == 1:
        return
    placed = {piece.target: shard.name for shard in shards for piece in shard.pieces}
    num_bytes = sum(shard.size - len(shard.header) for shard in shards)
    index = {"metadata": {"total_size": num_bytes}, "weight_map": placed}
    write_text(folder / "model.safetensors.index.json", json.dumps(index, indent=2))
