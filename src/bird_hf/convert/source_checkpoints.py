"""The sources of a BiRD checkpoint: a Qwen-VL folder, or a Qwen-7B folder and an OpenCLIP tower.

They are checked before anything is written: no tensor is missing or unknown, and each is cut to the shape that
the model has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import GenerationConfig, Qwen2Tokenizer

from ..atomic_writes import write_text
from ..checkpoint.load import copy_code
from ..checkpoint.model_card import read_origin, render_card
from ..hub.configuration_bird import BirdConfig
from ..hub.image_processing_bird import BirdImageProcessor
from ..hub.modeling_bird import BirdForConditionalGeneration, BirdModel
from ..hub.processing_bird import END_OF_TEXT, IMAGE_TOKEN, TURN_END, BirdProcessor
from .layouts import (
    OPEN_CLIP_LEFT_OUT,
    OPEN_CLIP_TEXT,
    Piece,
    block_sizes,
    language_pieces,
    model_shapes,
    open_clip_pieces,
    qwen_vision_pieces,
)
from .original import Converted, OriginalCheckpoint, check_names, check_shapes, without_computed
from .qwen_tokenizer import RANKS_FILE, read_tokenizer
from .source_configs import assembled_config, read_config, read_tower
from .weight_reader import DTYPE_NAMES, OPEN_CLIP_FILES, StoredTensor, Weights, find_files, open_weights

_EMBEDDING = "transformer.wte.weight"
_NO_TOKENIZER = (
    f"the source has no {RANKS_FILE}, so there is no tokenizer and processor: model and configuration only"
)


@dataclass(frozen=True)
class BirdSource(OriginalCheckpoint):
    """A checked source of a BiRD checkpoint. origin: name of the origin for the model card."""

    origin: str
    config: BirdConfig
    tokenizer: Qwen2Tokenizer | None

    @property
    def model_config(self) -> BirdConfig:
        return self.config

    @property
    def has_processor(self) -> bool:
        return self.tokenizer is not None

    def blocks(self) -> dict[str, int]:
        return block_sizes(self.shapes)

    def write_other_files(self, made: Converted, folder: Path) -> None:
        """Write configuration, code, generation defaults, licences, card and, if there is a tokenizer, processor."""
        config = self.config
        config.architectures = [BirdForConditionalGeneration.__name__]
        config.dtype = made.dtype
        config.save_pretrained(folder)
        copy_code(folder)
        generation = GenerationConfig(do_sample=False, max_new_tokens=100)  # BiRD: greedy, at most 100 (MIA)
        if tokenizer := self.tokenizer:
            generation.pad_token_id = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
            generation.eos_token_id = tokenizer.convert_tokens_to_ids([TURN_END, END_OF_TEXT])
            side = config.vision_config.image_size
            image_processor = BirdImageProcessor(size={"height": side, "width": side})
            BirdProcessor(image_processor, tokenizer, num_queries=config.num_queries).save_pretrained(folder)
        generation.save_pretrained(folder)
        self.copy_licences(folder)
        write_text(folder / "README.md", self._card(made))

    def check_opens(self, folder: Path) -> None:
        """Nothing to check: names and shapes are those of the model class, which comes with this package."""

    def _card(self, made: Converted) -> str:
        origin = read_origin(self.origin)
        limits = "".join(f"\n- {remark}" for remark in made.remarks)
        origin = replace(origin, limits=f"{origin.limits.rstrip()}\n- Stored as {made.dtype}.{limits}")
        return render_card(self.config, made.num_parameters, origin)


def open_qwen_vl(folder: Path) -> BirdSource:
    """Open a folder in Qwen-VL's original layout. Raises ValueError, in one line, if it is not one, or is damaged."""
    config = read_config(folder)
    files = find_files(folder)
    weights = without_computed(open_weights(files))
    pieces = (*language_pieces(config), *qwen_vision_pieces(config))
    check_names(weights, pieces, folder, "Qwen-VL")
    shapes = model_shapes(config)
    check_shapes(weights, pieces, shapes, folder)
    tokenizer = _tokenizer(folder)
    if tokenizer and (found := tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)) != config.image_token_id:
        raise ValueError(
            f"{folder}: {RANKS_FILE} puts {IMAGE_TOKEN} at {found}, config.json at {config.image_token_id}"
        )
    remarks = () if tokenizer else (_NO_TOKENIZER,)
    return BirdSource(
        folder, tuple(files), weights, pieces, shapes, _EMBEDDING, remarks, "qwen-vl", config, tokenizer
    )


def open_parts(folder: Path, vision: Path, seed: int) -> BirdSource:
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
    text = without_computed(open_weights(files))

    text_pieces, tower_pieces = tuple(language_pieces(config)), tuple(open_clip_pieces(config))
    check_names(text, text_pieces, folder, "Qwen-7B")
    left_out = tuple(name for name in OPEN_CLIP_LEFT_OUT if tower.pop(name, None))
    tower = {name: stored for name, stored in tower.items() if not name.startswith(OPEN_CLIP_TEXT)}
    check_names(tower, tower_pieces, vision, "OpenCLIP")
    shapes = model_shapes(config)
    check_shapes(text, text_pieces, shapes, folder)
    check_shapes(tower, tower_pieces, shapes, vision)

    new = _new_parts(config, seed)
    pieces = (*text_pieces, *tower_pieces, *(Piece(name, name) for name in new))
    remarks = (
        f"resampler and projector are new (initialized at random, seed {seed}): train the model before you use it",
        f"left out of the OpenCLIP tower, because BiRD does not use it: {', '.join(left_out)}, "
        "the class token's position",
        *(() if tokenizer else (_NO_TOKENIZER,)),
    )
    weights, all_files = text | tower | new, (*files, *vision_files)
    return BirdSource(
        folder, all_files, weights, pieces, shapes, _EMBEDDING, remarks, "assembled", config, tokenizer
    )


def _tokenizer(folder: Path) -> Qwen2Tokenizer | None:
    path = folder / RANKS_FILE
    return read_tokenizer(path) if path.exists() else None


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
