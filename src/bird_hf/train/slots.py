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

from ..hub.modeling_bird import BirdForConditionalGeneration, BirdProjector
from .attention import WATCHED

BACKGROUND = 0  # the class of a slot that lies on nothing
_CENTRE = 0.5  # of a box's sides: the slots that stand for it; at its corners lies something else
_BACKGROUND_WEIGHT = 0.2  # most slots of a picture lie on nothing
_BOX_WEIGHT = 10.0  # a box that is off by a tenth counts as much as a class that is not known


class SlotHead(nn.Module):
    """Reads class and box from the features of each slot, as the projector last put them out.

    What lies on a slot is told by likeness to the embeddings of its name's tokens: the features are from the start in
    the language of the model that will look them up. names: the token ids of each class but the background.
    learn_names: let the embeddings come to meet the features; not those of a model that already speaks.
    """

    def __init__(
        self,
        projector: BirdProjector,
        embedding: nn.Embedding,
        names: Sequence[Sequence[int]],
        learn_names: bool = True,
    ):
        super().__init__()
        width = embedding.embedding_dim
        projector.register_forward_hook(self._look)
        self.embedding = [embedding]  # in a list, so that it stays the language model's alone
        self.learn_names = learn_names
        self.background = nn.Parameter(torch.randn(1, width))
        self.box = nn.Linear(width, 4)
        lengths = torch.tensor([0, *(len(ids) for ids in names)])
        self.register_buffer("tokens", torch.tensor([i for ids in names for i in ids]), persistent=False)
        self.register_buffer("starts", lengths.cumsum(0)[:-1], persistent=False)
        self.register_buffer("class_weight", torch.ones(1 + len(names)), persistent=False)
        self.class_weight[BACKGROUND] = _BACKGROUND_WEIGHT

    def _look(self, projector: nn.Module, args: Any, features: torch.Tensor) -> None:
        self._features = features  # (N, Q, D)

    def loss(self, classes: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of classes (N, Q), mean distance of boxes (N, Q, 4), and what their overlap (IoU) lacks."""
        # Autocast ends where the model's forward does; the language model normalises what it reads just so.
        features = F.rms_norm(self._features.float(), self._features.shape[-1:])
        table = self.embedding[0].weight
        table = table if self.learn_names else table.detach()
        names = F.embedding_bag(self.tokens, table, self.starts, mode="mean")
        scores = features @ F.normalize(torch.cat([self.background, names])).T  # (N, Q, 1 + names)
        loss = F.cross_entropy(scores.flatten(0, 1), classes.flatten(), self.class_weight)
        on_object = classes != BACKGROUND
        if on_object.any():
            found, wanted = self.box(features[on_object]), boxes[on_object]
            loss = loss + _BOX_WEIGHT * F.l1_loss(found, wanted) + (1 - _overlap(found, wanted)).mean()
        return loss


class LookLoss:
    """Where attention goes while a box is written or read: to the slots that stand for it.

    To say where a thing lies, a model looks it up: from the name to the slot that shows it. That step is all or
    nothing, and the answers' tokens alone find it late. Here one head in two of the layers is told.
    """

    def __init__(self, model: BirdForConditionalGeneration):
        layers = model.model.language_model.layers
        self._image_token = model.config.image_token_id
        # Not in the first layer, where a name of several tokens is not one thing yet, nor in the last, which speaks.
        self._watched = [layers[at].self_attn for at in sorted({len(layers) // 4, len(layers) // 2})]
        for attention in self._watched:
            setattr(attention, WATCHED, None)

    def loss(self, input_ids: torch.Tensor, looks: torch.Tensor) -> torch.Tensor:
        """Ids (B, T), and which slots each is to look at, (B, T, Q) bool: the mean over those that are to look at any.

        A row has one image, or none and nothing to look at.
        """
        row, token = looks.any(-1).nonzero(as_tuple=True)
        is_slot = input_ids == self._image_token
        image_of_row = is_slot.any(-1).cumsum(0) - 1
        columns = is_slot.nonzero()[:, 1].view(-1, looks.shape[-1])[image_of_row[row]]  # (n, Q)
        elsewhere = ~looks[row, token]
        shares = []
        for attention in self._watched:
            query, key, mask = getattr(attention, WATCHED)
            scores = torch.baddbmm(mask[:, 0].to(query.dtype), query, key.mT)[row, token].float()  # (n, T)
            there = scores.log_softmax(-1).gather(1, columns).masked_fill(elsewhere, -math.inf)
            shares.append(there.logsumexp(-1).mean())
        return -torch.stack(shares).mean()


def _overlap(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """IoU of boxes (n, 4) each with its own; those found may be of negative size."""
    near, far = torch.maximum(found[:, :2], wanted[:, :2]), torch.minimum(found[:, 2:], wanted[:, 2:])
    common = (far - near).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1) for boxes in (found, wanted)]
    return common / (sum(areas) - common).clamp(min=1e-6)


def names_of(dataset: Dataset) -> dict[str, int]:
    """The class of each name that lies somewhere in the dataset, from 1 up in alphabetical order."""
    objects = pc.list_flatten(dataset.select_columns(["objects"]).with_format("arrow")[:]["objects"])
    present = pc.struct_field(objects, "present")
    names = pc.unique(pc.struct_field(objects, "label").filter(present)).to_pylist()
    return {name: number for number, name in enumerate(sorted(names), start=1)}


def slot_targets(
    pictures: Sequence[Iterable[Mapping[str, Any]]], classes: Mapping[str, int], num_queries: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Objects of each picture (label, unit box or None) -> classes (N, Q) and unit boxes (N, Q, 4) of its slots.

    Slots are a square grid, row by row. A box has the slots around its centre, and the one that its centre is in;
    where boxes meet the smaller one wins.
    """
    labels = torch.full((len(pictures), num_queries), BACKGROUND)
    boxes = torch.zeros(len(pictures), num_queries, 4)
    for number, objects in enumerate(pictures):
        placed = [(item["box"], classes[item["label"]]) for item in objects if item["box"] is not None]
        for box, name in sorted(placed, key=lambda item: -_area(item[0])):
            inside = slots_of(box, num_queries)
            labels[number, inside] = name
            boxes[number, inside] = torch.tensor(box, dtype=boxes.dtype)
    return labels, boxes


def slots_of(box: Sequence[float], num_queries: int) -> torch.Tensor:
    """Which slots stand for a unit box, (Q,) bool: those around its centre, and the one that its centre is in."""
    side = round(num_queries**0.5)
    centres = (torch.arange(side) + 0.5) / side
    y, x = (grid.flatten() for grid in torch.meshgrid(centres, centres, indexing="ij"))
    x1, y1, x2, y2 = box
    across, down = (x1 + x2) / 2, (y1 + y2) / 2
    near_x = 2 * (x - across).abs() <= _CENTRE * (x2 - x1)
    inside = near_x & (2 * (y - down).abs() <= _CENTRE * (y2 - y1))
    column, row = (min(side - 1, int(place * side)) for place in (across, down))
    inside[row * side + column] = True
    return inside


def _area(box: Sequence[float]) -> float:
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)
