"""Attention for training on a CPU: three matrix-sized passes forward and no copies.

transformers' eager attention goes through float32 and back in separate passes, and the backward pass of torch's
sdpa is slow on CPUs. Here scores and mask meet in one `baddbmm`, and the softmax stays in the scores' dtype (torch
accumulates it in float32 all the same). `benchmarks/training_step.py` compares the three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "dense"
WATCHED = "watched"  # the attribute of a module whose heads are watched


@dataclass
class Watched:
    """Heads of a module, and what they last attended with."""

    heads: slice
    query: Any = None  # (B, heads, Q, d), scaled
    key: Any = None  # (B, heads, K, d)
    mask: Any = None  # (B, 1, Q, K), additive


def dense_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
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
    if (watched := getattr(module, WATCHED, None)) is not None:
        watched.query, watched.key = query[:, watched.heads], key[:, watched.heads]
        watched.mask = attention_mask
    scores = query @ key.transpose(2, 3)  # (B, heads, Q, K)
    if attention_mask is not None:
        scores += attention_mask[:, :, :, : key.shape[2]].to(scores.dtype)
    mixed = scores.softmax(-1) @ value  # (B, heads, Q, d)
    return mixed.transpose(1, 2).contiguous(), None


def register() -> None:
    """Make `attn_implementation="dense"` known to transformers, with the causal masks that eager attention gets."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, dense_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)
