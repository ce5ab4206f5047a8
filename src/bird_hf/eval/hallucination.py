"""Questions about objects that are not in the image: does the model give a box? (BiRD 5, Fig. 4)

The questions are fixed: none is random, and every model gets the same ones. For each image of a split the model is
asked, in one wording, where an object is, for two kinds of objects:

- absent: labels that the image's rows list as absent; their label lists are exhaustive, so they are known to be absent;
- foreign: two names that belong to other modalities and cannot occur in an image of this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from ..data.records import Modality
from ..data.teachers.wordings import Kind, fill, plain_forms
from ..hub.grounding import read
from .paper_rules import clean_response
from .predictions import Prediction
from .recall import Recall


class Missing(StrEnum):
    """How it is known that an object is not in an image."""

    ABSENT = "absent"
    FOREIGN = "foreign"


# A finding of dermoscopy, one of the retina, and organs that a camera at the skin, bowel or retina cannot see.
_FOREIGN = {
    **dict.fromkeys(
        (Modality.CT, Modality.MR, Modality.X_RAY, Modality.PET, Modality.ULTRASOUND),
        ("blue-white veil", "cotton wool spot"),
    ),
    Modality.ENDOSCOPY: ("left clavicle", "cotton wool spot"),
    Modality.DERMOSCOPY: ("left kidney", "cotton wool spot"),
    Modality.FUNDUS: ("left kidney", "blue-white veil"),
}


def missing_objects(rows: Iterable[Mapping[str, Any]]) -> dict[Missing, list[Prediction]]:
    """The fixed questions about a split, without answers, ordered by image and then by name.

    rows: the rows of all tasks, with `image_id`, `modality`, `objects` and `synthetic`; rows may share an image.
    """
    images: dict[str, Mapping[str, Any]] = {}
    listed: dict[str, set[str]] = {}
    for row in rows:
        images.setdefault(row["image_id"], row)
        labels = listed.setdefault(row["image_id"], set())
        labels.update(item["label"] for item in row["objects"] if not item["present"])
    names = {
        Missing.ABSENT: {image_id: sorted(labels) for image_id, labels in listed.items()},
        Missing.FOREIGN: {
            image_id: list(_FOREIGN[Modality(row["modality"])]) for image_id, row in images.items()
        },
    }
    return {kind: _questions(kind, images, by_image) for kind, by_image in names.items()}


def _questions(
    kind: Missing, images: Mapping[str, Mapping[str, Any]], names: Mapping[str, list[str]]
) -> list[Prediction]:
    pairs = [(image_id, name) for image_id in images for name in names[image_id]]
    return [
        Prediction(
            number,
            f"{image_id}.png",
            fill(plain_forms(Kind.GROUND)[0], (name,)).text,
            f"There is no {name} in this image.",
            "",
            kind.value,
            images[image_id]["synthetic"],
            names=(name,),
        )
        for number, (image_id, name) in enumerate(pairs)
    ]


def box_given(response: str) -> Recall:
    """One hit of one if the answer to a question about a missing object holds a box."""
    return Recall(int(bool(read(clean_response(response)).boxes)), 1)
