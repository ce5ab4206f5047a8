"""What Med-GRIT is made of: an image with masks, its record, and the dialogues about it.

A `MaskedImage` is what a source yields (pixels and one mask an object). `masks.record_of` turns it into
an `ImageRecord` (boxes instead of masks), `dialogues.py` writes `Dialogue`s about that, and
`dialogue_row` is the published row. Only the last of these holds tagged text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ..hub.boxes import Box
from ..hub.grounding import Span, write

if TYPE_CHECKING:
    import numpy as np
    from datasets import Features

SCHEMA_VERSION = 1


class Modality(StrEnum):
    """The eight imaging modalities of the paper (BiRD 3)."""

    CT = "ct"
    MR = "mr"
    X_RAY = "x_ray"
    PET = "pet"
    ENDOSCOPY = "endoscopy"
    DERMOSCOPY = "dermoscopy"
    FUNDUS = "fundus"
    ULTRASOUND = "ultrasound"


# BiRD 3: PET and fundus images get no classification questions if there is only one class.
_MAYBE_SINGLE_CLASS = (Modality.PET, Modality.FUNDUS)


class Task(StrEnum):
    """The four tasks of the paper (BiRD 3), and all turns of an image together."""

    VISUAL_GROUNDING = "vg"  # text -> box
    REFERRING_CLASSIFICATION = "roc"  # box -> name
    REFERRING_CAPTION = "rc"  # box -> sentence
    IMAGE_ANALYSIS = "mia"  # text -> text
    CHAT = "chat"


SINGLE_TASKS = (
    Task.VISUAL_GROUNDING,
    Task.REFERRING_CLASSIFICATION,
    Task.REFERRING_CAPTION,
    Task.IMAGE_ANALYSIS,
)


class Axis(StrEnum):
    """The plane of a slice; pictures that are no slice of a volume are `PLANAR`."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"
    PLANAR = "2d"


@dataclass(frozen=True)
class ImageInfo:
    """Where an image comes from and what it shows.

    `case_id` is the unit of a split: the patient where it is known, else the volume or picture.
    `slice_index` is None for pictures that are no slice. `synthetic` marks phantoms.
    """

    image_id: str
    modality: Modality
    modality_detail: str
    region: str
    axis: Axis
    slice_index: int | None
    dataset: str
    case_id: str
    synthetic: bool


@dataclass(frozen=True)
class MaskedImage:
    """Pixels with one mask an object: what every source yields.

    pixels: (H, W) or (H, W, 3) uint8. masks: (label, (H, W) bool), one object instance each, none empty.
    absent: labels that the source annotates exhaustively and that have no pixel in this image.
    """

    info: ImageInfo
    pixels: np.ndarray
    masks: tuple[tuple[str, np.ndarray], ...]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class Instance:
    """One object of an image, or one that is looked for and not there (`box` is None).

    `area` is the share of the image's pixels that its mask covers, in [0, 1].
    """

    instance_id: str
    label: str
    box: Box | None
    area: float

    @property
    def present(self) -> bool:
        return self.box is not None


@dataclass(frozen=True)
class ImageRecord:
    """An image's meta information (BiRD 3, step i) and caption (step ii)."""

    info: ImageInfo
    image_wh: tuple[int, int]
    instances: tuple[Instance, ...]
    caption: str = ""

    @property
    def present(self) -> tuple[Instance, ...]:
        return tuple(instance for instance in self.instances if instance.present)

    @property
    def absent(self) -> tuple[Instance, ...]:
        return tuple(instance for instance in self.instances if not instance.present)

    @property
    def allows_classification(self) -> bool:
        """False for a PET or fundus image with objects of one label only: the answer would always be the same."""
        labels = {instance.label for instance in self.present}
        return len(labels) > 1 or self.info.modality not in _MAYBE_SINGLE_CLASS


def single_class_modalities(records: Iterable[ImageRecord]) -> set[Modality]:
    """PET or fundus, if all their objects in a whole dataset have one label; such images get no classification turns.

    This rule is about a dataset, `ImageRecord.allows_classification` about one image.
    """
    labels: dict[Modality, set[str]] = {}
    for record in records:
        labels.setdefault(record.info.modality, set()).update(instance.label for instance in record.present)
    return {modality for modality in _MAYBE_SINGLE_CLASS if len(labels.get(modality, ())) == 1}


@dataclass(frozen=True)
class Turn:
    """One question and its answer: clean text with spans; tags are written only by `tagged`."""

    task: Task
    question: str
    answer: str
    question_spans: tuple[Span, ...] = ()
    answer_spans: tuple[Span, ...] = ()
    instance_ids: tuple[str, ...] = ()

    def tagged(self) -> tuple[str, str]:
        """Question and answer as the model reads and writes them."""
        return write(self.question, self.question_spans), write(self.answer, self.answer_spans)


@dataclass(frozen=True)
class Dialogue:
    """Turns about one image. `independent`: each turn stands alone, so their order means nothing."""

    record: ImageRecord
    turns: tuple[Turn, ...]
    teacher: str
    independent: bool = True


def dialogue_row(dialogue: Dialogue, image: Any = None) -> dict[str, Any]:
    """The published row of a dialogue: task of its turns, `chat` where they differ or are several."""
    record, info = dialogue.record, dialogue.record.info
    task = dialogue.turns[0].task if len(dialogue.turns) == 1 else Task.CHAT
    messages = []
    for turn in dialogue.turns:
        question, answer = turn.tagged()
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {
        "image_id": info.image_id,
        "image": image,
        "image_wh": list(record.image_wh),
        "modality": info.modality.value,
        "modality_detail": info.modality_detail,
        "region": info.region,
        "axis": info.axis.value,
        "slice": info.slice_index,
        "dataset": info.dataset,
        "case_id": info.case_id,
        "caption": record.caption,
        "task": task.value,
        "messages": messages,
        "independent": dialogue.independent,
        "objects": [_object_row(instance) for instance in _named_in(record, dialogue.turns)],
        "synthetic": info.synthetic,
        "teacher": dialogue.teacher,
    }


def _named_in(record: ImageRecord, turns: Sequence[Turn]) -> list[Instance]:
    """The instances that the turns speak of, in the record's order."""
    named = {instance_id for turn in turns for instance_id in turn.instance_ids}
    return [instance for instance in record.instances if instance.instance_id in named]


def _object_row(instance: Instance) -> dict[str, Any]:
    return {
        "instance_id": instance.instance_id,
        "label": instance.label,
        "box": list(instance.box.xyxy) if instance.box else None,
        "area": instance.area,
        "present": instance.present,
    }


def row_features() -> Features:
    """The columns of a published row. `datasets` is imported here: the core does not need it."""
    from datasets import Features, Image, List, Value

    return Features(
        {
            "image_id": Value("string"),
            "image": Image(),
            "image_wh": List(Value("int32"), length=2),
            "modality": Value("string"),
            "modality_detail": Value("string"),
            "region": Value("string"),
            "axis": Value("string"),
            "slice": Value("int32"),
            "dataset": Value("string"),
            "case_id": Value("string"),
            "caption": Value("string"),
            "task": Value("string"),
            "messages": List({"role": Value("string"), "content": Value("string")}),
            "independent": Value("bool"),
            "objects": List(
                {
                    "instance_id": Value("string"),
                    "label": Value("string"),
                    "box": List(Value("float64")),
                    "area": Value("float64"),
                    "present": Value("bool"),
                }
            ),
            "synthetic": Value("bool"),
            "teacher": Value("string"),
        }
    )


def hash_of(image_id: str, task: str, question: str, answer: str) -> str:
    """What a decision about a turn is tied to: its image, its task, and its words with their tags."""
    return sha256_of([image_id, task, question, answer])


def hash_of_turn(image_id: str, turn: Turn) -> str:
    """`hash_of` a turn."""
    return hash_of(image_id, turn.task.value, *turn.tagged())


def sha256_of(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True).encode()).hexdigest()
