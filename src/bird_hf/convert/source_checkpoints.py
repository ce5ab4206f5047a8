"""The original checkpoints that can be converted: a Qwen-VL folder, or a Qwen-7B folder and an OpenCLIP tower.

They are checked before anything is written: no tensor is missing or unknown, and each is cut to the shape that
the model has.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Qwen2Tokenizer

from ..hub.configuration_bird import BirdConfig
from ..hub.modeling_bird import BirdModel
from ..hub.processing_bird import IMAGE_TOKEN
from .layouts import (
    OPEN_CLIP_LEFT_OUT,
    OPEN_CLIP_TEXT,
    Piece,
    language_pieces,
    model_shapes,
    open_clip_pieces,
    qwen_vision_pieces,
)
from .qwen_tokenizer import RANKS_FILE, read_tokenizer
from .source_configs import assembled_config, read_config, read_tower
from .weight_reader import (
    DTYPE_NAMES,
    DTYPES,
    OPEN_CLIP_FILES,
    StoredTensor,
    Weights,
    find_files,
    open_weights,
    some,
)

_EMBEDDING = "transformer.wte.weight"
# Bytes read at both ends of a file: safetensors have their table of contents at the start, zip files at the end.
_ENDS = 1 << 20
_NO_TOKENIZER = (
    f"the source has no {RANKS_FILE}, so there is no tokenizer and processor: model and configuration only"
)


@dataclass(frozen=True)
class SourceCheckpoint:
    """A checked source: names, shapes and configuration; no weights are in memory.

    folder: of the language model. origin: name of the origin for the model card. remarks: what a user has to know
    about the converted model.
    """

    folder: Path
    origin: str
    files: tuple[Path, ...]
    config: BirdConfig
    weights: Weights
    pieces: tuple[Piece, ...]
    shapes: dict[str, tuple[int, ...]]
    tokenizer: Qwen2Tokenizer | None
    remarks: tuple[str, ...]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the word embeddings; float32 if it is float64."""
        dtype = DTYPES[self.weights[_EMBEDDING].dtype]
        return torch.float32 if dtype == torch.float64 else dtype

    def identity(self) -> str:
        """Returns a digest that changes with the files, from their sizes, times and first and last bytes."""
        digest = hashlib.sha256(json.dumps([self.config.to_dict(), self.remarks], default=str).encode())
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


def open_qwen_vl(folder: Path) -> SourceCheckpoint:
    """Open a folder in Qwen-VL's original layout. Raises ValueError, in one line, if it is not one, or is damaged."""
    config = read_config(folder)
    files = find_files(folder)
    weights = _without_frequencies(open_weights(files))
    pieces = (*language_pieces(config), *qwen_vision_pieces(config))
    _check_names(weights, pieces, folder, "Qwen-VL")
    shapes = _check_shapes(weights, pieces, config, folder)
    tokenizer = _tokenizer(folder)
    if tokenizer and (found := tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)) != config.image_token_id:
        raise ValueError(
            f"{folder}: {RANKS_FILE} puts {IMAGE_TOKEN} at {found}, config.json at {config.image_token_id}"
        )
    remarks = () if tokenizer else (_NO_TOKENIZER,)
    return SourceCheckpoint(
        folder, "qwen-vl", tuple(files), config, weights, pieces, shapes, tokenizer, remarks
    )


def open_parts(folder: Path, vision: Path, seed: int) -> SourceCheckpoint:
    """Open a Qwen-7B folder and an OpenCLIP tower (file or folder), with a new resampler and projector.

    seed: of the random initialization. Raises ValueError, in one line, if a source has another layout or is damaged.
    """
    if not vision.exists():
        raise ValueError(f"{vision}: no such file or folder; give an OpenCLIP checkpoint")
    vision_files = [vision] if vision.is_file() else find_files(vision, OPEN_CLIP_FILES)
    tower = open_weights(vision_files)
    tower_config = read_tower(vision, tower)
    tokenizer = _tokenizer(folder)
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN) if tokenizer else None
    config = assembled_config(folder, tower_config, image_token_id)
    files = find_files(folder)
    text = _without_frequencies(open_weights(files))

    text_pieces, tower_pieces = tuple(language_pieces(config)), tuple(open_clip_pieces(config))
    _check_names(text, text_pieces, folder, "Qwen-7B")
    left_out = tuple(name for name in OPEN_CLIP_LEFT_OUT if tower.pop(name, None))
    tower = {name: stored for name, stored in tower.items() if not name.startswith(OPEN_CLIP_TEXT)}
    _check_names(tower, tower_pieces, vision, "OpenCLIP")
    _check_shapes(text, text_pieces, config, folder)
    shapes = _check_shapes(tower, tower_pieces, config, vision)

    new = _new_parts(config, seed)
    pieces = (*text_pieces, *tower_pieces, *(Piece(name, name) for name in new))
    remarks = (
        f"resampler and projector are new (initialized at random, seed {seed}): train the model before you use it",
        f"left out of the OpenCLIP tower, because BiRD does not use it: {', '.join(left_out)}, "
        "the class token's position",
        *(() if tokenizer else (_NO_TOKENIZER,)),
    )
    weights = text | tower | new
    return SourceCheckpoint(
        folder, "assembled", (*files, *vision_files), config, weights, pieces, shapes, tokenizer, remarks
    )


def _tokenizer(folder: Path) -> Qwen2Tokenizer | None:
    path = folder / RANKS_FILE
    return read_tokenizer(path) if path.exists() else None


def _without_frequencies(weights: Weights) -> Weights:
    """Drop the rotary frequencies: they are computed, and only some versions store them."""
    return {name: stored for name, stored in weights.items() if not name.endswith("rotary_emb.inv_freq")}


def _new_parts(config: BirdConfig, seed: int) -> Weights:
    """Returns the resampler and the projector of a newly initialized model, which is made without layers."""
    vision = config.vision_config.to_dict() | {"num_hidden_layers": 0}
    text = config.text_config.to_dict() | {"num_hidden_layers": 0, "vocab_size": 1, "layer_types": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = BirdModel(BirdConfig(vision_config=vision, text_config=text, image_token_id=0)).state_dict()
    return {
        f"model.{name}": StoredTensor(tuple(tensor.shape), DTYPE_NAMES[tensor.dtype], tensor.detach)
        for name, tensor in drawn.items()
        if name.startswith(("resampler.", "projector."))
    }


def _check_names(weights: Weights, pieces: tuple[Piece, ...], where: Path, layout: str) -> None:
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


def _check_shapes(
    weights: Weights, pieces: tuple[Piece, ...], config: BirdConfig, where: Path
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the model's tensors. Raises ValueError if these pieces do not have them."""
    shapes = model_shapes(config)
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
    return shapes
