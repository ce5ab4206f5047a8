"""What each image slot stands on: a second loss for small models that are trained from nothing.

The tokens of an answer tell little about a picture: a few boxes. All boxes of a picture say of the slots around their
centres which object lies there and how far it reaches, and a vision tower learns to see from that sooner. The layer
that reads this from the features (`SlotHead`) is used in training alone and is not saved with the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import nn

from ..hub.boxes import THOUSAND, Box
from ..hub.decoding_bird import bells
from ..hub.modeling_bird import BirdForConditionalGeneration
from .attention import WATCHED, Watched
from .numbers import start_alike

BACKGROUND = 0  # the class of a slot that lies on nothing
UNKNOWN = -1  # the class of what stands for no one thing
_CENTRE = 0.5  # of a box's sides: the slots that stand for it; at its corners lies something else
_SPREAD = 6.0  # of the bell around a side of a box, in thousandths


class SlotHead(nn.Module):
    """Reads class and box from the features of each slot, as the projector last put them out.

    Or from the states of tokens that have looked things up in the slots, as a layer put them out (`questions.py`).

    Both are told in the language of the model that will look them up, so that it has to look and copy, no more: what
    lies on a slot by likeness to the embeddings of its name's tokens, and each side of its box by likeness of a linear
    map of the features to the embeddings of numbers, with a bell around the right one (`numbers.py`). As four plain
    distances boxes are learnt later and less well (docs/decisions.md).

    reads: the projector, or the layer. names: the token ids of each class but the background. numbers: the ids of 0 to
    1000; None where they are no tokens, and are embedded here instead. learn_embeddings: let the embeddings come to
    meet the features; not those of a model that already speaks. background_weight: what the background counts beside
    other classes; most slots of a picture lie on nothing.
    """

    def __init__(
        self,
        reads: nn.Module,
        embedding: nn.Embedding,
        names: Sequence[Sequence[int]],
        numbers: torch.Tensor | None,
        learn_embeddings: bool = True,
        background_weight: float = 0.2,
    ):
        super().__init__()
        width = embedding.embedding_dim
        reads.register_forward_hook(self._look)
        self.embedding = [embedding]  # in a list, so that it stays the language model's alone
        self.learn_embeddings = learn_embeddings
        self.background = nn.Parameter(torch.randn(1, width))
        self.sides = nn.Linear(width, 4 * width, bias=False)
        self.own_numbers = None if numbers is not None else nn.Embedding(THOUSAND + 1, width)
        if self.own_numbers is not None:
            numbers = torch.arange(THOUSAND + 1)
            start_alike(self.own_numbers.weight, numbers)
        lengths = torch.tensor([0, *(len(ids) for ids in names)])
        class_weight = torch.ones(1 + len(names))
        class_weight[BACKGROUND] = background_weight
        constants = {
            "tokens": torch.tensor([i for ids in names for i in ids]),
            "starts": lengths.cumsum(0)[:-1],
            "numbers": numbers,
            "bells": bells(THOUSAND + 1, _SPREAD),
            "class_weight": class_weight,
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def _look(self, module: nn.Module, args: Any, features: torch.Tensor) -> None:
        self._features = features  # (N, Q, D), or (B, T, D)

    def loss(self, classes: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Of classes (N, Q) and boxes (N, Q, 4), in thousandths: the cross-entropy of both, and what overlap lacks.

        What is UNKNOWN counts nothing.
        """
        # Autocast ends where the model's forward does; the language model normalises what it reads just so.
        known = classes != UNKNOWN
        classes, boxes = classes[known], boxes[known]  # (n,), (n, 4)
        features = F.rms_norm(self._features[known].float(), self._features.shape[-1:])
        table = self.embedding[0].weight
        table = table if self.learn_embeddings else table.detach()
        names = F.embedding_bag(self.tokens, table, self.starts, mode="mean")
        scores = features @ F.normalize(torch.cat([self.background, names])).T  # (n, 1 + names)
        loss = F.cross_entropy(scores, classes, self.class_weight)
        on_object = classes != BACKGROUND
        if on_object.any():
            numbers = (table if self.own_numbers is None else self.own_numbers.weight)[self.numbers]
            sides = self.sides(features[on_object]).unflatten(-1, (4, -1))
            log_probs = (sides @ numbers.T).log_softmax(-1)  # (m, 4, 1001)
            wanted = boxes[on_object]
            expected = log_probs.exp() @ torch.arange(THOUSAND + 1.0, device=log_probs.device)
            loss = (
                loss
                - (log_probs * self.bells[wanted]).sum(-1).mean()
                + (1 - _overlap(expected, wanted)).mean()
            )
        return loss


class LookLoss:
    """Where attention goes while a box is written or read: to the slots that stand for it, or past them all.

    To say where a thing lies, a model looks it up: from the name to the slot that shows it. That step is all or
    nothing, and the answers' tokens alone find it late. Here every other head of two layers is told: what one head
    brings along is too narrow for a name and four numbers.

    layers: which ones; those at a quarter and at half of the depth where none are given.
    """

    def __init__(self, model: BirdForConditionalGeneration, layers: Sequence[int] = ()):
        all_layers = model.model.language_model.layers
        self._image_token = model.config.image_token_id
        # Not in the first layer, where a name of several tokens is not one thing yet, nor in the last, which speaks.
        self._watched = []
        layers = layers or (len(all_layers) // 4, len(all_layers) // 2)
        if min(layers) < 0 or max(layers) >= len(all_layers):
            raise ValueError(
                f"look_layers {list(layers)}: the language model has {len(all_layers)}, from 0 on"
            )
        for at in sorted(set(layers)):
            self._watched.append(Watched(slice(None, None, 2)))
            setattr(all_layers[at].self_attn, WATCHED, self._watched[-1])
        self.depth = 1 + max(layers)  # so many layers run before all has been looked up

    def loss(self, input_ids: torch.Tensor, looks: torch.Tensor) -> torch.Tensor:
        """Ids (B, T), and where each is to look, (B, T, Q + 1) bool: the mean over those that are to look anywhere.

        The last column is for what is not there: to look at the token behind the slots. A row has one image, or none
        and nothing to look at.
        """
        row, token = looks.any(-1).nonzero(as_tuple=True)
        is_slot = input_ids == self._image_token
        image_of_row = is_slot.any(-1).cumsum(0) - 1
        columns = is_slot.nonzero()[:, 1].view(-1, looks.shape[-1] - 1)[image_of_row[row]]  # (n, Q)
        columns = torch.cat([columns, columns[:, -1:] + 1], dim=-1)  # (n, Q + 1)
        elsewhere = ~looks[row, token]
        shares = []
        for heads in self._watched:
            seen = heads.mask[row, :, token]  # (n, 1, T)
            scores = (heads.query @ heads.key.mT)[row, :, token].float() + seen  # (n, heads, T)
            at_slots = columns[:, None].expand(-1, scores.shape[1], -1)
            there = scores.log_softmax(-1).gather(2, at_slots).masked_fill(elsewhere[:, None], -math.inf)
            shares.append(there.logsumexp(-1).mean())
        return -torch.stack(shares).mean()


def _overlap(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """IoU of boxes (n, 4) in thousandths, each with its own; those found may be of negative size."""
    near, far = torch.maximum(found[:, :2], wanted[:, :2]), torch.minimum(found[:, 2:], wanted[:, 2:])
    common = (far - near).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1) for boxes in (found, wanted)]
    return common / (sum(areas) - common).clamp(min=1)


def names_of(dataset: Dataset) -> dict[str, int]:
    """The class of each name that lies somewhere in the dataset, from 1 up in alphabetical order."""
    objects = pc.list_flatten(dataset.select_columns(["objects"]).with_format("arrow")[:]["objects"])
    present = pc.struct_field(objects, "present")
    names = pc.unique(pc.struct_field(objects, "label").filter(present)).to_pylist()
    return {name: number for number, name in enumerate(sorted(names), start=1)}


def slot_targets(
    pictures: Sequence[Iterable[Mapping[str, Any]]], classes: Mapping[str, int], num_queries: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Objects of each picture (label, unit box or None) -> classes (N, Q) and boxes (N, Q, 4) of its slots.

    The boxes are in thousandths, as answers have them. Slots are a square grid, row by row. A box has the slots around
    its centre, and the one that its centre is in; where boxes meet the smaller one wins.
    """
    labels = torch.full((len(pictures), num_queries), BACKGROUND)
    boxes = torch.zeros(len(pictures), num_queries, 4, dtype=torch.long)
    for number, objects in enumerate(pictures):
        placed = [(item["box"], classes[item["label"]]) for item in objects if item["box"] is not None]
        for box, name in sorted(placed, key=lambda item: -_area(item[0])):
            inside = slots_of(box, num_queries)
            labels[number, inside] = name
            boxes[number, inside] = torch.tensor(Box(*box).to_thousandths())
    return labels, boxes


def slots_of(box: Sequence[float], num_queries: int) -> list[int]:
    """Which slots stand for a unit box: those around its centre, and the one that its centre is in."""
    side = round(num_queries**0.5)
    x1, y1, x2, y2 = box
    columns, rows = _around(x1, x2, side), _around(y1, y2, side)
    own = _place((y1 + y2) / 2, side) * side + _place((x1 + x2) / 2, side)
    return sorted({own, *(row * side + column for row in rows for column in columns)})


def _around(near: float, far: float, side: int) -> range:
    """The slots of a row or column whose centres are in the middle part of what lies from `near` to `far`."""
    middle = (near + far) / 2 * side - 0.5  # in slots, from the centre of the first
    reach = _CENTRE * (far - near) / 2 * side
    return range(max(0, math.ceil(middle - reach)), min(side - 1, math.floor(middle + reach)) + 1)


def _place(place: float, side: int) -> int:
    return min(side - 1, int(place * side))


def _area(box: Sequence[float]) -> float:
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)
