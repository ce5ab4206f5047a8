"""What `convert` needs of an original checkpoint, whatever its layout: tensors, other files, and how it is opened."""

from __future__ import annotations

import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedConfig

from .layouts import Piece
from .weight_reader import DTYPES, Weights, some

# Bytes read at both ends of a file: safetensors have their table of contents at the start, zip files at the end.
_ENDS = 1 << 20


@dataclass(frozen=True)
class Converted:
    """The result of `convert`.

    blocks: stored parameters per block of the model. has_processor: False if the source has no `qwen.tiktoken`.
    remarks: what a user has to know about the model.
    """

    path: Path
    blocks: dict[str, int]
    dtype: str
    has_processor: bool
    remarks: tuple[str, ...]

    @property
    def num_parameters(self) -> int:
        return sum(self.blocks.values())


@dataclass(frozen=True)
class OriginalCheckpoint(ABC):
    """A checked source: names, shapes and configuration; no weights are in memory.

    folder: of the language model. shapes: of the tensors to write, by their names there. embedding: name of the word
    embeddings in the source. remarks: what a user has to know about the converted model.
    """

    folder: Path
    files: tuple[Path, ...]
    weights: Weights
    pieces: tuple[Piece, ...]
    shapes: dict[str, tuple[int, ...]]
    embedding: str
    remarks: tuple[str, ...]

    @property
    @abstractmethod
    def model_config(self) -> PreTrainedConfig:
        """The configuration of the converted model."""

    @property
    @abstractmethod
    def has_processor(self) -> bool:
        """Whether the converted folder gets a tokenizer and a processor."""

    @abstractmethod
    def blocks(self) -> dict[str, int]:
        """Returns the stored parameters per block of the converted model."""

    @abstractmethod
    def write_other_files(self, made: Converted, folder: Path) -> None:
        """Write everything but the weights."""

    @abstractmethod
    def check_opens(self, folder: Path) -> None:
        """Raises ValueError, in one line, if the written folder does not open as the model that it shall be."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the word embeddings; float32 if it is float64."""
        dtype = DTYPES[self.weights[self.embedding].dtype]
        return torch.float32 if dtype == torch.float64 else dtype

    def identity(self) -> str:
        """Returns a digest that changes with the files, from their sizes, times and first and last bytes."""
        settings = [self.model_config.to_dict(), self.remarks]
        digest = hashlib.sha256(json.dumps(settings, default=str).encode())
        for piece in self.pieces:
            digest.update(f"{piece.source} -> {piece.target}\n".encode())
        for path in self.files:
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
            with path.open("rb") as file:
                digest.update(file.read(_ENDS))
                file.seek(max(0, status.st_size - _ENDS))
                digest.update(file.read(_ENDS))
        return digest.hexdigest()

    def copy_licences(self, folder: Path) -> None:
        """Copy the licence files of the source."""
        for licence in (*self.folder.glob("LICENSE*"), *self.folder.glob("NOTICE*")):
            if licence.is_file():
                shutil.copyfile(licence, folder / licence.name)


def without_computed(weights: Weights) -> Weights:
    """Drop rotary frequencies and position ids: they are computed, and only some versions store them."""
    computed = ("rotary_emb.inv_freq", "embeddings.position_ids")
    return {name: stored for name, stored in weights.items() if not name.endswith(computed)}


def check_names(weights: Weights, pieces: tuple[Piece, ...], where: Path, layout: str) -> None:
    """Raises ValueError, in one line, if tensors of the layout are missing, or others are there."""
    wanted = {piece.source for piece in pieces}
    if not wanted & weights.keys():
        raise ValueError(
            f"{where} is of an unknown layout: it contains {some(weights) or 'nothing'}, and no tensor of {layout}"
        )
    if missing := wanted - weights.keys():
        raise ValueError(f"{where} lacks {len(missing)} tensors: {some(missing)}; is the download complete?")
    if unexpected := weights.keys() - wanted:
        raise ValueError(
            f"{where} contains {len(unexpected)} tensors that are not {layout}'s: {some(unexpected)}; "
            "give the original checkpoint"
        )


def check_shapes(
    weights: Weights, pieces: tuple[Piece, ...], shapes: Mapping[str, tuple[int, ...]], where: Path
) -> None:
    """Raises ValueError, in one line, if these pieces do not have the shapes of the tensors to write."""
    wrong = []
    for piece in pieces:
        stored = weights[piece.source]
        if stored.dtype not in DTYPES:
            raise ValueError(
                f"{where}: {piece.source} is stored as {stored.dtype}; only F64, F32, F16 and BF16 can be converted"
            )
        try:
            cut = tuple(piece.cut(torch.empty(stored.shape, device="meta")).shape)
        except (RuntimeError, IndexError):
            cut = ()
        if cut != shapes[piece.target]:
            wrong.append(
                f"{piece.source} has shape {stored.shape}, which does not give {shapes[piece.target]}"
            )
    if wrong:
        raise ValueError(
            f"{where} has tensors of a wrong shape: {some(wrong)}; is config.json of this checkpoint?"
        )
