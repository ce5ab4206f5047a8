"""A new BiRD model with random weights, and its processor with a tokenizer trained on the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ...hub.configuration_bird import BirdConfig
from ...hub.grounding import BOX_CLOSE, BOX_OPEN
from ...hub.image_processing_bird import BirdImageProcessor
from ...hub.modeling_bird import BirdForConditionalGeneration, BirdModel, sine_cosine_grid
from ...hub.processing_bird import END_OF_TEXT, IMAGE_TOKEN, TURN_END, BirdProcessor
from ..recipe import nearest
from .coordinate_tokens import coordinate_ids, init_coordinate_embeddings, runs_of
from .tokenizer import train_tokenizer

_OWN_POSITION_MARGIN = (
    2.0  # attention logits between a query's own position and its neighbour's, at the start
)
_RENAMED = {
    "whole_numbers": "coordinate_tokens",
    "box_smoothing": "coordinate_smoothing_sigma",
    "word_bias": "sequence_bias",
}


@dataclass(frozen=True)
class NewModel:
    """Sizes of a new model, and how it writes boxes.

    vision_config: fields of `BirdVisionConfig`. text_config: fields of a causal language model's configuration, with
        `model_type`.
    vocab_size: size of the tokenizer to train, without coordinate tokens.
    coordinate_tokens: give each number from 0 to 1000 a token of its own; see `coordinate_tokens.py`.
    coordinate_smoothing_sigma: see `BirdConfig`; needs coordinate_tokens.
    sequence_bias: added to the logits of words of one token in generation (transformers' `sequence_bias`).
    lowercase_questions: see `BirdProcessor`.
    local_resampler_init: start each query of the resampler with attention at its own position in the image.
    """

    vision_config: dict[str, Any]
    text_config: dict[str, Any]
    vocab_size: int
    coordinate_tokens: bool = False
    coordinate_smoothing_sigma: float = 0.0
    sequence_bias: dict[str, float] = field(default_factory=dict)
    lowercase_questions: bool = False
    local_resampler_init: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NewModel:
        """Raises ValueError if a key is unknown (the message names the nearest one) or one of the sizes is missing."""
        known = [item.name for item in fields(cls)]
        for key in values:
            if key not in known:
                new = f"it is now called {_RENAMED[key]}" if key in _RENAMED else nearest(key, known)
                raise ValueError(f"new_model: {key} is not one of its fields; {new or ', '.join(known)}")
        if missing := [name for name in known[:3] if name not in values]:
            raise ValueError(f"new_model lacks {', '.join(missing)}; see recipes/nano.yaml")
        return cls(**values)

    def __post_init__(self) -> None:
        if self.coordinate_smoothing_sigma and not self.coordinate_tokens:
            raise ValueError("new_model: coordinate_smoothing_sigma needs coordinate_tokens; set those too")


def create_model(
    sizes: NewModel, texts: Iterable[str], attn_implementation: str | dict[str, str] | None = None
) -> tuple[BirdForConditionalGeneration, BirdProcessor]:
    """A model with random weights of the given sizes, and a processor whose tokenizer is trained on `texts`."""
    tokenizer = train_tokenizer(texts, sizes.vocab_size, sizes.coordinate_tokens)
    config = _config(sizes, tokenizer)
    model = BirdForConditionalGeneration._from_config(config, attn_implementation=attn_implementation)
    if sizes.local_resampler_init:
        init_local_attention(model.model)
    model.generation_config.eos_token_id = config.text_config.eos_token_id
    model.generation_config.pad_token_id = config.text_config.pad_token_id
    if sizes.sequence_bias:
        model.generation_config.sequence_bias = _sequence_bias(sizes.sequence_bias, tokenizer)
    ids = coordinate_ids(tokenizer)
    if ids is not None:
        for weight in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            init_coordinate_embeddings(weight, ids)
    side = config.vision_config.image_size
    images = BirdImageProcessor(size={"height": side, "width": side})
    processor = BirdProcessor(
        images, tokenizer, num_queries=config.num_queries, lowercase_questions=sizes.lowercase_questions
    )
    return model, processor


def _config(sizes: NewModel, tokenizer: PreTrainedTokenizerBase) -> BirdConfig:
    to_id = tokenizer.convert_tokens_to_ids
    text = {
        "bos_token_id": None,
        "eos_token_id": to_id(TURN_END),
        "pad_token_id": to_id(END_OF_TEXT),
        "vocab_size": len(tokenizer),
        **sizes.text_config,
    }
    smoothing: dict[str, Any] = {}
    if sizes.coordinate_smoothing_sigma:
        ids = coordinate_ids(tokenizer)
        assert ids is not None  # `NewModel` asks for coordinate_tokens
        smoothing = {
            "coordinate_smoothing_sigma": sizes.coordinate_smoothing_sigma,
            "box_token_ids": to_id([BOX_OPEN, BOX_CLOSE]),
            "coordinate_token_runs": runs_of(ids.tolist()),
        }
    return BirdConfig(
        text_config=text,
        image_token_id=to_id(IMAGE_TOKEN),
        tie_word_embeddings=text.get("tie_word_embeddings", False),
        vision_config=dict(sizes.vision_config),
        **smoothing,
    )


def _sequence_bias(words: Mapping[str, float], tokenizer: PreTrainedTokenizerBase) -> list[list[Any]]:
    """In transformers' form: a list of token ids, and what is added to the logit of the last one."""
    biases: list[list[Any]] = []
    for word, bias in words.items():
        ids = tokenizer.encode(word, add_special_tokens=False)
        if len(ids) != 1:
            raise ValueError(
                f"new_model: sequence_bias is for words of one token, and {word!r} has {len(ids)}"
            )
        biases.append([ids, bias])
    return biases


@torch.no_grad()
def init_local_attention(model: BirdModel) -> None:
    """Start with attention from each query to its own position in the image, instead of uniform attention.

    The position table of the vision tower becomes sines and cosines large enough to last through its blocks. Query
    and key projections of the resampler become the same permutation, which distributes sines and cosines of rows and
    columns evenly over the heads (an identity would give each head one axis only), scaled so that the neighbouring
    position gets `_OWN_POSITION_MARGIN` logits less. Contents start small compared with positions on both sides.
    """
    table, resampler = model.vision_tower.position_embedding, model.resampler
    table.copy_(sine_cosine_grid(*table.shape))
    attention, positions = resampler.attention, sine_cosine_grid(*resampler.positions.shape)
    places, width = positions.shape
    heads = width // attention.head_dim
    own, neighbour = (positions[0] * positions[[0, min(1, places - 1)]]).sum(-1)
    drop = float(own - neighbour) * attention.scaling / heads  # of a logit, mean over heads
    scale = (_OWN_POSITION_MARGIN / drop) ** 0.5 if drop > 0 else 1.0
    order = torch.arange(width).reshape(-1, heads).T.flatten()  # head h takes dimensions h, h + heads, ...
    permutation = torch.eye(width)[order] * scale
    attention.q_proj.weight.copy_(permutation)
    attention.k_proj.weight.copy_(permutation)
    resampler.query_norm.weight.fill_(0.1 / scale)
    resampler.kv_norm.weight.fill_(0.1 / scale)
