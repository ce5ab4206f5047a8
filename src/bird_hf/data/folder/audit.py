"""What looks wrong in a Med-GRIT folder. An audit flags and never drops: a flag is a question to a reader.

Rows are read a few at a time. What grows with the number of images is a look, a name and a case each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ...hub.boxes import Box
from ...hub.grounding import Span, read
from ...hub.pixels import open_image
from ..near_duplicates import HashIndex, difference_hash
from ..records import Axis, Modality, Task
from ..sides import other_side
from .shards import Row, shards_of, stream_rows

COVERS = 0.95  # of the image: more is nearly everything
TINY_PX = 3  # the shorter side of a box: less is nearly nothing
SAME_BOX = 0.85  # IoU of two boxes of one label: more is one object twice
_COMPARED = 300  # boxes of a row that are compared in pairs: a hostile row may hold millions


class Suspicion(StrEnum):
    """What a finding is about; `EXPLAINED` says it in words."""

    BROKEN_BOX = "broken_box"
    COVERS_ALL = "covers_all"
    TINY = "tiny"
    TWICE = "twice"
    OTHER_SIDE = "other_side"
    FOREIGN_BOX = "foreign_box"
    BROKEN_TEXT = "broken_text"
    PICTURE = "picture"
    SAME_PICTURE = "same_picture"
    SPLIT_CASE = "split_case"


EXPLAINED = {
    Suspicion.BROKEN_BOX: "The box of an object is not four numbers x1 < x2, y1 < y2 in shares of the image.",
    Suspicion.COVERS_ALL: f"A box covers at least {COVERS:.0%} of the image: an inverted mask, or a label of all?",
    Suspicion.TINY: f"A box is less than {TINY_PX} pixels wide or high: a fragment of a mask?",
    Suspicion.TWICE: f"Two boxes of one label overlap by at least {SAME_BOX:.0%} (IoU): one object twice?",
    Suspicion.OTHER_SIDE: "The patient's left is shown on the picture's right, and here a left label lies further left "
    "than its right twin. Where all images of a dataset are listed, they are shown the other way round.",
    Suspicion.FOREIGN_BOX: "A box in the words is the box of none of the row's objects.",
    Suspicion.BROKEN_TEXT: "Tags or boxes in the words are malformed.",
    Suspicion.PICTURE: "The picture cannot be read, or is not of the size that its row says.",
    Suspicion.SAME_PICTURE: "Two splits hold the same picture, or nearly the same.",
    Suspicion.SPLIT_CASE: "One case is in two splits.",
}


@dataclass(frozen=True)
class Place:
    """Where a row stands: its file, and its number in it from 0."""

    path: Path
    row: int


@dataclass(frozen=True)
class Finding:
    """Something to look at: in which row (`other`: and in which second one), and the boxes that it is about."""

    suspicion: Suspicion
    image_id: str
    place: Place
    detail: str
    spans: tuple[Span, ...] = ()
    other: Place | None = None


@dataclass(frozen=True, slots=True)
class _Picture:
    image_id: str
    place: Place
    look: bytes


@dataclass
class _Seen:
    """What comparing splits needs of each image."""

    pictures: dict[str, list[_Picture]] = field(default_factory=dict)  # by split
    cases: dict[str, tuple[str, Place]] = field(default_factory=dict)  # case -> its first split and row
    reported: set[str] = field(default_factory=set)  # cases


def audit_folder(folder: Path) -> Iterator[Finding]:
    """Everything suspect in a Med-GRIT folder, row by row, and then between splits.

    The words are read in every config; objects and pictures in `chat`, where there is one, else in the first.
    Raises ValueError, in one line, where the folder is none, or a file of it cannot be read.
    """
    shards = {task: found for task in Task if (found := shards_of(folder, task))}
    if not shards:
        raise ValueError(
            f"{folder} has no rows in data/; `bird data sample --out DIR` makes a folder that has"
        )
    for task, splits in shards.items():
        for place, _, row in _placed(splits, ["image_id", "messages", "objects"], f"words of {task}"):
            yield from check_words(row, place)
    seen = _Seen()
    whole = shards[Task.CHAT] if Task.CHAT in shards else next(iter(shards.values()))
    columns = ["image_id", "image", "image_wh", "modality", "axis", "case_id", "objects"]
    for place, split, row in _placed(whole, columns, "pictures"):
        yield from check_objects(row, place)
        yield from _check_case(row, place, split, seen)
        yield from _check_picture(row, place, split, seen)
    yield from _compare_splits(seen)


def _placed(
    splits: Mapping[str, Sequence[Path]], columns: Sequence[str], what: str
) -> Iterator[tuple[Place, str, Row]]:
    with tqdm(desc=what, unit="row") as progress:
        for split, paths in splits.items():
            for path in paths:
                for number, row in enumerate(stream_rows([path], columns)):
                    progress.update()
                    yield Place(path, number), split, row


def check_words(row: Row, place: Place) -> Iterator[Finding]:
    """Malformed tags, and boxes that no object has."""
    own = {box.to_thousandths() for _, box in _boxes(row)}
    for message in row["messages"]:
        said = read(message["content"])
        if said.issues:
            detail = f"{', '.join(dict.fromkeys(said.issues))}: {message['content']}"
            yield Finding(Suspicion.BROKEN_TEXT, row["image_id"], place, detail, said.spans)
        foreign = tuple(
            span for span in said.spans if any(box.to_thousandths() not in own for box in span.boxes)
        )
        if foreign:
            yield Finding(Suspicion.FOREIGN_BOX, row["image_id"], place, message["content"], foreign)


def check_objects(row: Row, place: Place) -> Iterator[Finding]:
    """Boxes that are broken, too large, too small, twice, or on the side of their twin."""

    def finding(suspicion: Suspicion, detail: str, *found: tuple[str, Box]) -> Finding:
        spans = tuple(Span(label, 0, len(label), (box,)) for label, box in found)
        return Finding(suspicion, row["image_id"], place, detail, spans)

    boxes = list(_boxes(row))
    for item in row["objects"]:
        if (item["box"] is not None or item["present"]) and _box_of(item) is None:
            yield finding(Suspicion.BROKEN_BOX, f"{item['label']}: {item['box']}")
    for label, box in boxes:
        width, height = box.width * row["image_wh"][0], box.height * row["image_wh"][1]
        if box.area >= COVERS:
            yield finding(Suspicion.COVERS_ALL, f"{label}: {box.area:.1%} of the image", (label, box))
        if min(width, height) < TINY_PX:
            yield finding(Suspicion.TINY, f"{label}: {width:.1f} x {height:.1f} pixels", (label, box))
    for (label, box), (other_label, other) in combinations(boxes[:_COMPARED], 2):
        if label == other_label and box.iou(other) >= SAME_BOX:
            yield finding(Suspicion.TWICE, f"{label}: IoU {box.iou(other):.2f}", (label, box), (label, other))
    for left, right in _twins(row, boxes):
        if left[1].centre[0] < right[1].centre[0]:
            yield finding(Suspicion.OTHER_SIDE, f"{left[0]}, {right[0]}", left, right)


def _twins(row: Row, boxes: Sequence[tuple[str, Box]]) -> Iterator[tuple[tuple[str, Box], tuple[str, Box]]]:
    """(left, right) halves of a pair, each there once, in pictures that show the patient from the front or below."""
    if row["axis"] not in (Axis.AXIAL, Axis.CORONAL) and row["modality"] != Modality.X_RAY:
        return
    times = Counter(label for label, _ in boxes)
    once = {label: box for label, box in boxes if times[label] == 1}
    for label, box in once.items():
        twin = other_side(label)
        if "left" in label.lower() and twin != label and twin in once:
            yield (label, box), (twin, once[twin])


def _check_case(row: Row, place: Place, split: str, seen: _Seen) -> Iterator[Finding]:
    case = row["case_id"]
    first, where = seen.cases.setdefault(case, (split, place))
    if first != split and case not in seen.reported:
        seen.reported.add(case)
        detail = f"case {case}: {first} and {split}"
        yield Finding(Suspicion.SPLIT_CASE, row["image_id"], place, detail, other=where)


def _check_picture(row: Row, place: Place, split: str, seen: _Seen) -> Iterator[Finding]:
    """Reads the picture of a row, once an image, and keeps its hash."""
    pictures = seen.pictures.setdefault(split, [])
    again = bool(pictures) and pictures[-1].image_id == row["image_id"]
    if again or not row["image"] or not row["image"]["bytes"]:
        return
    try:
        picture = open_image(row["image"]["bytes"])
    except ValueError as error:
        yield Finding(Suspicion.PICTURE, row["image_id"], place, str(error))
        return
    if picture.size != tuple(row["image_wh"]):
        detail = f"{picture.size} pixels, and its row says {tuple(row['image_wh'])}"
        yield Finding(Suspicion.PICTURE, row["image_id"], place, detail)
    pictures.append(_Picture(row["image_id"], place, difference_hash(np.asarray(picture))))


def _compare_splits(seen: _Seen) -> Iterator[Finding]:
    """Pictures that look the same in two splits; a flat picture looks like nothing."""
    for first, second in combinations(seen.pictures, 2):
        looks = HashIndex()
        for picture in seen.pictures[first]:
            looks.add(picture.look)
        for picture in seen.pictures[second]:
            for number in looks.near(picture.look) if any(picture.look) else ():
                twin = seen.pictures[first][int(number)]
                detail = f"{second}, and in {first} {twin.image_id}"
                yield Finding(
                    Suspicion.SAME_PICTURE, picture.image_id, picture.place, detail, other=twin.place
                )


def _boxes(row: Row) -> Iterator[tuple[str, Box]]:
    """Label and box of the objects whose boxes are sound."""
    for item in row["objects"]:
        if box := _box_of(item):
            yield item["label"], box


def _box_of(item: Mapping[str, Any]) -> Box | None:
    try:
        return Box(*item["box"])
    except (TypeError, ValueError):
        return None
