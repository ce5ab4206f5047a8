"""Questions alone: a stage between slots and answers, for a language model that is dear to run.

A question says what it is about, by name or by box, before its answer begins, and there the model can look it up: from
a name to the slot that shows it, from a box to what lies there. That needs neither the answers nor the upper layers of
the language model, so that many more questions are asked in the same time; the answers have then only to copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..hub.boxes import Box
from ..hub.grounding import BOX_CLOSE, BOX_OPEN, read
from .slots import BACKGROUND, UNKNOWN, slots_of

NOT_ASKED = -1
_OF_A_TOKEN = ("input_ids", "position_ids", "slot_looks", "asked_classes", "asked_boxes")


@dataclass(frozen=True)
class Asked:
    """What a question is about, said from token `start` to `end`: its label, if known, and its unit boxes, if any."""

    start: int
    end: int
    label: str | None
    boxes: tuple[tuple[float, float, float, float], ...]


class QuestionReader:
    """Finds what questions are about, in token ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        self._open, self._close = tokenizer.convert_tokens_to_ids([BOX_OPEN, BOX_CLOSE])
        self._names: dict[str, list[int]] = {}

    def asked(self, ids: Sequence[int], objects: Sequence[Mapping[str, Any]]) -> Iterator[Asked]:
        """Each box, and each name of an object that follows a space; of names within names the longest counts.

        A name has been said with its last token: before that it could be another. NOT_ASKED stands in the ids for what
        is no part of a question.
        """
        taken: set[int] = set()
        for label in sorted({item["label"] for item in objects}, key=lambda name: (-len(name), name)):
            boxes = [item["box"] for item in objects if item["label"] == label and item["box"] is not None]
            for place in self._places(label, ids):
                if taken.isdisjoint(place):
                    taken.update(place)
                    yield Asked(place[-1], place[-1], label, tuple(tuple(box) for box in boxes))
        labels = {
            Box(*item["box"]).to_thousandths(): item["label"] for item in objects if item["box"] is not None
        }
        opened: int | None = None
        for index, token in enumerate(ids):
            if token == self._open:
                opened = index
            elif token == NOT_ASKED:
                opened = None
            elif token == self._close and opened is not None:
                for box in read(self._tokenizer.decode(ids[opened : index + 1])).boxes:
                    yield Asked(opened, index, labels.get(box.to_thousandths()), (box.xyxy,))
                opened = None

    def _places(self, label: str, ids: Sequence[int]) -> Iterator[range]:
        if label not in self._names:
            self._names[label] = self._tokenizer.encode(f" {label}", add_special_tokens=False)
        name = self._names[label]
        for start, token in enumerate(ids):
            if token == name[0] and ids[start : start + len(name)] == name:
                yield range(start, start + len(name))


def question_targets(
    things: Iterable[Asked], length: int, classes: Mapping[str, int], num_queries: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where a sequence looks, (length, Q + 1) bool, see `LookLoss`, and what its tokens then know: classes (length,),
    UNKNOWN where that is no one thing, and boxes (length, 4) in thousandths.
    """
    looks = torch.zeros(length, num_queries + 1, dtype=torch.bool)
    known = torch.full((length,), UNKNOWN)
    boxes = torch.zeros(length, 4, dtype=torch.long)
    for thing in things:
        slots = sorted({slot for box in thing.boxes for slot in slots_of(box, num_queries)}) or [num_queries]
        looks[thing.start : thing.end + 1, slots] = True
        if not thing.boxes:
            known[thing.end] = BACKGROUND
        elif len(thing.boxes) == 1 and thing.label is not None and thing.label in classes:
            known[thing.end] = classes[thing.label]
            boxes[thing.end] = torch.tensor(Box(*thing.boxes[0]).to_thousandths())
    return looks, known, boxes


def without_answers(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A collated batch, of whose rows only the prefix and the questions are left: (B, T) to (B, T') of all.

    Rows that are shorter than the longest keep something of their answers at the end, which no question sees and which
    looks nowhere.
    """
    kept = batch["is_question"]  # (B, T)
    order = (~kept).to(torch.uint8).argsort(dim=-1, stable=True)[:, : int(kept.sum(-1).max())]  # (B, T')
    rows = torch.arange(len(order), device=order.device)[:, None]
    cut = {name: batch[name][rows, order] for name in _OF_A_TOKEN}
    cut["slot_looks"] &= kept[rows, order][..., None]
    seen = batch["attention_mask"][rows[..., None], 0, order[:, :, None], order[:, None]]  # (B, T', T')
    return dict(batch) | cut | {"attention_mask": seen[:, None]}


@contextmanager
def lower_layers(language_model: nn.Module, count: int) -> Iterator[None]:
    """Within this only the first `count` layers of a language model run."""
    layers = language_model.layers
    language_model.layers = layers[:count]
    try:
        yield
    finally:
        language_model.layers = layers


@contextmanager
def kept_up_to(layer: nn.Module) -> Iterator[None]:
    """Within this nothing that a layer has put out is traced back: neither it nor what is below it learns."""
    hook = layer.register_forward_hook(lambda module, args, states: states.detach())
    try:
        yield
    finally:
        hook.remove()
