"""FLOPs of a training step by formula.

A product of (n, a) and (a, b) takes 2 n a b. Of a linear layer the backward pass takes as much again for the gradient
of its weight, and as much again for that of its input. So each parameter of a matrix takes, for each row it is
applied to:

    2  forward only (the frozen tower, under no_grad)
    4  frozen, with gradients passing through to something trained below (2 forward, 2 for the input)
       or trained, with nothing trained below (2 forward, 2 for the weight)
    6  trained, with gradients passing through

Attention takes 2 products of `pairs x width` forward (scores and their use) and 4 backward: 4 or 12 x pairs x width.
A forward pass that gradient checkpointing repeats is not counted: MFU is about what training needs, not about what is
done for lack of memory. Norms, activations and rotations are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from bird_hf.hub.configuration_bird import BirdConfig


@dataclass(frozen=True)
class Step:
    """What a step computes. attended: pairs of positions, over all rows; supervised: positions with a label."""

    images: int
    tokens: int
    supervised: int
    attended: int


def training_flops(config: BirdConfig, step: Step, lora_rank: int | None = None) -> float:
    """Of one step as the paper freezes (tower and projector frozen, resampler trained).

    The language model is trained in full, or by LoRA of that rank on all of its linear layers.
    """
    text = config.text_config
    layer, lora_of_rank_1 = layer_parameters(config)
    through = 6 if lora_rank is None else 4
    layers = through * layer * step.tokens + 12 * step.attended * text.hidden_size
    layers += 6 * (lora_rank or 0) * lora_of_rank_1 * step.tokens
    head = through * text.hidden_size * text.vocab_size * step.supervised
    return (
        text.num_hidden_layers * layers
        + head
        + vision_flops(config, step.images)
        + adapter_flops(config, step.images)
    )


def layer_parameters(config: BirdConfig) -> tuple[int, int]:
    """Of one decoder layer: parameters of its matrices, and those of LoRA of rank 1 on all of them."""
    text = config.text_config
    width, inner = text.hidden_size, text.intermediate_size
    key_value = width * text.num_key_value_heads // text.num_attention_heads
    shapes = [(width, width), (width, key_value), (width, key_value), (width, width)]
    shapes += [(width, inner), (width, inner), (inner, width)]
    return sum(a * b for a, b in shapes), sum(a + b for a, b in shapes)


def vision_flops(config: BirdConfig, images: int) -> float:
    """Of the tower, forward only."""
    vision = config.vision_config
    patches, width = vision.patch_grid**2, vision.hidden_size
    embedding = vision.num_channels * vision.patch_size**2 * width
    block = 4 * width**2 + 2 * width * vision.intermediate_size
    attention = 4 * patches**2 * width
    return images * (2 * patches * embedding + vision.num_hidden_layers * (2 * patches * block + attention))


def adapter_flops(config: BirdConfig, images: int) -> float:
    """Of resampler (trained) and projector (frozen, gradients pass through)."""
    vision, queries = config.vision_config, config.num_queries
    patches, width = vision.patch_grid**2, vision.resampler_hidden_size
    resampler = 4 * patches * vision.hidden_size * width  # kv_proj: nothing below it is trained
    resampler += 6 * width**2 * (2 * patches + 2 * queries)  # keys and values; queries and the output
    resampler += 12 * queries * patches * width
    return images * (resampler + 4 * queries * width * config.text_config.hidden_size)
