"""Attention within packed rows, segment by segment, for a CPU: no mask and no scores between what does not attend.

A dense mask over T positions costs T x T scores in each head, most of which are masked if a row has several turns, and
almost all if several rows share a sequence. Here a segment is a run of positions that attend to the same keys before
them and causally to each other: a block of a prefix, or a turn. The number of scores grows with the length of turns
and prefixes, not with the square of the sequence.

The model makes the segments of a batch from its turn_ids and row_ids (`packed_attention.PACKED_MASKS`). What has none,
such as generation, has sdpa attention with its masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..hub.packed_attention import PACKED_MASKS, PADDING, PREFIX

NAME = "segments"
PREFIX_BLOCK = 512  # positions of a prefix at a time, which skips a part of the upper triangle of its scores


class Segment(NamedTuple):
    """Queries `start:end` of a sequence; they see keys `shared_start:shared_end`, and from `start` to themselves."""

    sequence: int
    shared_start: int
    shared_end: int
    start: int
    end: int


def segments_of(turn_ids: torch.Tensor, row_ids: torch.Tensor | None = None) -> list[Segment]:
    """(B, T) twice -> the segments of all sequences: turn 0 is the prefix of a row, -1 padding.

    A prefix stands before the turns of its row. Without row_ids a sequence is one row. Padding has no segment.
    """
    rows = torch.zeros_like(turn_ids) if row_ids is None else row_ids
    found = []
    for sequence, pairs in enumerate(torch.stack([rows, turn_ids], dim=-1).tolist()):
        prefix, last_row = (0, 0), None
        for (row, turn), start, end in _runs(pairs):
            if turn == PADDING:
                continue
            if row != last_row:
                prefix, last_row = (start, start), row
            if turn != PREFIX:
                found.append(Segment(sequence, *prefix, start, end))
                continue
            prefix = (start, end)
            for block in range(start, end, PREFIX_BLOCK):
                found.append(Segment(sequence, start, block, block, min(block + PREFIX_BLOCK, end)))
    return found


def _runs(values: Sequence[Any]) -> Iterator[tuple[Any, int, int]]:
    """Value, start and end of each run of equal values."""
    start = 0
    for place in range(1, len(values) + 1):
        if place == len(values) or values[place] != values[start]:
            yield values[start], start, place
            start = place


def segment_mask(turn_ids: torch.Tensor, row_ids: torch.Tensor | None = None) -> torch.Tensor:
    """The segments of a batch as a mask that transformers hands down to the layers, (1, 1, N, 5) int64."""
    found = segments_of(turn_ids, row_ids)
    return torch.tensor(found, dtype=torch.int64).reshape(1, 1, -1, len(Segment._fields))


def segment_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """(B, heads, T, d), (B, key heads, T, d) twice -> (B, T, heads, d), 0 at padding.

    With another mask than that of `segment_mask`, or none, it is transformers' sdpa attention.
    """
    if attention_mask is None or attention_mask.dtype != torch.int64:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    segments = [Segment(*each) for each in attention_mask[0, 0].tolist()]
    return _SegmentAttention.apply(query * scaling, key, value, segments).transpose(1, 2), None


class _SegmentAttention(torch.autograd.Function):
    """Softmax attention of each segment.

    Gradients are summed in place. Those of slices would each be made in full size.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Sequence[Segment]
    ) -> torch.Tensor:
        mixed = _like(query).zero_()
        weights = []
        for segment in segments:
            keys, values, queries = _keys(key, segment), _keys(value, segment), _queries(query, segment)
            scores = queries @ keys.transpose(1, 2)  # (heads, Q, K)
            own = segment.end - segment.start
            scores[:, :, -own:] += _above_diagonal(own, scores.dtype, scores.device)
            weights.append(scores.softmax(-1))
            _queries(mixed, segment).copy_(weights[-1] @ values)
        ctx.save_for_backward(query, key, value, *weights)
        ctx.segments = segments
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        query, key, value, *weights = ctx.saved_tensors
        grad_query = _like(query).zero_()
        grad_key, grad_value = _like(key).zero_(), _like(value).zero_()
        for segment, weight in zip(ctx.segments, weights, strict=True):
            out, queries = _queries(grad, segment), _queries(query, segment)
            _add_to_keys(grad_value, weight.transpose(1, 2) @ out, segment)
            of_weight = out @ _keys(value, segment).transpose(1, 2)
            of_scores = torch._softmax_backward_data(of_weight, weight, -1, weight.dtype)
            _queries(grad_query, segment).copy_(of_scores @ _keys(key, segment))
            _add_to_keys(grad_key, of_scores.transpose(1, 2) @ queries, segment)
        return grad_query, grad_key, grad_value, None


def _like(states: torch.Tensor) -> torch.Tensor:
    """An empty tensor (B, heads, T, d) that is laid out as (B, T, heads, d), which projections read without a copy."""
    return states.new_empty(states.transpose(1, 2).shape).transpose(1, 2)


def _queries(states: torch.Tensor, segment: Segment) -> torch.Tensor:
    """(heads, Q, d), a view."""
    return states[segment.sequence, :, segment.start : segment.end]


def _keys(states: torch.Tensor, segment: Segment) -> torch.Tensor:
    """What the segment sees, (heads, K, d)."""
    one = states[segment.sequence]
    if segment.shared_end == segment.start:  # they follow one another
        return one[:, segment.shared_start : segment.end]
    return torch.cat(
        [one[:, segment.shared_start : segment.shared_end], one[:, segment.start : segment.end]], dim=1
    )


def _add_to_keys(grad: torch.Tensor, part: torch.Tensor, segment: Segment) -> None:
    shared = segment.shared_end - segment.shared_start
    one = grad[segment.sequence]
    one[:, segment.shared_start : segment.shared_end] += part[:, :shared]
    one[:, segment.start : segment.end] += part[:, shared:]


@cache
def _above_diagonal(length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(length, length) to add to scores: nobody sees what comes after it."""
    return torch.full((length, length), torch.finfo(dtype).min, dtype=dtype, device=device).triu(1)


def register() -> None:
    """Register `attn_implementation="segments"` with transformers, and its mask with the model."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, segment_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
    PACKED_MASKS[NAME] = segment_mask
