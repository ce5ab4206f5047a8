"""Rows of Med-GRIT -> a training batch: packing of independent turns, and labels.

Turns that are independent share the tokens of their image. They follow one another in one sequence, each seeing
the prefix (everything up to the image) and itself, with positions that restart after the prefix:

    prefix . . . image | question 1, answer 1 | question 2, answer 2 | ...

so that each is computed exactly as if it were asked alone, and the image is encoded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ..hub.processing_bird import BirdProcessor, refuse_control_tokens
from .image_features import image_keys

IGNORED = -100  # the label that transformers' losses leave out
PREFIX = 0  # the turn number of tokens that all turns of a sequence see


@dataclass(frozen=True)
class PackedRow:
    """One sequence: `turns` holds 0 for the shared prefix, then 1, 2, ... for each turn. All of one length."""

    input_ids: list[int]
    labels: list[int]
    positions: list[int]
    turns: list[int]


@dataclass
class GroundingCollator:
    """Collates rows with `messages`, `image` (PIL or None) and `independent`.

    Returns input_ids, labels and position_ids (B, T), pixel_values (images, 3, S, S) if there are images, and
    attention_mask (B, 1, T, T) bool: which position attends to which. If a row has more than `max_turns` independent
    turns, that many are drawn at random each time.
    Raises ValueError, naming the row, if a row is too long for `max_length` or has no answer.
    """

    processor: BirdProcessor
    max_length: int | None = None
    max_turns: int | None = None
    with_image_keys: bool = False  # adds image_keys (images, 32), for a store of image features

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return self.batch(rows, [self.pack(row) for row in rows])

    def batch(
        self, rows: Sequence[Mapping[str, Any]], packed: Sequence[PackedRow]
    ) -> dict[str, torch.Tensor]:
        """The tensors of a batch, from rows and their packed sequences."""
        length = max(len(row.input_ids) for row in packed)
        pad = self.processor.tokenizer.pad_token_id
        batch = {
            "input_ids": padded([row.input_ids for row in packed], pad, length),
            "labels": padded([row.labels for row in packed], IGNORED, length),
            "position_ids": padded([row.positions for row in packed], 0, length),
            "attention_mask": visibility(padded([row.turns for row in packed], -1, length)),
        }
        if images := [row["image"] for row in rows if row.get("image") is not None]:
            pixels = self.processor.image_processor(images, return_tensors="pt")["pixel_values"]
            batch["pixel_values"] = pixels  # (images, 3, S, S)
            if self.with_image_keys:
                batch["image_keys"] = image_keys(pixels)
        return batch

    def pack(self, row: dict[str, Any]) -> PackedRow:
        """One row as one sequence."""
        has_image = row.get("image") is not None
        packed = PackedRow([], [], [], [])
        refuse_control_tokens(row["messages"])
        conversations = _conversations(row)
        if not conversations or not all(conversations):
            raise ValueError(f"row {_name(row)} has no messages; drop it")
        if self.max_turns is not None and len(conversations) > self.max_turns:
            drawn = torch.randperm(len(conversations))[: self.max_turns].tolist()
            conversations = [conversations[place] for place in drawn]
        encoded = self._encode(conversations, has_image)
        for number, (ids, is_answer) in enumerate(encoded, start=1):
            start = self._after_image(ids) if has_image else 0
            if number == 1:
                _append(packed, ids[:start], [False] * start, 0, PREFIX)
            _append(packed, ids[start:], is_answer[start:], start, number)
        self._check(row, packed)
        return packed

    def _encode(
        self, conversations: list[list[dict[str, str]]], has_image: bool
    ) -> Iterator[tuple[list[int], list[bool]]]:
        """For each conversation its token ids, image tokens expanded, and which of them the assistant writes."""
        typed = []
        for first, *rest in conversations:
            content: list[dict[str, str]] = [{"type": "text", "text": first["content"]}]
            if has_image:
                content.insert(0, {"type": "image"})
            typed.append([{"role": first["role"], "content": content}, *rest])
        encoded = self.processor.tokenizer.apply_chat_template(
            self.processor.fold_questions(typed),
            chat_template=self.processor.chat_template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        for ids, flags in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True):
            is_answer = [bool(flag) for flag in flags]
            if any(is_answer):  # the line feed after the last answer is not learnt
                end = len(ids) - is_answer[::-1].index(True)
                ids, is_answer = ids[:end], is_answer[:end]
            if has_image:
                place = ids.index(self.processor.image_token_id)
                count = self.processor.num_queries
                ids = ids[:place] + [ids[place]] * count + ids[place + 1 :]
                is_answer = is_answer[:place] + [False] * count + is_answer[place + 1 :]
            yield ids, is_answer

    def _after_image(self, ids: list[int]) -> int:
        """Index of the first token after the one that closes the image."""
        return ids.index(self._image_close) + 1

    @cached_property
    def _image_close(self) -> int:
        return self.processor.tokenizer.convert_tokens_to_ids("</img>")

    def _check(self, row: dict[str, Any], packed: PackedRow) -> None:
        name, length = _name(row), len(packed.input_ids)
        if self.max_length is not None and length > self.max_length:
            raise ValueError(
                f"row {name} has {length} tokens and max_length is {self.max_length}; filter the data by length, "
                "or raise max_length: cutting it would cut the answer"
            )
        if all(label == IGNORED for label in packed.labels):
            raise ValueError(f"row {name} has no answer to learn from; drop it")


def visibility(turns: torch.Tensor) -> torch.Tensor:
    """Which position attends to which: turns (B, T), -1 for padding -> (B, 1, T, T) bool.

    A position attends to those before it in the prefix or in its own turn. Padding attends to padding only, itself
    included, so that no row of the softmax is empty.
    """
    turns = turns.to(torch.int16)
    own = turns[:, :, None] == turns[:, None, :]
    return (own | (turns == PREFIX)[:, None, :]).tril()[:, None]


def padded(rows: Sequence[Sequence[float]], value: float, length: int) -> torch.Tensor:
    """Rows of different lengths -> (B, length), padded on the right."""
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])


def _conversations(row: dict[str, Any]) -> list[list[dict[str, str]]]:
    """The conversations of a row: one per question if its turns are independent, else a single one."""
    messages = row["messages"]
    if not row.get("independent", False):
        return [messages]
    roles = [message["role"] for message in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise ValueError(
            f"row {_name(row)} is independent, so its messages must be pairs of user and assistant: {roles}"
        )
    return [messages[start : start + 2] for start in range(0, len(messages), 2)]


def _name(row: Mapping[str, Any]) -> str:
    return row.get("image_id", "without image_id")


def _append(packed: PackedRow, ids: list[int], is_answer: list[bool], position: int, turn: int) -> None:
    packed.input_ids.extend(ids)
    packed.labels.extend(token if flag else IGNORED for token, flag in zip(ids, is_answer, strict=True))
    packed.positions.extend(range(position, position + len(ids)))
    packed.turns.extend([turn] * len(ids))
