"""Objects that are not there: does a model box them all the same? (BiRD 5, "Object Hallucination", Fig. 4)

The questions are fixed: nothing is drawn at random, and every model is asked the same. Each image of a split is asked
where something is, in one wording, for two kinds of objects:

- absent: what its rows list as absent, from label lists that are exhaustive, so that it is known not to be there;
- foreign: two names of other kinds of pictures, which no picture of its modality can show.
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
from .scores import Recall


class Missing(StrEnum):
    """Why an object is known not to be in an image."""

    ABSENT = "absent"
    FOREIGN = "foreign"


# A dermatoscope's finding, a retinal one, and organs that no camera in front of skin, bowel or retina can see.
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
    """The fixed questions about a split, without answers, in the order of its images and, in an image, of names.

    rows: those of all its tasks, with `image_id`, `modality`, `objects` and `synthetic`; an image may have many.
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
        )
        for number, (image_id, name) in enumerate(pairs)
    ]


def box_given(response: str) -> Recall:
    """Asked for an object that is not there: whether the answer boxes one."""
    return Recall(int(bool(read(clean_response(response)).boxes)), 1)
