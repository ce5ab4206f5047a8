"""Rows of Med-GRIT -> a training batch: packing of independent turns, labels, loss weights.

Turns that stand alone share the tokens of their image. They follow one another in one sequence, each seeing
the prefix (everything up to the image) and itself, with positions that restart behind the prefix:

    prefix . . . image | question 1, answer 1 | question 2, answer 2 | ...

so that each is exactly what it would be if it were asked alone, and the image is looked at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import torch

from ..hub.grounding import BOX_CLOSE, BOX_OPEN, read
from ..hub.processing_bird import BirdProcessor, refuse_control_tokens
from .numbers import number_ids
from .questions import NOT_ASKED, Asked, QuestionReader, question_targets
from .slots import slot_targets, slots_of

IGNORED = -100  # the label that transformers' losses leave out
PREFIX = 0  # the turn number of tokens that all turns of a sequence see


@dataclass(frozen=True)
class LossWeights:
    """What a token of an answer counts in the loss.

    coordinate: a digit of a box by its place: hundreds (and the thousand), tens, ones. A wrong hundred costs the
    box, a wrong one is within a thousandth; a number that is one token counts as its hundreds. punctuation: what else
    stands between <box> and </box>. text: all other tokens, these two tags among them.
    """

    coordinate: tuple[float, float, float] = (1.0, 1.0, 1.0)
    punctuation: float = 1.0
    text: float = 1.0


@dataclass(frozen=True)
class PackedRow:
    """One sequence: `turns` holds 0 for the shared prefix, then 1, 2, ... for each turn. All of one length."""

    input_ids: list[int]
    labels: list[int]
    positions: list[int]
    turns: list[int]
    weights: list[float]


@dataclass
class GroundingCollator:
    """Collates rows with `messages`, `image` (PIL or None) and `independent`.

    Returns input_ids, labels, position_ids, loss_weights (B, T), pixel_values (images, 3, S, S) where there are
    images, and attention_mask (B, 1, T, T) bool: which position sees which. Of a row with more than `max_turns` turns
    that many are drawn each time it is met. With `classes` (a number for each label) also what each image slot stands
    on: slot_classes (images, Q) and slot_boxes (images, Q, 4) in thousandths, from the rows' `objects`; and slot_looks
    (B, T, Q + 1), where to look while a box is written or read, or missed. With `reads_questions` where to look is
    told of the questions alone, as they end a name or a box (`questions.py`), and so is what they then know:
    asked_classes (B, T) and asked_boxes (B, T, 4); is_question (B, T) bool is all that stands before an answer.
    Raises ValueError, naming the row, where a row is too long for `max_length` or has no answer.
    """

    processor: BirdProcessor
    weights: LossWeights = LossWeights()
    max_length: int | None = None
    max_turns: int | None = None
    classes: Mapping[str, int] | None = None
    reads_questions: bool = False

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        packed = [self.pack(row) for row in rows]
        length = max(len(row.input_ids) for row in packed)
        pad = self.processor.tokenizer.pad_token_id
        turns = _padded([row.turns for row in packed], -1, length)
        batch = {
            "input_ids": _padded([row.input_ids for row in packed], pad, length),
            "labels": _padded([row.labels for row in packed], IGNORED, length),
            "position_ids": _padded([row.positions for row in packed], 0, length),
            "loss_weights": _padded([row.weights for row in packed], 0.0, length),
            "attention_mask": visibility(turns),
        }
        if pictured := [row for row in rows if row.get("image") is not None]:
            images = [row["image"] for row in pictured]
            batch["pixel_values"] = self.processor.image_processor(images, return_tensors="pt")[
                "pixel_values"
            ]
            if self.classes is not None:
                batch["slot_classes"], batch["slot_boxes"] = slot_targets(
                    [row["objects"] for row in pictured], self.classes, self.processor.num_queries
                )
                if self.reads_questions:
                    batch |= self._questions(rows, packed, length, self.classes)
                else:
                    batch["slot_looks"] = torch.stack(
                        [
                            self._looks(row, sequence, length)
                            for row, sequence in zip(rows, packed, strict=True)
                        ]
                    )
        return batch

    def pack(self, row: dict[str, Any]) -> PackedRow:
        """One row as one sequence."""
        has_image = row.get("image") is not None
        prefix: list[int] = []
        packed = PackedRow([], [], [], [], [])
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
                prefix = ids[:start]
                _append(packed, prefix, [False] * start, 0, PREFIX, self.weights.text)
            _append(packed, ids[start:], is_answer[start:], start, number, self.weights.text)
        self._weigh_boxes(packed)
        self._check(row, packed)
        return packed

    def _encode(
        self, conversations: list[list[dict[str, str]]], has_image: bool
    ) -> Iterator[tuple[list[int], list[bool]]]:
        """Of each conversation its token ids, image slots expanded, and which ones the assistant writes."""
        typed = []
        for first, *rest in conversations:
            content: list[dict[str, str]] = [{"type": "text", "text": first["content"]}]
            if has_image:
                content.insert(0, {"type": "image"})
            typed.append([{"role": first["role"], "content": content}, *rest])
        encoded = self.processor.tokenizer.apply_chat_template(
            typed,
            chat_template=self.processor.chat_template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        for ids, flags in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True):
            is_answer = [bool(flag) for flag in flags]
            if any(is_answer):  # nothing is learnt from the line feed behind the last answer
                end = len(ids) - is_answer[::-1].index(True)
                ids, is_answer = ids[:end], is_answer[:end]
            if has_image:
                slot = ids.index(self.processor.image_token_id)
                count = self.processor.num_queries
                ids = ids[:slot] + [ids[slot]] * count + ids[slot + 1 :]
                is_answer = is_answer[:slot] + [False] * count + is_answer[slot + 1 :]
            yield ids, is_answer

    def _after_image(self, ids: list[int]) -> int:
        """Where the turn's own tokens begin: right behind the token that closes the image."""
        return ids.index(self._image_close) + 1

    @cached_property
    def _image_close(self) -> int:
        return self.processor.tokenizer.convert_tokens_to_ids("</img>")

    @cached_property
    def _box_tokens(self) -> tuple[int, int, frozenset[int]]:
        convert = self.processor.tokenizer.convert_tokens_to_ids
        digits = frozenset(convert(list("0123456789")))
        return convert(BOX_OPEN), convert(BOX_CLOSE), digits

    @cached_property
    def _whole_numbers(self) -> frozenset[int]:
        ids = number_ids(self.processor.tokenizer)
        return frozenset() if ids is None else frozenset(ids.tolist())

    def _weigh_boxes(self, packed: PackedRow) -> None:
        """Set the weights of tokens inside boxes: digits by their place, from the right of each number."""
        box_open, box_close, digits = self._box_tokens
        inside, place = False, 0
        for index in range(len(packed.input_ids) - 1, -1, -1):  # right to left: the ones come first
            token = packed.input_ids[index]
            if token == box_close:
                inside = True
            elif token == box_open:
                inside = False
            elif inside and token in self._whole_numbers:
                packed.weights[index] = self.weights.coordinate[0]
            elif inside and token in digits:
                packed.weights[index] = self.weights.coordinate[max(0, 2 - place)]
                place += 1
                continue
            elif inside:
                packed.weights[index] = self.weights.punctuation
            place = 0

    def _looks(self, row: Mapping[str, Any], packed: PackedRow, length: int) -> torch.Tensor:
        """Where each token should look, (length, Q + 1) bool: at which slots, or, the last column, at none of them.

        At those of a box, from the token behind which the answer, or its next part, begins: whether there is such a
        thing at all is known by looking, too. At none where the answer is that it is not there. In a question, at those
        of its own box.
        """
        looks = torch.zeros(length, self.processor.num_queries + 1, dtype=torch.bool)
        box_open, box_close, _ = self._box_tokens
        ids, question = packed.input_ids, ""
        if self.processor.image_token_id not in ids:
            return looks
        for is_answer, run in groupby(range(len(ids)), lambda index: packed.labels[index] != IGNORED):
            first, *rest = run
            last = rest[-1] if rest else first
            opened, begun, boxes = first, first - 1, 0
            for index in (first, *rest):
                if ids[index] == box_open:
                    opened = index
                elif ids[index] == box_close:
                    start = begun if is_answer else opened
                    for box in read(self.processor.tokenizer.decode(ids[opened : index + 1])).boxes:
                        looks[start:index, slots_of(box.xyxy, self.processor.num_queries)] = True
                    begun, boxes = index, boxes + 1
            if not is_answer:
                question = self.processor.tokenizer.decode(ids[first : last + 1])
            elif not boxes and _is_of_absent(question, row["objects"]):
                looks[begun:last, -1] = True
        return looks

    @cached_property
    def _reader(self) -> QuestionReader:
        return QuestionReader(self.processor.tokenizer)

    def _questions(
        self,
        rows: Sequence[Mapping[str, Any]],
        packed: Sequence[PackedRow],
        length: int,
        classes: Mapping[str, int],
    ) -> dict[str, torch.Tensor]:
        """What a batch tells about its questions."""
        are_questions, targets = [], []
        for row, sequence in zip(rows, packed, strict=True):
            answered: int | None = None  # the turn whose answer has begun
            is_question = []
            for label, turn in zip(sequence.labels, sequence.turns, strict=True):
                answered = turn if label != IGNORED else answered
                is_question.append(turn != answered)
            asked: list[Asked] = []
            if self.processor.image_token_id in sequence.input_ids:
                ids = [
                    token if own else NOT_ASKED
                    for token, own in zip(sequence.input_ids, is_question, strict=True)
                ]
                asked = list(self._reader.asked(ids, row["objects"]))
            are_questions.append(is_question)
            targets.append(question_targets(asked, length, classes, self.processor.num_queries))
        looks, known, boxes = (torch.stack(told) for told in zip(*targets, strict=True))
        return {
            "is_question": _padded(are_questions, False, length),
            "slot_looks": looks,
            "asked_classes": known,
            "asked_boxes": boxes,
        }

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
    """Which position sees which: turns (B, T), -1 for padding -> (B, 1, T, T) bool.

    A position sees what stands before it in the prefix or in its own turn. Nothing sees padding but padding, which sees
    itself at least, so that no row of the softmax is empty.
    """
    turns = turns.to(torch.int16)
    own = turns[:, :, None] == turns[:, None, :]
    return (own | (turns == PREFIX)[:, None, :]).tril()[:, None]


def _conversations(row: dict[str, Any]) -> list[list[dict[str, str]]]:
    """The conversations of a row: one for each question where turns are independent, else a single one."""
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


def _is_of_absent(question: str, objects: Sequence[Mapping[str, Any]]) -> bool:
    """Whether what a question names is among the objects that are not there; of names in names the longest counts."""
    named = [item for item in objects if item["label"] in question]
    return bool(named) and not max(named, key=lambda item: len(item["label"]))["present"]


def _append(
    packed: PackedRow, ids: list[int], is_answer: list[bool], position: int, turn: int, weight: float
) -> None:
    packed.input_ids.extend(ids)
    packed.labels.extend(token if flag else IGNORED for token, flag in zip(ids, is_answer, strict=True))
    packed.positions.extend(range(position, position + len(ids)))
    packed.turns.extend([turn] * len(ids))
    packed.weights.extend([weight] * len(ids))


def _padded(rows: Sequence[Sequence[float]], value: float, length: int) -> torch.Tensor:
    """Rows of different lengths -> (B, length), filled up on the right."""
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])
