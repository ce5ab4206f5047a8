"""Attention for training on a CPU, in three matrix-sized passes forward and without copies.

transformers' eager attention converts to float32 and back in separate passes, and the backward pass of torch's sdpa
is slow on CPUs. Here the softmax stays in the scores' dtype (torch accumulates it in float32 all the same).
`benchmarks/training_step.py` compares the three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "cpu_eager"


class Attended(NamedTuple):
    """What some heads of a layer attended with."""

    query: torch.Tensor  # (B, heads, Q, d), scaled
    key: torch.Tensor  # (B, heads, K, d)
    mask: torch.Tensor | None  # (B, 1, Q, K), additive


@dataclass
class AttentionRecorder:
    """Collects what the given layers of a language model attend with, during one forward pass.

    It is passed to the model's forward as `attention_recorder`, which transformers hands down to `cpu_eager`.
    """

    layers: Sequence[int]
    heads: slice

    def __post_init__(self) -> None:
        self.recorded: dict[int, Attended] = {}

    def record(self, layer: int, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None) -> None:
        if layer in self.layers:
            self.recorded[layer] = Attended(query[:, self.heads], key[:, self.heads], mask)


def cpu_eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    attention_recorder: AttentionRecorder | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """(B, heads, Q, d), (B, key heads, K, d) twice, an additive mask (B, 1, Q, K) or None -> (B, Q, heads, d)."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:  # grouped-query attention: each key and value head serves several query heads
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    query = query * scaling
    if attention_recorder is not None:
        attention_recorder.record(module.layer_idx, query, key, attention_mask)
    scores = query @ key.transpose(2, 3)  # (B, heads, Q, K)
    if attention_mask is not None:
        mask = attention_mask[:, :, :, : key.shape[2]].to(scores.dtype)
        # The lowest float32 becomes -inf in bf16, and the softmax of padding on the left, which sees nothing, NaN.
        scores += mask.clamp(min=torch.finfo(scores.dtype).min)
    mixed = scores.softmax(-1) @ value  # (B, heads, Q, d)
    return mixed.transpose(1, 2).contiguous(), None


def register() -> None:
    """Register `attn_implementation="cpu_eager"` with transformers, with the causal masks of eager attention."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, cpu_eager_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)
