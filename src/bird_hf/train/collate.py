"""Rows of Med-GRIT -> a training batch: packing of independent turns and of rows, and labels.

Turns that are independent share the tokens of their image. They follow one another in one sequence, each seeing
the prefix (everything up to the image) and itself, with positions that restart after the prefix:

    prefix . . . image | question 1, answer 1 | question 2, answer 2 | ...

so that each is computed exactly as if it were asked alone, and the image is encoded once. Several rows may follow one
another in a sequence (see `packing`); none sees another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from ..hub.packed_attention import PADDING, PREFIX
from ..hub.processing_bird import BirdProcessor
from .image_features import image_keys
from .packing import Piece, split_turns
from .rows import Message, answers_in, conversations_of, image_cells, joined_image, name_of, says_image

IGNORED = -100  # the label that transformers' losses leave out
ERROR, SPLIT, DROP = "error", "split", "drop"  # what happens to a row that is too long


class Encoded(NamedTuple):
    """Tokens, and which of them the assistant writes."""

    ids: list[int]
    is_answer: list[bool]


class RowTokens(NamedTuple):
    """Tokens of a row: of the prefix that its turns share, of each turn behind it, and the answers of each turn."""

    prefix: int
    turns: list[int]
    answers: list[int]


@dataclass(frozen=True)
class PackedRow:
    """One row, or several: `turns` holds 0 for the shared prefix, then 1, 2, ... for each turn. All of one length."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    row: Mapping[str, Any] = field(default_factory=dict)

    def append(self, encoded: Encoded, position: int, turn: int) -> None:
        self.input_ids.extend(encoded.ids)
        self.labels.extend(
            token if flag else IGNORED for token, flag in zip(encoded.ids, encoded.is_answer, strict=True)
        )
        self.positions.extend(range(position, position + len(encoded.ids)))
        self.turns.extend([turn] * len(encoded.ids))


@dataclass
class GroundingCollator:
    """Collates rows with `messages`, `image` (PIL or None) or `images`, and `independent`.

    Returns input_ids, labels, position_ids, turn_ids and row_ids (B, T), of which the last two say which position
    attends to which (see `packed_attention`), and pixel_values (images, 3, S, S) if there are images. If a row has more
    than `max_turns` independent turns, that many are drawn at random each time.

    too_long: a row of more than `max_length` tokens is refused ("error"), or its independent turns are divided over
    sequences that have the image each ("split"). needs_image: refuse rows without an image. images_dir: the folder with
    IMAGE_ID.png of rows that hold none. multiple: sequences are padded to a multiple of this length.
    Raises ValueError, naming the row, if a row is too long or has no answer.
    """

    processor: BirdProcessor
    max_length: int | None = None
    max_turns: int | None = None
    too_long: str = ERROR
    needs_image: bool = False
    images_dir: Path | None = None
    multiple: int = 1
    with_image_keys: bool = False  # adds image_keys (images, 32), for a store of image features

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        return self.batch([[part] for row in rows for part in self.parts(row)])

    def collate_step(
        self, step: Sequence[Sequence[Sequence[tuple[Piece, Mapping[str, Any]]]]]
    ) -> list[dict[str, torch.Tensor]]:
        """The micro-batches of a step of `PackedSteps`."""
        return [
            self.batch([[self._piece(piece, row) for piece, row in sequence] for sequence in batch])
            for batch in step
        ]

    def batch(self, sequences: Sequence[Sequence[PackedRow]]) -> dict[str, torch.Tensor]:
        """The tensors of a batch, from the rows of each sequence."""
        longest = max(sum(len(row.input_ids) for row in rows) for rows in sequences)
        length = -(-longest // self.multiple) * self.multiple

        def joined(name: str, fill: int) -> torch.Tensor:
            values = [[value for row in rows for value in getattr(row, name)] for rows in sequences]
            return padded(values, fill, length)

        numbers = [[number for number, row in enumerate(rows) for _ in row.input_ids] for rows in sequences]
        batch = {
            "input_ids": joined("input_ids", self.processor.tokenizer.pad_token_id),
            "labels": joined("labels", IGNORED),
            "position_ids": joined("positions", 0),
            "turn_ids": joined("turns", PADDING),
            "row_ids": padded(numbers, PADDING, length),
        }
        if images := [image for rows in sequences for row in rows for image in row.images]:
            pixels = self.processor.image_processor(images, return_tensors="pt")["pixel_values"]
            batch["pixel_values"] = pixels  # (images, 3, S, S)
            if self.with_image_keys:
                batch["image_keys"] = image_keys(pixels)
        return batch

    def pack(self, row: Mapping[str, Any], turns: Sequence[int] | None = None) -> PackedRow:
        """One row, or those of its turns, as one sequence."""
        return self._parts(row, self._drawn if turns is None else lambda _: list(turns), split=False)[0]

    def parts(self, row: Mapping[str, Any]) -> list[PackedRow]:
        """One row as one sequence, or as several if it is too long and may be split."""
        return self._parts(row, self._drawn, split=self.too_long == SPLIT)

    def tokens_of(self, row: Mapping[str, Any], images: int) -> RowTokens:
        """How many tokens a row with that many images has, all of its turns counted."""
        conversations = conversations_of(row, images)
        prefix, turns = self._encode(conversations, images)
        self._check_answers(row, turns)
        return RowTokens(
            len(prefix.ids), [len(turn.ids) for turn in turns], [answers_in(each) for each in conversations]
        )

    def _piece(self, piece: Piece, row: Mapping[str, Any]) -> PackedRow:
        packed = self.pack(row, piece.turns)
        return packed if piece.is_learnt else replace(packed, labels=[IGNORED] * len(packed.labels))

    def _parts(self, row: Mapping[str, Any], choose: Any, split: bool) -> list[PackedRow]:
        images = self._images(row)
        conversations = conversations_of(row, len(images))
        chosen = [conversations[place] for place in choose(len(conversations))]
        prefix, turns = self._encode(chosen, len(images))
        self._check_answers(row, turns)
        lengths = [len(turn.ids) for turn in turns]
        packed = []
        for places, length in split_turns(len(prefix.ids), lengths, self.max_length if split else None):
            if self.max_length is not None and length > self.max_length:
                raise ValueError(too_long_message(name_of(row), length, self.max_length, self.too_long))
            part = PackedRow(images=images, row=row)
            part.append(prefix, 0, PREFIX)
            for number, place in enumerate(places, start=1):
                part.append(turns[place], len(prefix.ids), number)
            packed.append(part)
        return packed

    def _drawn(self, count: int) -> list[int]:
        if self.max_turns is None or count <= self.max_turns:
            return list(range(count))
        return torch.randperm(count)[: self.max_turns].tolist()

    def _images(self, row: Mapping[str, Any]) -> list[Image.Image]:
        found = image_cells(row)
        if not found and self.images_dir is not None and says_image(row):
            return [joined_image(row, self.images_dir)]
        if not found and self.needs_image:
            raise ValueError(f"row {name_of(row)} has no image; {HOW_TO_GIVE_IMAGES}")
        return found

    def _encode(self, conversations: list[list[Message]], images: int) -> tuple[Encoded, list[Encoded]]:
        """Tokens of the prefix, and of each conversation behind it, image tokens expanded."""
        whole = list(self._tokenized(conversations))
        if not images:
            return Encoded([], []), whole
        ids, is_answer = whole[0]
        question = ids[: is_answer.index(True)] if True in is_answer else ids
        closes = [place for place, token in enumerate(question) if token == self._image_close]
        start = closes[-1] + 1 if closes else 0
        prefix = Encoded(ids[:start], is_answer[:start])
        return prefix, [Encoded(each.ids[start:], each.is_answer[start:]) for each in whole]

    def _tokenized(self, conversations: list[list[Message]]) -> Iterator[Encoded]:
        encoded = self.processor.tokenizer.apply_chat_template(
            self.processor.fold_questions(conversations),
            chat_template=self.processor.chat_template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        image, count = self.processor.image_token_id, self.processor.num_queries
        for ids, flags in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True):
            end = len(flags) - flags[::-1].index(1) if 1 in flags else len(ids)  # what follows is not learnt
            expanded = Encoded([], [])
            for token, flag in zip(ids[:end], flags[:end], strict=True):
                repeats = count if token == image else 1
                expanded.ids.extend([token] * repeats)
                expanded.is_answer.extend([bool(flag)] * repeats)
            yield expanded

    @cached_property
    def _image_close(self) -> int:
        return self.processor.tokenizer.convert_tokens_to_ids("</img>")

    def _check_answers(self, row: Mapping[str, Any], turns: Sequence[Encoded]) -> None:
        if not any(flag for turn in turns for flag in turn.is_answer):
            raise ValueError(f"row {name_of(row)} has no answer to learn from; drop it")


HOW_TO_GIVE_IMAGES = (
    "set images_dir to your folder of IMAGE_ID.png, or text_only: true to train on text alone"
)


def too_long_message(name: str, length: int, max_length: int, too_long: str) -> str:
    """Why a row cannot be trained, and what to do."""
    said, remedy = f"has {length} tokens", "set too_long to split or drop"
    if too_long == SPLIT:
        said, remedy = f"has a turn that takes {length} tokens with its image", "set too_long to drop"
    return (
        f"row {name} {said} and max_length is {max_length}; {remedy}, or raise max_length: cutting it would cut "
        "the answer"
    )


def padded(rows: Sequence[Sequence[float]], value: float, length: int) -> torch.Tensor:
    """Rows of different lengths -> (B, length), padded on the right."""
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])
