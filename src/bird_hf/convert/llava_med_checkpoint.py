"""The source of a LLaVA checkpoint: a folder in LLaVA-Med's layout, with a CLIP folder if that has no vision tower."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration

from ..atomic_writes import write_text
from ..checkpoint.load import silent_loading
from .layouts import Piece
from .llava_med_config import LlavaMedSettings, clip_config_of, read_clip_config, read_settings
from .llava_med_processor import IMAGE_TOKEN, check_prompt_ids, make_processor, read_llava_tokenizer
from .original import Converted, OriginalCheckpoint, check_names, check_shapes, without_computed
from .weight_reader import Weights, find_files, open_weights, some

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_TOWER = "model.vision_tower.vision_tower.vision_model."  # in LLaVA-Med's layout
_CLIP_TOWER = "vision_model."  # in a CLIP folder
# Of a CLIP folder: its text tower and what belongs to the contrastive loss.
_CLIP_LEFT_OUT = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
# From transformers' names in memory to those of LLaVA's published checkpoints, so that other programs find them too,
# and to LLaVA-Med's. The vision tower's depend on the source.
_NAMES = {
    "model.language_model.": ("language_model.model.", "model."),
    "lm_head.": ("language_model.lm_head.", "lm_head."),
    "model.multi_modal_projector.linear_1.": ("multi_modal_projector.linear_1.", "model.mm_projector.0."),
    "model.multi_modal_projector.linear_2.": ("multi_modal_projector.linear_2.", "model.mm_projector.2."),
}
_VISION = "model.vision_tower."
_BLOCKS = {
    "vision transformer": "vision_tower.",
    "projector": "multi_modal_projector.",
    "language model": "language_model.",
}
_MAX_NEW_TOKENS = 1024  # as in LLaVA-Med's llava/eval/model_vqa.py

_CARD = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
tags: [medical, research-only]
---

# LLaVA-Med for transformers

Converted by `bird convert` from the original layout (model type `llava_mistral`); the weights themselves are unchanged
but for their names and dtype, {dtype}. Their licence and their intended use stay those of the original: research only,
not for clinical care or decisions.

{remarks}
"""


@dataclass(frozen=True)
class LlavaMedSource(OriginalCheckpoint):
    """A checked folder in LLaVA-Med's layout."""

    config: LlavaConfig
    settings: LlavaMedSettings
    tokenizer: Any

    @property
    def model_config(self) -> LlavaConfig:
        return self.config

    @property
    def has_processor(self) -> bool:
        return True

    def blocks(self) -> dict[str, int]:
        sizes: Counter[str] = Counter(dict.fromkeys(_BLOCKS, 0))
        for name, shape in self.shapes.items():
            sizes[next(block for block, prefix in _BLOCKS.items() if name.startswith(prefix))] += prod(shape)
        return dict(sizes)

    def write_other_files(self, made: Converted, folder: Path) -> None:
        """Write configuration, processor, generation defaults, licences and card; check the ids of a prompt."""
        self.config.architectures = [LlavaForConditionalGeneration.__name__]
        self.config.dtype = made.dtype
        self.config.save_pretrained(folder)
        make_processor(self.tokenizer, self.config, self.settings.pads).save_pretrained(folder)
        check_prompt_ids(folder)
        GenerationConfig(
            do_sample=False,
            max_new_tokens=_MAX_NEW_TOKENS,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        ).save_pretrained(folder)
        self.copy_licences(folder)
        remarks = "\n".join(f"- {remark}" for remark in made.remarks)
        write_text(folder / "README.md", _CARD.format(dtype=made.dtype, remarks=remarks))

    def check_opens(self, folder: Path) -> None:
        """Open the folder by transformers, with one layer of each kind: the whole would need the memory of it."""
        try:
            config = LlavaConfig.from_pretrained(folder, local_files_only=True)
            config.text_config.num_hidden_layers = config.vision_config.num_hidden_layers = 1
            with silent_loading():
                _, found = LlavaForConditionalGeneration.from_pretrained(
                    folder, config=config, dtype="auto", local_files_only=True, output_loading_info=True
                )
        except Exception as error:  # loaders raise nearly any exception
            reason = " ".join(str(error).split())[:160]
            raise ValueError(f"transformers does not open the converted folder ({reason})") from error
        left = [name for name in found["unexpected_keys"] if ".layers." not in name]
        if wrong := [str(name) for name in (*found["missing_keys"], *found["mismatched_keys"], *left)]:
            raise ValueError(f"transformers does not find all weights in the converted folder: {some(wrong)}")


def open_llava_med(folder: Path, vision: Path | None) -> LlavaMedSource:
    """Open a folder in LLaVA-Med's layout. vision: a CLIP folder whose tower is taken, also if `folder` has one.

    Raises ValueError, in one line, if a folder is not one of these or is damaged.
    """
    settings = read_settings(folder)
    files = find_files(folder)
    weights = without_computed(open_weights(files))
    own = {name for name in weights if name.startswith(_TOWER)}
    if vision is None:
        if not own:
            raise ValueError(f"{folder} has no vision tower; give a folder of {settings.tower} with --vision")
        tower, prefix, tower_files = weights, _TOWER, []
        vision_config = clip_config_of(weights, _TOWER, settings)
    else:
        vision_config = read_clip_config(vision)
        tower_files, prefix = find_files(vision), _CLIP_TOWER
        tower = _clip_tower(tower_files)
        weights = {name: stored for name, stored in weights.items() if name not in own}
    tokenizer = read_llava_tokenizer(folder)
    config = _config(settings, vision_config, tokenizer)

    shapes, pieces = _pieces(config, prefix, config.text_config.vocab_size - settings.text["vocab_size"])
    tower_pieces = tuple(piece for piece in pieces if piece.source.startswith(prefix))
    rest = tuple(piece for piece in pieces if not piece.source.startswith(prefix))
    check_names(weights, pieces if vision is None else rest, folder, "LLaVA-Med")
    check_shapes(weights, rest, shapes, folder)
    if vision is not None:
        check_names(tower, tower_pieces, vision, "CLIP")
    check_shapes(tower, tower_pieces, shapes, vision or folder)
    all_files, remarks = (*files, *tower_files), _remarks(settings, vision, own)
    return LlavaMedSource(
        folder, all_files, weights | tower, pieces, shapes, _EMBEDDING, remarks, config, settings, tokenizer
    )


def _clip_tower(files: list[Path]) -> Weights:
    weights = without_computed(open_weights(files))
    return {name: stored for name, stored in weights.items() if not name.startswith(_CLIP_LEFT_OUT)}


def _config(settings: LlavaMedSettings, vision: Any, tokenizer: Any) -> LlavaConfig:
    rows = settings.text["vocab_size"]
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if image_token_id > rows:
        raise ValueError(
            f"{settings.path}: the model has {rows} tokens, its tokenizer {image_token_id}; "
            "give the tokenizer files of this checkpoint"
        )
    return settings.config(vision, image_token_id, tokenizer.pad_token_id)


def _pieces(
    config: LlavaConfig, tower_prefix: str, new_rows: int
) -> tuple[dict[str, tuple[int, ...]], tuple[Piece, ...]]:
    """Returns the shapes of the tensors to write, and how each is made. new_rows: of the vocabulary, 0 or 1."""
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    names = _NAMES | {_VISION: ("vision_tower.vision_model.", tower_prefix)}
    shapes, pieces = {}, []
    for name, tensor in model.state_dict().items():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        target, source = (to + name.removeprefix(prefix) for to in names[prefix])
        shapes[target] = tuple(tensor.shape)
        grows = new_rows and source in (_EMBEDDING, _HEAD)
        pieces.append(Piece(target, source, _with_mean_row) if grows else Piece(target, source))
    return shapes, tuple(pieces)


def _with_mean_row(table: torch.Tensor) -> torch.Tensor:
    """Add the mean of the rows, (V, C) -> (V + 1, C): the logit of the image token is then the mean of all others.

    A mean is never above the largest, so the model does not answer with the image token.
    """
    return torch.cat([table, table.mean(0, keepdim=True, dtype=torch.float32).to(table.dtype)])


def _remarks(settings: LlavaMedSettings, vision: Path | None, own: set[str]) -> tuple[str, ...]:
    if vision is None:
        return (
            "the vision tower is the checkpoint's own; LLaVA-Med's published code loads "
            f"{settings.tower} in its place (microsoft/LLaVA-Med#105), which --vision does here",
        )
    left_out = f", and the {len(own)} tensors of the checkpoint's own tower are left out" if own else ""
    return (f"the vision tower is that of {vision.name}{left_out}",)
