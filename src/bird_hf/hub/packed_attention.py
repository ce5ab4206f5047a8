"""Which position of a packed sequence attends to which, as a dense mask or as the blocks of flex attention.

A packed sequence holds rows one after the other, each a prefix (everything up to its image) with turns behind it. Two
integers describe a token: the number of its row, and the number of its turn, 0 in the prefix. A position attends to
those before it in the prefix of its row and in its own turn.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.attention.flex_attention import BlockMask

PREFIX = 0  # the turn of tokens that all turns of a row see
PADDING = -1  # row and turn of padding
BLOCK = 128  # positions of a block of flex attention


def packed_mask(
    turn_ids: torch.Tensor, row_ids: torch.Tensor | None, implementation: str | None
) -> torch.Tensor | BlockMask:
    """The mask of packed sequences (B, T) in the form that an implementation of attention needs.

    Raises ValueError for flash attention, which has no mask of this kind.
    """
    if implementation is not None and "flash" in implementation:
        raise ValueError(
            f"{implementation} cannot attend within packed turns; set attn_implementation to flex_attention or sdpa"
        )
    return PACKED_MASKS.get(implementation or "", visibility)(turn_ids, row_ids)


def visibility(turn_ids: torch.Tensor, row_ids: torch.Tensor | None = None) -> torch.Tensor:
    """Which position attends to which: (B, T) twice -> (B, 1, T, T) bool. Without row_ids a sequence is one row.

    Padding attends to itself, so that no row of the softmax is empty.
    """
    turns = turn_ids.to(torch.int16)
    seen = (turns[:, :, None] == turns[:, None, :]) | (turns == PREFIX)[:, None, :]
    if row_ids is not None:
        rows = row_ids.to(torch.int16)
        seen &= rows[:, :, None] == rows[:, None, :]
    seen &= (turns != PADDING)[:, None, :]
    itself = torch.eye(turns.shape[1], dtype=torch.bool, device=turns.device)
    return (seen.tril() | itself)[:, None]


def padded_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """The causal mask of sequences that are padded on the left, (B, T) -> (B, 1, T, T) bool; of others, unchanged.

    In transformers' own mask for sdpa, padding on the left attends to nothing. The softmax of an empty row is not
    defined, and what a kernel's backward pass makes of it differs. Here padding attends to itself.
    """
    if not torch.compiler.is_compiling() and attention_mask[:, 0].all():
        return attention_mask  # sdpa's own causal mask is faster
    return visibility(attention_mask.to(torch.int16) + PADDING)


def block_mask(turn_ids: torch.Tensor, row_ids: torch.Tensor | None = None) -> BlockMask:
    """What `visibility` says, for flex attention.

    Blocks are found from the smallest and largest numbers in each, so that nothing of size T x T is made. A block that
    may hold a visible pair is read with the exact rule, one that is visible as a whole without it.
    """
    turns = turn_ids.to(torch.int32)
    rows = torch.zeros_like(turns) if row_ids is None else row_ids.to(torch.int32)

    def sees(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        turn = turns[batch, key]
        own = (turn == PREFIX) | ((turn == turns[batch, query]) & (turn != PADDING))
        return (query == key) | ((query > key) & own & (rows[batch, key] == rows[batch, query]))

    needed, whole = _blocks(turns, rows)
    length = turns.shape[1]
    return BlockMask.from_kv_blocks(
        *_ordered(needed & ~whole),
        *_ordered(whole),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(length, length),
    )


def _blocks(turns: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which blocks may hold a visible pair, and which hold nothing else: (B, T) twice -> (B, n, n) bool twice."""
    rest = -turns.shape[1] % BLOCK
    turns, rows = (torch.nn.functional.pad(each, (0, rest), value=PADDING) for each in (turns, rows))
    is_real, is_prefix = turns != PADDING, turns == PREFIX
    first_row, last_row = _range(rows, is_real)
    first_prefix, last_prefix = _range(rows, is_prefix)
    first, last = _range(rows * (turns.amax() + 1) + turns, is_real)  # numbers of turns over all rows
    count = first.shape[1]
    before = torch.ones(count, count, dtype=torch.bool, device=turns.device).tril(-1)
    same_turn = _overlap(first, last, first, last)
    sees_prefix = _overlap(first_row, last_row, first_prefix, last_prefix)
    needed = (before & (same_turn | sees_prefix)) | torch.eye(count, dtype=torch.bool, device=turns.device)
    full = is_real.unflatten(1, (-1, BLOCK)).all(-1)
    only_prefix = is_prefix.unflatten(1, (-1, BLOCK)).all(-1)
    same_row = _one_and_same(first_row, last_row)
    seen = only_prefix[:, None, :] | _one_and_same(first, last)
    return needed, before & same_row & seen & full[:, :, None] & full[:, None, :]


def _range(values: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest value of each block, (B, n), of the positions that count; an empty range if none does."""
    most = torch.iinfo(values.dtype).max
    blocks, counted = values.unflatten(1, (-1, BLOCK)), counts.unflatten(1, (-1, BLOCK))
    return blocks.masked_fill(~counted, most).amin(-1), blocks.masked_fill(~counted, PADDING).amax(-1)


def _overlap(
    first: torch.Tensor, last: torch.Tensor, other_first: torch.Tensor, other_last: torch.Tensor
) -> torch.Tensor:
    """Whether the range of a query's block overlaps that of a key's: (B, n) each -> (B, n, n)."""
    return (first[:, :, None] <= other_last[:, None, :]) & (other_first[:, None, :] <= last[:, :, None])


def _one_and_same(first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Whether two blocks hold one value each, and the same."""
    alone = first == last
    return alone[:, :, None] & alone[:, None, :] & (first[:, :, None] == first[:, None, :])


def _ordered(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Number of the marked blocks in each line, and their indices first: (B, 1, n) and (B, 1, n, n) int32."""
    order = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[:, None], order.to(torch.int32)[:, None]


# By the name of an implementation that reads another mask than `visibility`: what makes it, of turn_ids and row_ids.
# A tensor has four dimensions (transformers hands those down as they are); integers are not added to scores.
PACKED_MASKS: dict[str, Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor | BlockMask]] = {
    "flex_attention": block_mask
}

__all__ = ["PACKED_MASKS", "PADDING", "PREFIX", "block_mask", "packed_mask", "padded_mask", "visibility"]
