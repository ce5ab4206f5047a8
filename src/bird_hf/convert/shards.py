"""Safetensors files written tensor by tensor, so that neither a file nor a model is ever whole in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import torch

from .layouts import Piece
from .weight_files import DTYPE_NAMES, Weights

SHARD_BYTES = 4_000_000_000  # of numbers in one file
_AT_ONCE = 1 << 24  # numbers that are converted and written together


@dataclass(frozen=True)
class Shard:
    """One file to be written: its header, as it stands in the file, and the pieces behind it in their order."""

    name: str
    pieces: tuple[Piece, ...]
    dtype: torch.dtype
    header: bytes
    size: int  # of the file

    def is_whole(self, folder: Path) -> bool:
        """Whether the folder holds this file, with these tensors in these places."""
        path = folder / self.name
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        with path.open("rb") as file:
            return file.read(len(self.header)) == self.header


def plan_shards(
    pieces: Iterable[Piece], shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype
) -> list[Shard]:
    """Pieces in files of at most `SHARD_BYTES`, or with one larger piece alone."""
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
    """A file by the format of safetensors: the header's length in 8 bytes, the header in JSON, the numbers."""
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
    text += b" " * (-len(text) % 8)  # the numbers are aligned
    header = len(text).to_bytes(8, "little") + text
    return Shard(name, tuple(pieces), dtype, header, len(header) + end)


def write_shard(shard: Shard, weights: Weights, folder: Path, progress: Callable[[int], object]) -> None:
    """Write a file, under another name until it is whole. `progress` is told of bytes as they are written.

    Raises ValueError where a number does not fit the file's dtype.
    """
    making = folder / f"{shard.name}.making"
    with making.open("wb") as file:
        progress(file.write(shard.header))
        for piece in shard.pieces:
            _write_piece(piece, weights, shard.dtype, file, progress)
        file.flush()
        os.fsync(file.fileno())
    making.replace(folder / shard.name)


def _write_piece(
    piece: Piece, weights: Weights, dtype: torch.dtype, file: IO[bytes], progress: Callable[[int], object]
) -> None:
    """Nothing of the piece is left afterwards, so that the file it is mapped from can be let go."""
    for part in piece.cut(weights[piece.source].read()).reshape(-1).split(_AT_ONCE):
        numbers = part.to(dtype)
        if dtype == torch.float16 and not numbers.isfinite().all():
            raise ValueError(f"{piece.source} holds numbers that float16 cannot; use bfloat16 or float32")
        progress(file.write(numbers.view(torch.uint8).numpy()))


def write_index(shards: list[Shard], folder: Path) -> None:
    """Which file holds which tensor; a single file needs no index."""
    if len(shards) == 1:
        return
    placed = {piece.target: shard.name for shard in shards for piece in shard.pieces}
    num_bytes = sum(shard.size - len(shard.header) for shard in shards)
    index = {"metadata": {"total_size": num_bytes}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
