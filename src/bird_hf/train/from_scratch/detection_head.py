"""A detection loss on image tokens, for small models trained from scratch.

The tokens of an answer carry little information about an image: a few boxes. All boxes of the image give a class and a
box for each image token near their centres, and a vision tower learns from that sooner. The head is used in training
only and is not saved with the model.
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

from ...hub.boxes import THOUSAND, Box
from ...hub.decoding_bird import gaussian_kernel
from .coordinate_tokens import init_coordinate_embeddings

BACKGROUND = 0  # the class of an image token that shows no object
_BACKGROUND_WEIGHT = 0.2  # beside other classes; most image tokens are background
_CENTRE = (
    0.5  # share of a box's sides whose image tokens get its class; its corners often show something else
)
_LABEL_SIGMA = 6.0  # of the Gaussian label around each side of a box, in thousandths


class DetectionHead(nn.Module):
    """Predicts class and box from the features of each image token.

    Both are expressed in the language model's embeddings, so that it only has to attend and copy: the class by
    similarity to the mean embedding of its name's tokens, and each side of the box by similarity of a linear map of the
    features to the embeddings of coordinates, with a Gaussian label (`coordinate_tokens.py`). With a box as four plain
    numbers, boxes were learnt later and less well (docs/nano.md).

    embedding: the language model's, which is trained here too but stays no parameter of the head. class_tokens: the
    token ids of each class but the background. coordinates: the ids of 0 to 1000; None if they are no tokens, and the
    head has embeddings of its own for them.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        class_tokens: Sequence[Sequence[int]],
        coordinates: torch.Tensor | None,
    ):
        super().__init__()
        width = embedding.embedding_dim
        self._embedding = (embedding,)  # in a tuple, so that it is not registered as a submodule
        self.background = nn.Parameter(torch.randn(1, width))
        self.sides = nn.Linear(width, 4 * width, bias=False)
        self.own_coordinates = None if coordinates is not None else nn.Embedding(THOUSAND + 1, width)
        if self.own_coordinates is not None:
            coordinates = torch.arange(THOUSAND + 1)
            init_coordinate_embeddings(self.own_coordinates.weight, coordinates)
        lengths = torch.tensor([0, *(len(ids) for ids in class_tokens)])
        class_weight = torch.ones(1 + len(class_tokens))
        class_weight[BACKGROUND] = _BACKGROUND_WEIGHT
        constants = {
            "tokens": torch.tensor([i for ids in class_tokens for i in ids]),
            "starts": lengths.cumsum(0)[:-1],
            "coordinates": coordinates,
            "kernel": gaussian_kernel(THOUSAND + 1, _LABEL_SIGMA),
            "class_weight": class_weight,
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, features: torch.Tensor, classes: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """The loss, from features (N, Q, D), classes (N, Q), and boxes (N, Q, 4) in thousandths.

        It is the cross-entropy of classes, and for tokens with an object that of the sides and 1 - IoU of the box.
        """
        # In float32, outside autocast; normalised as the language model does with its inputs.
        features = F.rms_norm(features.flatten(0, 1).float(), features.shape[-1:])  # (n, D)
        classes, boxes = classes.flatten(), boxes.flatten(0, 1)
        table = self._embedding[0].weight
        names = F.embedding_bag(self.tokens, table, self.starts, mode="mean")
        scores = features @ F.normalize(torch.cat([self.background, names])).T  # (n, 1 + classes)
        loss = F.cross_entropy(scores, classes, self.class_weight)
        on_object = classes != BACKGROUND
        if on_object.any():
            own = self.own_coordinates
            coordinates = (table if own is None else own.weight)[self.coordinates]
            sides = self.sides(features[on_object]).unflatten(-1, (4, -1))
            log_probs = (sides @ coordinates.T).log_softmax(-1)  # (m, 4, 1001)
            wanted = boxes[on_object]
            expected = log_probs.exp() @ torch.arange(THOUSAND + 1.0, device=log_probs.device)
            loss = (
                loss - (log_probs * self.kernel[wanted]).sum(-1).mean() + (1 - _iou(expected, wanted)).mean()
            )
        return loss


def _iou(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """IoU of boxes (n, 4) in thousandths, pair by pair; predicted boxes may have a negative size."""
    near, far = torch.maximum(found[:, :2], wanted[:, :2]), torch.minimum(found[:, 2:], wanted[:, 2:])
    common = (far - near).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1) for boxes in (found, wanted)]
    return common / (sum(areas) - common).clamp(min=1)


def classes_of(dataset: Dataset) -> dict[str, int]:
    """The class of each label that is present in some image, from 1 up in alphabetical order."""
    objects = pc.list_flatten(dataset.select_columns(["objects"]).with_format("arrow")[:]["objects"])
    present = pc.struct_field(objects, "present")
    labels = pc.unique(pc.struct_field(objects, "label").filter(present)).to_pylist()
    return {label: number for number, label in enumerate(sorted(labels), start=1)}


def detection_targets(
    images: Sequence[Iterable[Mapping[str, Any]]], classes: Mapping[str, int], num_queries: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Objects of each image (label, unit box or None) -> classes (N, Q) and boxes (N, Q, 4) of its image tokens.

    The boxes are in thousandths, as in answers. Image tokens are a square grid, row by row. A box is assigned to the
    tokens around its centre; where boxes overlap, to the smallest one.
    """
    labels = torch.full((len(images), num_queries), BACKGROUND)
    boxes = torch.zeros(len(images), num_queries, 4, dtype=torch.long)
    for number, objects in enumerate(images):
        placed = [(item["box"], classes[item["label"]]) for item in objects if item["box"] is not None]
        for box, label in sorted(placed, key=lambda item: -_area(item[0])):
            inside = image_tokens_of(box, num_queries)
            labels[number, inside] = label
            boxes[number, inside] = torch.tensor(Box(*box).to_thousandths())
    return labels, boxes


def image_tokens_of(box: Sequence[float], num_queries: int) -> list[int]:
    """Image tokens of a unit box: those in the middle part of it, and the one that holds its centre."""
    side = round(num_queries**0.5)
    x1, y1, x2, y2 = box
    columns, rows = _around_centre(x1, x2, side), _around_centre(y1, y2, side)
    own = _cell((y1 + y2) / 2, side) * side + _cell((x1 + x2) / 2, side)
    return sorted({own, *(row * side + column for row in rows for column in columns)})


def _around_centre(near: float, far: float, side: int) -> range:
    """The cells of a row or column whose centres are in the middle part of the interval `near` to `far`."""
    middle = (near + far) / 2 * side - 0.5  # in cells, from the centre of the first
    reach = _CENTRE * (far - near) / 2 * side
    return range(max(0, math.ceil(middle - reach)), min(side - 1, math.floor(middle + reach)) + 1)


def _cell(place: float, side: int) -> int:
    return min(side - 1, int(place * side))


def _area(box: Sequence[float]) -> float:
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)
