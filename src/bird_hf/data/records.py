"""The values of Med-GRIT: image names, images with masks, image records, dialogues and published rows.

A source yields `MaskedImage`s (pixels, and one mask per object). `masks.record_of` turns one into an `ImageRecord`
(boxes instead of masks), a teacher writes a `Dialogue` about the record, and `dialogue_row` makes the published row.
Only the row holds tagged text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..hub.boxes import Box
from ..hub.grounding import Span, write
from .choices import NamedChoice

if TYPE_CHECKING:
    import numpy as np
    from datasets import Features

SCHEMA_VERSION = 1


class Modality(NamedChoice):
    """The eight imaging modalities of the paper (BiRD 3)."""

    CT = "ct"
    MR = "mr"
    X_RAY = "x_ray"
    PET = "pet"
    ENDOSCOPY = "endoscopy"
    DERMOSCOPY = "dermoscopy"
    FUNDUS = "fundus"
    ULTRASOUND = "ultrasound"

    def prefix(self, detail: str) -> str:
        """The modality prefix of an image name: `mr_t1`, or `x_ray` if the detail is empty."""
        return f"{self.value}_{detail}" if detail else self.value

    @classmethod
    def from_prefix(cls, prefix: str) -> tuple[Modality, str]:
        """The modality and the detail of a prefix: `mr_t1ce` -> (MR, "t1ce").

        Raises ValueError if the prefix begins with none of the eight modalities.
        """
        for modality in cls:
            if prefix == modality.value or prefix.startswith(f"{modality.value}_"):
                return modality, prefix[len(modality.value) + 1 :]
        raise ValueError(f"{prefix[:80]!r} begins with no known modality; known are {', '.join(cls)}")

    @classmethod
    def from_first_word(cls, word: str) -> Modality:
        """The modality whose prefix, cut at its first underscore, is `word`: the original files write `x` for X-ray.

        Raises ValueError if the word is neither a modality nor `x`.
        """
        return cls.X_RAY if word == "x" else cls(word)


# BiRD 3: PET and fundus images get no classification questions if there is only one class.
_MAYBE_SINGLE_CLASS = (Modality.PET, Modality.FUNDUS)


class Task(NamedChoice):
    """The four tasks of the paper (BiRD 3), and `CHAT` for all turns of an image together."""

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


class Axis(NamedChoice):
    """The plane of a slice; `PLANAR` for images that are not slices of a volume."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"
    PLANAR = "2d"


# The file names of SA-Med2D: the letter of each plane, and the patterns of the last part of a name.
_AXIS_LETTERS = {Axis.SAGITTAL: "x", Axis.CORONAL: "y", Axis.AXIAL: "z"}
_PLANAR_PART = f"{Axis.PLANAR}_none"
_SLICE_PART = re.compile(r"([xyz])_(\d{1,6})")
_MASK_PART = re.compile(r"(\d{1,6})_(\d{1,6})")
# The tables of an SA-Med2D folder: image -> its masks, and dataset -> {class name: class id}.
IMAGES_TABLE = "SAMed2D_v1.json"
CLASSES_TABLE = "SAMed2D_v1_class_mapping_id.json"


@dataclass(frozen=True)
class ImageName:
    """The parts of an SA-Med2D image name, which is the image's id: `mr_t1--colin27--head--z_0090`.

    prefix: modality and detail, see `Modality.from_prefix`. original: the name in the dataset; it may contain dots
    and `--`. slice_index: None if `axis` is PLANAR; such a name ends in `2d_none`.
    """

    prefix: str
    dataset: str
    original: str
    axis: Axis = Axis.PLANAR
    slice_index: int | None = None

    def write(self) -> str:
        """The name, without a file ending.

        `parse` returns an equal `ImageName` if no part is empty, the slice index is below a million, and neither the
        prefix nor the dataset contains `--` or ends in `-`.
        """
        place = (
            f"{_AXIS_LETTERS[self.axis]}_{self.slice_index:04d}"
            if self.axis in _AXIS_LETTERS
            else _PLANAR_PART
        )
        return "--".join((self.prefix, self.dataset, self.original, place))

    @classmethod
    def parse(cls, stem: str) -> ImageName:
        """The parts of a name without its file ending. Raises ValueError if it does not follow the layout."""
        head, _, place = stem.rpartition("--")
        parts = head.split("--", 2)
        found = _SLICE_PART.fullmatch(place)
        if len(parts) != 3 or not all(parts) or not (found or place == _PLANAR_PART):
            raise ValueError(
                f"{stem[:80]!r} is not an SA-Med2D image name such as 'ct_00--dataset--case1--z_0001'"
            )
        prefix, dataset, original = parts
        if found is None:
            return cls(prefix, dataset, original)
        axis = next(axis for axis, letter in _AXIS_LETTERS.items() if letter == found.group(1))
        return cls(prefix, dataset, original, axis, int(found.group(2)))

    @property
    def synthetic(self) -> bool:
        """Whether the image is a phantom, by the name of its dataset."""
        return self.dataset.startswith("phantom_")


@dataclass(frozen=True)
class MaskName:
    """The parts of an SA-Med2D mask name, IMAGE_ID--CLASS_INSTANCE: one file per object.

    class_id and instance keep the digits of the file name, because masks are ordered by them as text.
    """

    image_id: str
    class_id: str
    instance: str

    @classmethod
    def of(cls, image_id: str, class_id: int, instance: int) -> MaskName:
        """The name of a new mask. Instances of a class count from 0 in each image."""
        return cls(image_id, f"{class_id:04d}", f"{instance:03d}")

    def write(self) -> str:
        """The name, without a file ending."""
        return f"{self.image_id}--{self.class_id}_{self.instance}"

    @classmethod
    def parse(cls, stem: str) -> MaskName:
        """The parts of a name without its file ending. Raises ValueError if it does not follow the layout."""
        image_id, _, ids = stem.rpartition("--")
        found = _MASK_PART.fullmatch(ids)
        if not image_id or not found:
            raise ValueError(f"{stem[:80]!r} is not an SA-Med2D mask name such as 'IMAGE--0001_000'")
        return cls(image_id, found.group(1), found.group(2))


@dataclass(frozen=True)
class ImageInfo:
    """Where an image comes from and what it shows.

    case_id: the unit of a split; the patient if it is known, else the volume or image. slice_index: None for images
    that are not slices. synthetic: whether the image is a phantom.
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
    """Pixels with one mask or box per object, as every source yields them.

    pixels: (H, W) or (H, W, 3) uint8. masks: (label, (H, W) bool), one per object instance, none empty.
    absent: labels that the source annotates exhaustively and that have no pixel in this image.
    boxes: (label, box) of the objects whose source has boxes and no outlines.
    """

    info: ImageInfo
    pixels: np.ndarray
    masks: tuple[tuple[str, np.ndarray], ...]
    absent: tuple[str, ...]
    boxes: tuple[tuple[str, Box], ...] = ()


@dataclass(frozen=True)
class Instance:
    """An object of an image, or a label that is absent from it (`box` is None).

    area: the share of the image's pixels that the mask covers, in [0, 1].
    """

    instance_id: str
    label: str
    box: Box | None
    area: float

    @property
    def present(self) -> bool:
        """Whether the image shows the object."""
        return self.box is not None


@dataclass(frozen=True)
class ImageRecord:
    """The meta information of an image (BiRD 3, step i) and its caption (step ii)."""

    info: ImageInfo
    image_wh: tuple[int, int]
    instances: tuple[Instance, ...]
    caption: str = ""

    @property
    def present(self) -> tuple[Instance, ...]:
        """The objects that the image shows."""
        return tuple(instance for instance in self.instances if instance.present)

    @property
    def absent(self) -> tuple[Instance, ...]:
        """The labels that are known to be absent."""
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
    """A question and its answer as clean text with spans; tags are written only by `tagged`.

    form: the id of the question's wording (see teachers/wordings), "" if unknown.
    """

    task: Task
    question: str
    answer: str
    question_spans: tuple[Span, ...] = ()
    answer_spans: tuple[Span, ...] = ()
    instance_ids: tuple[str, ...] = ()
    form: str = ""

    def tagged(self) -> tuple[str, str]:
        """The question and the answer as tagged text, as the model reads and writes them."""
        return write(self.question, self.question_spans), write(self.answer, self.answer_spans)


@dataclass(frozen=True)
class Dialogue:
    """Turns about one image. independent: no turn refers to another, so they can be in any order."""

    record: ImageRecord
    turns: tuple[Turn, ...]
    teacher: str
    independent: bool = True


def dialogue_row(dialogue: Dialogue, image: Any = None) -> dict[str, Any]:
    """The published row of a dialogue; its task is that of its turn, or `chat` if there are several turns."""
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
        "forms": [turn.form for turn in dialogue.turns],
        "independent": dialogue.independent,
        "objects": [_object_row(instance) for instance in _instances_of(record, dialogue.turns)],
        "synthetic": info.synthetic,
        "teacher": dialogue.teacher,
    }


def _instances_of(record: ImageRecord, turns: Sequence[Turn]) -> list[Instance]:
    """The instances that the turns mention, in the record's order."""
    mentioned = {instance_id for turn in turns for instance_id in turn.instance_ids}
    return [instance for instance in record.instances if instance.instance_id in mentioned]


def _object_row(instance: Instance) -> dict[str, Any]:
    return {
        "instance_id": instance.instance_id,
        "label": instance.label,
        "box": list(instance.box.xyxy) if instance.box else None,
        "area": instance.area,
        "present": instance.present,
    }


def row_features() -> Features:
    """The columns of a published row. `datasets` is imported here because the core does not need it."""
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
            "forms": List(Value("string")),
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
    """The key of a review decision about a turn: a hash of its image, its task and its tagged text."""
    return sha256_of([image_id, task, question, answer])


def hash_of_turn(image_id: str, turn: Turn) -> str:
    """`hash_of` for a `Turn`."""
    return hash_of(image_id, turn.task.value, *turn.tagged())


def sha256_of(value: object) -> str:
    """The hexadecimal SHA-256 of a value's JSON text."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=True).encode()).hexdigest()
