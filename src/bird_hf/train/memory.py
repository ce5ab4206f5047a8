"""Memory of training on one device, by formula: weights, gradients, optimizer states, activations, buffers.

States of mixed-precision Adam and their sharding are those of ZeRO (arXiv 1910.02054, section 3): 2 bytes a weight, 2 a
gradient, 12 for float32 weights and Adam's two moments; stage 2 divides all but the weights by the number of devices,
stage 3 the weights too. `docs/plan.md` has all formulas and their sources.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..hub.configuration_bird import BirdConfig
from .flops import Parts, Work, layer_parameters

_BUCKET_PARAMETERS = 500_000_000  # DeepSpeed's reduce_bucket_size and allgather_bucket_size
_LIVE_PARAMETERS = 1_000_000_000  # DeepSpeed's stage3_max_live_parameters
_LOSS_BYTES = (
    12  # per logit: log-probabilities and two gradients in float32, while the loss is differentiated
)
_NF4_BYTES = 0.5 + 4 / 64  # a float32 scale for each block of 64 (QLoRA, arXiv 2305.14314, section 2)
_NF4_NESTED_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # scales in 8 bits (double quantization, section 3)


@dataclass(frozen=True)
class Weights:
    """Numbers of parameters of a model in training.

    frozen: parameters that do not train. quantizable: those of them that loading in 4 bits quantizes. trained:
    parameters that train. layer: those of the largest decoder layer.
    """

    frozen: int
    quantizable: int
    trained: int
    layer: int


@dataclass(frozen=True)
class Setting:
    """A way of training: what is kept in how many bytes, and what is divided among devices.

    master: bytes per trained parameter beside weight, gradient and moments (a float32 copy). moments: bytes of the
    optimizer's states. copies: bytes per trained parameter of bf16 copies that autocast keeps for a forward pass.
    shard_*: whether each device holds only its share. four_bit: bytes per quantized frozen parameter. autocast: float32
    weights, bf16 products. engine: ddp, zero2, zero3 or fsdp.
    """

    name: str
    weight: float
    frozen_weight: float
    gradient: float
    moments: float
    master: float = 0
    copies: float = 0
    shard_weights: bool = False
    shard_gradients: bool = False
    shard_states: bool = False
    four_bit: float | None = None
    autocast: bool = False
    engine: str = "ddp"


@dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    buffers: float

    @property
    def total(self) -> float:
        return sum(getattr(self, each.name) for each in fields(self))


def memory(setting: Setting, weights: Weights, activations: float, devices: int) -> Memory:
    """Of one device of `devices`."""
    quantized = weights.quantizable if setting.four_bit is not None else 0
    held = setting.weight * weights.trained + setting.frozen_weight * (weights.frozen - quantized)
    held += (setting.four_bit or 0) * quantized
    states = (setting.moments + setting.master) * weights.trained
    return Memory(
        held / (devices if setting.shard_weights else 1),
        setting.gradient * weights.trained / (devices if setting.shard_gradients else 1),
        states / (devices if setting.shard_states else 1),
        activations,
        setting.copies * weights.trained + _buffers(setting, weights, devices),
    )


def _buffers(setting: Setting, weights: Weights, devices: int) -> float:
    """What engines set aside to communicate: gradients in buckets, gathered weights."""
    if setting.engine == "zero2":
        return 2 * 2 * min(_BUCKET_PARAMETERS, weights.trained)
    if setting.engine == "zero3":
        live = min(_LIVE_PARAMETERS, weights.trained + weights.frozen)
        return 2 * live + 2 * min(_BUCKET_PARAMETERS, weights.trained)
    if setting.engine == "fsdp":  # two layers' weights and one layer's gradients, whole
        return 3 * 2 * weights.layer
    return (
        setting.gradient * weights.trained if devices > 1 else 0
    )  # DDP's buckets are a copy of all gradients


def full_settings(eight_bit: bool = False) -> list[Setting]:
    """Ways of training all weights that a recipe trains; bf16 states, in which small steps are lost, come last."""
    moments = 2.0 if eight_bit else 8.0  # the 8-bit optimizer quantizes both moments (arXiv 2110.02861)
    zero: dict[str, Any] = {"weight": 2, "frozen_weight": 2, "gradient": 2, "master": 4, "moments": moments}
    small = 2.0 if eight_bit else 4.0
    return [
        Setting("DDP, float32 weights", 4, 4, 4, moments, copies=2, autocast=True),
        Setting("ZeRO-2", **zero, shard_gradients=True, shard_states=True, engine="zero2"),
        Setting(
            "ZeRO-3", **zero, shard_weights=True, shard_gradients=True, shard_states=True, engine="zero3"
        ),
        Setting(
            "FSDP2",
            *(4, 4, 4, moments),
            shard_weights=True,
            shard_gradients=True,
            shard_states=True,
            autocast=True,
            engine="fsdp",
        ),
        Setting("DDP, bf16 weights and states", 2, 2, 2, small),
    ]


def lora_settings(adapter_bytes: int = 4, nested: bool = False) -> list[Setting]:
    """LoRA on bf16 weights and on 4-bit ones; PEFT keeps adapters in float32."""
    moments = 2 * adapter_bytes
    four_bit = _NF4_NESTED_BYTES if nested else _NF4_BYTES
    return [
        Setting("LoRA, bf16 base", adapter_bytes, 2, adapter_bytes, moments),
        Setting("QLoRA, 4-bit base", adapter_bytes, 2, adapter_bytes, moments, four_bit=four_bit),
    ]


def activation_bytes(
    config: BirdConfig, work: Work, parts: Parts, checkpointing: bool, autocast: bool = False
) -> float:
    """Of a micro-batch, at the point of the backward pass where most is kept.

    With checkpointing the input of each decoder layer is kept, and one layer is computed again. The head's logits, at
    supervised positions, and that layer are not kept at the same time. autocast: weights are float32, so that what is
    added up between layers is float32 too.
    """
    text = config.text_config
    layer, gradients = _layer_bytes(config, parts, autocast)
    loss = _LOSS_BYTES * text.vocab_size * work.supervised
    image = _image_bytes(config, parts) * work.images
    if checkpointing:
        kept = (4 if autocast else 2) * text.hidden_size * text.num_hidden_layers * work.tokens
        return kept + image + max(loss, (layer + gradients) * work.tokens)
    return text.num_hidden_layers * layer * work.tokens + image + max(loss, gradients * work.tokens)


def _layer_bytes(config: BirdConfig, parts: Parts, autocast: bool) -> tuple[float, float]:
    """Per token: what a decoder layer keeps for its backward pass, and its gradients while it is differentiated.

    Kept are the float32 input of two norms; the inputs of the matrices; queries, keys and values; the output of
    attention; and four values of the MLP's inner width. If norms are trained, their outputs before the scale are kept;
    under autocast each matrix has its own bf16 copy of its input.
    """
    text = config.text_config
    width, inner = text.hidden_size, text.intermediate_size
    key_value = width * text.num_key_value_heads // text.num_attention_heads
    full = parts.language_model.trained
    norms = 2 * 4 * width + (2 * (4 if autocast else 2) * width if full else 0)
    inputs = 2 * width * (5 if autocast else 2)
    attention = 2 * (width + 2 * key_value) + 2 * width
    _, of_rank_1 = layer_parameters(config)
    rank = parts.language_model.adapter / (of_rank_1 * text.num_hidden_layers)
    adapters = 2 * 7 * rank
    return norms + inputs + attention + 8 * inner + adapters, 8 * inner


def _image_bytes(config: BirdConfig, parts: Parts) -> float:
    """Per image: what the vision transformer and the resampler keep, as far as they learn."""
    vision, queries = config.vision_config, config.num_queries
    patches, wide = vision.patch_grid**2, vision.resampler_hidden_size
    kept = 0.0
    if parts.vision_tower.learns:
        block = 2 * (2 + 2 + 3 + 1) * vision.hidden_size + 4 * vision.intermediate_size
        kept += vision.num_hidden_layers * block * patches
    if parts.vision_tower.learns or parts.resampler.learns:
        kept += 2 * (5 * wide + vision.hidden_size) * patches + 2 * 5 * wide * queries
    return kept
