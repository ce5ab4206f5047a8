"""The optional column `masks` of a Med-GRIT folder: the outlines of a row's objects as COCO's compressed run lengths.

There is one entry per object, in the order of `objects`. `size` is [height, width], as in COCO; `counts` is null if the
source has no outline of the object, or the object is absent. `pycocotools.mask.decode` reads an entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..records import row_features

if TYPE_CHECKING:
    from datasets import Features

MASKS = "masks"


def published_features(masks: bool) -> Features:
    """The columns of a row, with or without masks."""
    from datasets import List, Value

    features = row_features()
    if masks:
        features[MASKS] = List(
            {
                "instance_id": Value("string"),
                "size": List(Value("int32"), length=2),
                "counts": Value("string"),
            }
        )
    return features


def mask_cells(
    objects: Sequence[Mapping[str, Any]], image_wh: Sequence[int], runs: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The column `masks` of a row. runs: instance id -> compressed run lengths."""
    width, height = image_wh
    return [
        {
            "instance_id": item["instance_id"],
            "size": [height, width],
            "counts": runs.get(item["instance_id"]),
        }
        for item in objects
    ]
