"""Map the tensors of Qwen-VL, Qwen-7B and OpenCLIP to those of a BiRD model: names, and how they are cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import torch

from ..hub.configuration_bird import BirdConfig
from ..hub.modeling_bird import BirdForConditionalGeneration

Cut = Callable[[torch.Tensor], torch.Tensor]

# Not converted from an OpenCLIP tower: BiRD has no class token, and a LayerNorm and a projection after the resampler.
OPEN_CLIP_LEFT_OUT = (
    "visual.class_embedding",
    "visual.ln_post.weight",
    "visual.ln_post.bias",
    "visual.proj",
)
# Prefixes of OpenCLIP's text tower, of which there are two naming schemes, and of the contrastive loss.
OPEN_CLIP_TEXT = (
    "text.",
    "transformer.",
    "token_embedding.",
    "positional_embedding",
    "ln_final.",
    "text_projection",
    "logit_scale",
    "logit_bias",
    "attn_mask",
)

_BLOCKS = {
    "vision transformer": "model.vision_tower.",
    "resampler": "model.resampler.",
    "projector": "model.projector.",
    "language model": "",  # all other tensors, the head among them
}


@dataclass(frozen=True)
class Piece:
    """A tensor of the BiRD model, and how it is cut from a tensor of the source."""

    target: str
    source: str
    cut: Cut = torch.Tensor.detach


def model_shapes(config: BirdConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all tensors that a checkpoint stores, without allocating them."""
    with torch.device("meta"):
        model = BirdForConditionalGeneration(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    return shapes


def block_sizes(shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Count the stored parameters per block of the model."""
    sizes: Counter[str] = Counter(dict.fromkeys(_BLOCKS, 0))
    for name, shape in shapes.items():
        sizes[next(block for block, prefix in _BLOCKS.items() if name.startswith(prefix))] += prod(shape)
    return dict(sizes)


def language_pieces(config: BirdConfig) -> Iterator[Piece]:
    """Yields the tensors of the language model, from Qwen-7B's and Qwen-VL's names."""
    yield Piece("model.language_model.embed_tokens.weight", "transformer.wte.weight")
    for layer in range(config.text_config.num_hidden_layers):
        yield from _text_layer(f"model.language_model.layers.{layer}", f"transformer.h.{layer}")
    yield Piece("model.language_model.norm.weight", "transformer.ln_f.weight")
    if not config.tie_word_embeddings:
        yield Piece("lm_head.weight", "lm_head.weight")


def qwen_vision_pieces(config: BirdConfig) -> Iterator[Piece]:
    """Yields the tensors of vision transformer, resampler and projector, from Qwen-VL's names."""
    visual, tower = "transformer.visual", "model.vision_tower"
    heads = config.vision_config.num_attention_heads
    yield Piece(f"{tower}.patch_embedding.weight", f"{visual}.conv1.weight", _as_matrix)
    yield Piece(f"{tower}.position_embedding", f"{visual}.positional_embedding")
    yield from _linear(f"{tower}.pre_norm", f"{visual}.ln_pre")
    for block in range(config.vision_config.num_hidden_layers):
        ours, theirs = f"{tower}.blocks.{block}", f"{visual}.transformer.resblocks.{block}"
        yield from _fused(f"{ours}.attention", f"{theirs}.attn.in_proj.", _third_of_each_head(heads))
        yield from _vision_block(ours, theirs)

    resampler, pool = "model.resampler", f"{visual}.attn_pool"
    yield Piece(f"{resampler}.query", f"{pool}.query")
    yield Piece(f"{resampler}.positions", f"{pool}.pos_embed")
    yield Piece(f"{resampler}.kv_proj.weight", f"{pool}.kv_proj.weight")
    yield from _linear(f"{resampler}.query_norm", f"{pool}.ln_q")
    yield from _linear(f"{resampler}.kv_norm", f"{pool}.ln_kv")
    yield from _fused(f"{resampler}.attention", f"{pool}.attn.in_proj_", _third)
    yield from _linear(f"{resampler}.attention.out_proj", f"{pool}.attn.out_proj")
    yield from _linear("model.projector.norm", f"{visual}.ln_post")
    yield Piece("model.projector.linear.weight", f"{visual}.proj", lambda matrix: matrix.T)


def open_clip_pieces(config: BirdConfig) -> Iterator[Piece]:
    """Yields the tensors of the vision transformer, from OpenCLIP's names."""
    tower = "model.vision_tower"
    yield Piece(f"{tower}.patch_embedding.weight", "visual.conv1.weight", _as_matrix)
    # The first row is the position of the class token.
    yield Piece(f"{tower}.position_embedding", "visual.positional_embedding", lambda table: table[1:])
    yield from _linear(f"{tower}.pre_norm", "visual.ln_pre")
    for block in range(config.vision_config.num_hidden_layers):
        ours, theirs = f"{tower}.blocks.{block}", f"visual.transformer.resblocks.{block}"
        yield from _fused(f"{ours}.attention", f"{theirs}.attn.in_proj_", _third)
        yield from _vision_block(ours, theirs)


def _as_matrix(kernel: torch.Tensor) -> torch.Tensor:
    """Turn a convolution with non-overlapping kernels, (C, 3, p, p), into a matrix for patches, (C, 3 * p * p)."""
    return kernel.flatten(1)


def _text_layer(ours: str, theirs: str) -> Iterator[Piece]:
    yield from _fused(f"{ours}.self_attn", f"{theirs}.attn.c_attn.", _third)
    yield Piece(f"{ours}.self_attn.o_proj.weight", f"{theirs}.attn.c_proj.weight")
    yield Piece(f"{ours}.input_layernorm.weight", f"{theirs}.ln_1.weight")
    yield Piece(f"{ours}.post_attention_layernorm.weight", f"{theirs}.ln_2.weight")
    yield Piece(f"{ours}.mlp.gate_proj.weight", f"{theirs}.mlp.w2.weight")
    yield Piece(f"{ours}.mlp.up_proj.weight", f"{theirs}.mlp.w1.weight")
    yield Piece(f"{ours}.mlp.down_proj.weight", f"{theirs}.mlp.c_proj.weight")


def _vision_block(ours: str, theirs: str) -> Iterator[Piece]:
    """Yields the tensors of a block, except its fused projection, which differs between Qwen-VL and OpenCLIP."""
    yield from _linear(f"{ours}.attention.out_proj", f"{theirs}.attn.out_proj")
    yield from _linear(f"{ours}.attention_norm", f"{theirs}.ln_1")
    yield from _linear(f"{ours}.mlp_norm", f"{theirs}.ln_2")
    yield from _linear(f"{ours}.mlp.fc1", f"{theirs}.mlp.c_fc")
    yield from _linear(f"{ours}.mlp.fc2", f"{theirs}.mlp.c_proj")


def _linear(ours: str, theirs: str) -> Iterator[Piece]:
    for kind in ("weight", "bias"):
        yield Piece(f"{ours}.{kind}", f"{theirs}.{kind}")


def _fused(ours: str, theirs: str, third: Callable[[int], Cut]) -> Iterator[Piece]:
    """Split a fused projection into queries, keys and values. theirs: its name up to "weight" and "bias"."""
    for index, name in enumerate(("q_proj", "k_proj", "v_proj")):
        for kind in ("weight", "bias"):
            yield Piece(f"{ours}.{name}.{kind}", f"{theirs}{kind}", third(index))


def _third(index: int) -> Cut:
    """For rows in the order [queries; keys; values]."""
    return lambda fused: fused.unflatten(0, (3, -1))[index]


def _third_of_each_head(heads: int) -> Callable[[int], Cut]:
    """For rows in the order (heads, 3, head_dim)."""
    return lambda index: lambda fused: fused.unflatten(0, (heads, 3, -1))[:, index].flatten(0, 1)
