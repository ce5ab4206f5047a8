"""FLOPs of training by formula, from a configuration alone.

A product of (n, a) and (a, b) takes 2 n a b. Of a linear layer the backward pass takes as much again for the gradient
of its weight, and as much again for that of its input. So each parameter of a matrix takes, for each row it is
applied to:

    2  forward only (the frozen tower, under no_grad)
    4  frozen, with gradients passing through to something trained below (2 forward, 2 for the input)
       or trained, with nothing trained below (2 forward, 2 for the weight)
    6  trained, with gradients passing through

Attention takes 2 products of `pairs x width` forward (scores and their use) and 4 backward: 4 or 12 x pairs x width.
Norms, activations and rotations are left out. `tests/train/test_flops.py` compares the formulas with torch's counter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from ..hub.configuration_bird import BirdConfig


@dataclass(frozen=True)
class Work:
    """What is computed, in one step or in an epoch.

    images: images that the vision transformer reads. tokens: positions of the language model, padding included.
    supervised: positions that the head is computed at. attended: pairs of positions that attention needs, over all
    rows.
    """

    images: float
    tokens: float
    supervised: float
    attended: float

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def times(self, factor: float) -> Work:
        return Work(*(getattr(self, each.name) * factor for each in fields(self)))


def sum_of(works: Iterable[Work]) -> Work:
    total = Work(0, 0, 0, 0)
    for work in works:
        total += work
    return total


@dataclass(frozen=True)
class Part:
    """How a part of the model trains: its own weights, and `adapter` parameters of LoRA beside them.

    adapts_last: whether the last matrix of a layer (down_proj) has an adapter.
    """

    trained: bool = False
    adapter: int = 0
    adapts_last: bool = False

    @property
    def learns(self) -> bool:
        return self.trained or self.adapter > 0

    def factor(self, below: bool) -> int:
        """FLOPs per parameter and row; `below`: whether something nearer to the input learns."""
        return 2 + 2 * self.trained + 2 * below


@dataclass(frozen=True)
class Parts:
    """How each part of the model trains; the default is the paper's (BiRD 4.2)."""

    vision_tower: Part = Part()
    resampler: Part = Part(trained=True)
    projector: Part = Part()
    language_model: Part = Part(trained=True)  # layers, embeddings and head


def training_flops(config: BirdConfig, work: Work, parts: Parts | None = None) -> float:
    """FLOPs of the forward and backward passes of `work`.

    A forward pass that gradient checkpointing repeats is not counted, as in model FLOPs utilisation (PaLM, arXiv
    2204.02311, appendix B); see `repeated_flops`.
    """
    parts = parts or Parts()
    seen = parts.vision_tower.learns or parts.resampler.learns or parts.projector.learns
    return (
        tower_flops(config, work.images, parts.vision_tower)
        + adapter_flops(config, work.images, parts)
        + language_model_flops(config, work, parts.language_model, seen)
    )


def language_model_flops(config: BirdConfig, work: Work, part: Part, below: bool) -> float:
    """Of the decoder layers and the head; `below`: whether gradients go on to the image features."""
    text = config.text_config
    layer, _ = layer_parameters(config)
    through = part.factor(below or part.learns)
    layers = text.num_hidden_layers * (through * layer * work.tokens + 12 * work.attended * text.hidden_size)
    if not part.trained and not below:  # the first queries, keys and values need no gradient of their input
        layers -= 2 * attention_inputs(config) * work.tokens
    adapters = 6 * part.adapter * work.tokens
    return layers + adapters + through * text.hidden_size * text.vocab_size * work.supervised


def repeated_flops(config: BirdConfig, work: Work, parts: Parts | None = None) -> float:
    """Of the forward pass that checkpointing of the decoder layers repeats.

    torch stops a repetition when the last tensor that the backward pass needs is there. Without an adapter there this
    is before the last product of a layer (down_proj).
    """
    text, part = config.text_config, (parts or Parts()).language_model
    repeated, _ = layer_parameters(config)
    if not part.adapts_last:
        repeated -= text.hidden_size * text.intermediate_size
    layers = text.num_hidden_layers * (2 * repeated * work.tokens + 4 * work.attended * text.hidden_size)
    return layers + 2 * part.adapter * work.tokens


def layer_parameters(config: BirdConfig) -> tuple[int, int]:
    """Of one decoder layer: parameters of its matrices, and those of LoRA of rank 1 on all of them."""
    text = config.text_config
    width, inner = text.hidden_size, text.intermediate_size
    key_value = width * text.num_key_value_heads // text.num_attention_heads
    shapes = [(width, width), (width, key_value), (width, key_value), (width, width)]
    shapes += [(width, inner), (width, inner), (inner, width)]
    return sum(a * b for a, b in shapes), sum(a + b for a, b in shapes)


def attention_inputs(config: BirdConfig) -> int:
    """Parameters of one decoder layer's projections to queries, keys and values."""
    text = config.text_config
    return (
        text.hidden_size**2
        * (text.num_attention_heads + 2 * text.num_key_value_heads)
        // (text.num_attention_heads)
    )


def tower_flops(config: BirdConfig, images: float, part: Part | None = None) -> float:
    """Of the vision transformer; frozen, and then forward only, unless `part` says otherwise."""
    part = part or Part()
    vision = config.vision_config
    patches, width = vision.patch_grid**2, vision.hidden_size
    embedding = vision.num_channels * vision.patch_size**2 * width
    block = 4 * width**2 + 2 * width * vision.intermediate_size
    attention = (12 if part.learns else 4) * patches**2 * width
    of_block = part.factor(part.learns) * patches * block + attention
    flops = part.factor(False) * patches * embedding + vision.num_hidden_layers * of_block
    return images * (flops + 6 * part.adapter * patches)


def adapter_flops(config: BirdConfig, images: float, parts: Parts | None = None) -> float:
    """Of resampler and projector, BiRD's vision-language adapter."""
    parts = parts or Parts()
    vision, queries = config.vision_config, config.num_queries
    patches, width = vision.patch_grid**2, vision.resampler_hidden_size
    below, part = parts.vision_tower.learns, parts.resampler
    seen = below or part.learns
    flops = part.factor(below) * patches * vision.hidden_size * width  # kv_proj
    flops += (
        part.factor(seen) * width**2 * (2 * patches + 2 * queries)
    )  # keys and values; queries and the output
    flops += (12 if seen else 4) * queries * patches * width
    flops += (
        6 * part.adapter * (patches + queries) / 2
    )  # LoRA: half of its matrices read patches, half queries
    projector = parts.projector.factor(seen) * queries * width * config.text_config.hidden_size
    return images * (flops + projector)
