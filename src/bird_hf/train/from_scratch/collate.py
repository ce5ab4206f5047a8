"""The collator of a model trained from scratch: loss weights, detection targets and attention targets besides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F

from ...hub.grounding import BOX_CLOSE, BOX_OPEN, read
from ..collate import IGNORED, GroundingCollator, PackedRow, padded
from .coordinate_tokens import coordinate_ids
from .detection_head import detection_targets, image_tokens_of


@dataclass(frozen=True)
class LossWeights:
    """Weight of a token of an answer in the loss; coordinates of boxes weigh 1.

    punctuation: what else stands between <box> and </box>. text: all other tokens, these two tags among them.
    """

    punctuation: float = 1.0
    text: float = 1.0


@dataclass
class SupervisedCollator(GroundingCollator):
    """`GroundingCollator` with targets for the losses of training from scratch.

    Adds loss_weights (B, T). With `classes` (a number per label), which needs the rows' `objects`, adds the targets of
    the image tokens: image_token_classes (images, Q) and image_token_boxes (images, Q, 4) in thousandths; and
    attention_targets (B, T, Q + 1) bool, see `AttentionSupervisionLoss`.
    """

    weights: LossWeights = LossWeights()
    classes: Mapping[str, int] | None = None

    def batch(self, sequences: Sequence[Sequence[PackedRow]]) -> dict[str, torch.Tensor]:
        batch = super().batch(sequences)
        length = batch["input_ids"].shape[1]
        weights = [[value for row in rows for value in self.loss_weights(row)] for rows in sequences]
        batch["loss_weights"] = padded(weights, 0.0, length)
        if self.classes is not None and "pixel_values" in batch:
            objects = [row.row["objects"] for rows in sequences for row in rows for _ in row.images]
            batch["image_token_classes"], batch["image_token_boxes"] = detection_targets(
                objects, self.classes, self.processor.num_queries
            )
            targets = [torch.cat([self._attention_targets(row) for row in rows]) for rows in sequences]
            batch["attention_targets"] = torch.stack(
                [F.pad(of_sequence, (0, 0, 0, length - len(of_sequence))) for of_sequence in targets]
            )
        return batch

    def loss_weights(self, packed: PackedRow) -> list[float]:
        """The weight of each token of a sequence."""
        weights, inside = [], False
        box_open, box_close = self._box_tokens
        for token in reversed(packed.input_ids):  # from the end: a <box> that is never closed is text
            inside &= token != box_open
            if not inside:
                weights.append(self.weights.text)
            else:
                weights.append(1.0 if token in self._number_tokens else self.weights.punctuation)
            inside |= token == box_close
        return weights[::-1]

    @cached_property
    def _box_tokens(self) -> tuple[int, int]:
        convert = self.processor.tokenizer.convert_tokens_to_ids
        return convert(BOX_OPEN), convert(BOX_CLOSE)

    @cached_property
    def _number_tokens(self) -> frozenset[int]:
        """Digits, and coordinate tokens if there are any."""
        tokenizer = self.processor.tokenizer
        ids = coordinate_ids(tokenizer)
        digits = tokenizer.convert_tokens_to_ids(list("0123456789"))
        return frozenset(digits) | frozenset(() if ids is None else ids.tolist())

    def _attention_targets(self, packed: PackedRow) -> torch.Tensor:
        """The image tokens each token should attend to, (T, Q + 1) bool.

        In a question they are those of a box, for the tokens of that box. In an answer they are those of its next box,
        from the token before the answer (or after the previous box) on, so that whether the object is present is looked
        up too. If the answer is that the object is absent, the target is the last column.
        """
        ids = packed.input_ids
        targets = torch.zeros(len(ids), self.processor.num_queries + 1, dtype=torch.bool)
        if self.processor.image_token_id not in ids:
            return targets
        question = ""
        for is_answer, run in groupby(range(len(ids)), lambda index: packed.labels[index] != IGNORED):
            first, *rest = run
            last = rest[-1] if rest else first
            begun = first - 1
            boxes = list(self._boxes(ids, first, last))
            for opened, closed in boxes:
                start = begun if is_answer else opened
                for box in read(self.processor.tokenizer.decode(ids[opened : closed + 1])).boxes:
                    targets[start:closed, image_tokens_of(box.xyxy, self.processor.num_queries)] = True
                begun = closed
            text = self.processor.tokenizer.decode(ids[first : last + 1])
            if not is_answer:
                question = text
            elif not boxes and _is_of_absent(f"{question} {text}", packed.row["objects"]):
                targets[begun:last, -1] = True
        return targets

    def _boxes(self, ids: Sequence[int], first: int, last: int) -> Iterator[tuple[int, int]]:
        """(index of <box>, index of </box>) of each box between two indices."""
        box_open, box_close = self._box_tokens
        opened = first
        for index in range(first, last + 1):
            if ids[index] == box_open:
                opened = index
            elif ids[index] == box_close:
                yield opened, index


def _is_of_absent(turn: str, objects: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the object that a turn names is absent; if a name contains another one, the longest counts.

    Questions may use another case, a plural or a synonym; answers hold the label itself.
    """
    named = [item for item in objects if item["label"] in turn]
    return bool(named) and not max(named, key=lambda item: len(item["label"]))["present"]
