"""What each image slot stands on: a second loss for small models that are trained from nothing.

The tokens of an answer tell little about a picture: a few boxes. All boxes of a picture say of the slots around their
centres which object lies there and how far it reaches, and a vision tower learns to see from that sooner. The layer
that reads this from the features (`SlotHead`) is used in training alone and is not saved with the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import nn

from ..hub.modeling_bird import BirdProjector

BACKGROUND = 0  # the class of a slot that lies on nothing
_CENTRE = 0.5  # of a box's sides: the slots that stand for it; at its corners lies something else
_BACKGROUND_WEIGHT = 0.2  # most slots of a picture lie on nothing
_BOX_WEIGHT = 10.0  # a box that is off by a tenth counts as much as a class that is not known


class SlotHead(nn.Module):
    """Reads class and box from the features of each slot, as the projector last put them out."""

    def __init__(self, projector: BirdProjector, num_names: int):
        super().__init__()
        width = projector.linear.out_features
        projector.register_forward_hook(self._look)
        self.name = nn.Linear(width, 1 + num_names)
        self.box = nn.Linear(width, 4)
        self.register_buffer("class_weight", torch.ones(1 + num_names), persistent=False)
        self.class_weight[BACKGROUND] = _BACKGROUND_WEIGHT

    def _look(self, projector: nn.Module, args: Any, features: torch.Tensor) -> None:
        self._features = features  # (N, Q, D)

    def loss(self, classes: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of classes (N, Q), and mean distance of boxes (N, Q, 4)."""
        features = self._features.float()  # autocast ends where the model's forward does
        scores = self.name(features)  # (N, Q, 1 + names)
        loss = F.cross_entropy(scores.flatten(0, 1), classes.flatten(), self.class_weight)
        on_object = classes != BACKGROUND
        if on_object.any():
            loss = loss + _BOX_WEIGHT * F.l1_loss(self.box(features[on_object]), boxes[on_object])
        return loss


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
    side = round(num_queries**0.5)
    centres = (torch.arange(side) + 0.5) / side
    y, x = (grid.flatten() for grid in torch.meshgrid(centres, centres, indexing="ij"))
    labels = torch.full((len(pictures), num_queries), BACKGROUND)
    boxes = torch.zeros(len(pictures), num_queries, 4)
    for number, objects in enumerate(pictures):
        placed = [(item["box"], classes[item["label"]]) for item in objects if item["box"] is not None]
        for box, name in sorted(placed, key=lambda item: -_area(item[0])):
            x1, y1, x2, y2 = box
            across, down = (x1 + x2) / 2, (y1 + y2) / 2
            near_x = 2 * (x - across).abs() <= _CENTRE * (x2 - x1)
            inside = near_x & (2 * (y - down).abs() <= _CENTRE * (y2 - y1))
            inside[int(down * side) * side + int(across * side)] = True
            labels[number, inside] = name
            boxes[number, inside] = torch.tensor(box, dtype=boxes.dtype)
    return labels, boxes


def _area(box: Sequence[float]) -> float:
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)
