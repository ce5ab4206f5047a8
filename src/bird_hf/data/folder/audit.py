"""Find suspect rows in a Med-GRIT folder. An audit only reports: it drops nothing, and people decide.

Rows are read a few at a time; kept in memory are a perceptual hash, a name and a case per image.
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

from ...hub.boxes import Box
from ...hub.grounding import Span, read
from ...hub.pixels import open_image
from ...progress import progress_bar
from ..near_duplicates import HashIndex, difference_hash
from ..records import Axis, Modality, Task
from ..sides import other_side
from .shards import Row, shards_of, stream_rows

COVERS_ALL_SHARE = 0.95  # of the image, for one box
TINY_PX = 3  # for the shorter side of a box
SAME_BOX_IOU = 0.85  # of two boxes with one label
_MAX_COMPARED = 300  # boxes of a row that are compared in pairs: a hostile row may hold millions


class Suspicion(StrEnum):
    """The kind of a finding; `EXPLANATIONS` describes each."""

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


EXPLANATIONS = {
    Suspicion.BROKEN_BOX: "The box of an object is not four numbers x1 < x2, y1 < y2 in [0, 1].",
    Suspicion.COVERS_ALL: f"A box covers at least {COVERS_ALL_SHARE:.0%} of the image: possibly an inverted mask, or a "
    "label of the whole image.",
    Suspicion.TINY: f"A box is less than {TINY_PX} pixels wide or high: possibly a fragment of a mask.",
    Suspicion.TWICE: f"Two boxes with one label have an IoU of at least {SAME_BOX_IOU}: possibly one object twice.",
    Suspicion.OTHER_SIDE: "Images show the patient's left on their right side, but here a left label lies further left "
    "than the right label of the same pair. If all images of a dataset are listed, they are probably mirrored.",
    Suspicion.FOREIGN_BOX: "A box in the text is not the box of any object of the row.",
    Suspicion.BROKEN_TEXT: "Tags or boxes in the text are malformed.",
    Suspicion.PICTURE: "The image cannot be read, or does not have the size that its row gives.",
    Suspicion.SAME_PICTURE: "The same image, or nearly the same, is in two splits.",
    Suspicion.SPLIT_CASE: "One case is in two splits.",
}


@dataclass(frozen=True)
class Place:
    """The file of a row, and its number in that file, from 0."""

    path: Path
    row: int


@dataclass(frozen=True)
class Finding:
    """A suspect row. other: a second row that it was compared with. spans: the boxes that are suspect."""

    suspicion: Suspicion
    image_id: str
    place: Place
    detail: str
    spans: tuple[Span, ...] = ()
    other: Place | None = None


@dataclass(frozen=True, slots=True)
class _SeenImage:
    image_id: str
    place: Place
    hash: bytes


@dataclass
class _Seen:
    """What is kept of all images, to compare the splits."""

    images: dict[str, list[_SeenImage]] = field(default_factory=dict)  # by split
    cases: dict[str, tuple[str, Place]] = field(default_factory=dict)  # case -> its first split and row
    reported_cases: set[str] = field(default_factory=set)


def audit_folder(folder: Path) -> Iterator[Finding]:
    """Yields the findings of a Med-GRIT folder: first those of single rows, then those between splits.

    The text is checked in every config; objects and images in `chat`, or in the first config if there is no `chat`.
    Raises ValueError if the folder is not a Med-GRIT folder, or one of its files cannot be read.
    """
    shards = {task: found for task in Task if (found := shards_of(folder, task))}
    if not shards:
        raise ValueError(
            f"{folder} has no rows in data/; `bird data sample --out DIR` makes a folder with rows"
        )
    for task, splits in shards.items():
        columns = ["image_id", "messages", "objects"]
        for place, _, row in _rows_with_places(splits, columns, f"text of {task}"):
            yield from check_text(row, place)
    seen = _Seen()
    whole = shards[Task.CHAT] if Task.CHAT in shards else next(iter(shards.values()))
    columns = ["image_id", "image", "image_wh", "modality", "axis", "case_id", "objects"]
    for place, split, row in _rows_with_places(whole, columns, "images"):
        yield from check_objects(row, place)
        yield from _check_case(row, place, split, seen)
        yield from _check_image(row, place, split, seen)
    yield from _compare_splits(seen)


def _rows_with_places(
    splits: Mapping[str, Sequence[Path]], columns: Sequence[str], description: str
) -> Iterator[tuple[Place, str, Row]]:
    """Yields (place, split, row)."""
    with progress_bar(desc=description, unit="row") as progress:
        for split, paths in splits.items():
            for path in paths:
                for number, row in enumerate(stream_rows([path], columns)):
                    progress.update()
                    yield Place(path, number), split, row


def check_text(row: Row, place: Place) -> Iterator[Finding]:
    """Find malformed tags, and boxes that belong to no object of the row."""
    own = {box.to_thousandths() for _, box in _boxes(row)}
    for message in row["messages"]:
        text = read(message["content"])
        if text.issues:
            detail = f"{', '.join(dict.fromkeys(text.issues))}: {message['content']}"
            yield Finding(Suspicion.BROKEN_TEXT, row["image_id"], place, detail, text.spans)
        foreign = tuple(
            span for span in text.spans if any(box.to_thousandths() not in own for box in span.boxes)
        )
        if foreign:
            yield Finding(Suspicion.FOREIGN_BOX, row["image_id"], place, message["content"], foreign)


def check_objects(row: Row, place: Place) -> Iterator[Finding]:
    """Find boxes that are broken, too large, too small, duplicated, or on the wrong side."""

    def finding(suspicion: Suspicion, detail: str, *found: tuple[str, Box]) -> Finding:
        spans = tuple(Span(label, 0, len(label), (box,)) for label, box in found)
        return Finding(suspicion, row["image_id"], place, detail, spans)

    boxes = list(_boxes(row))
    for item in row["objects"]:
        if (item["box"] is not None or item["present"]) and _box_of(item) is None:
            yield finding(Suspicion.BROKEN_BOX, f"{item['label']}: {item['box']}")
    for label, box in boxes:
        width, height = box.width * row["image_wh"][0], box.height * row["image_wh"][1]
        if box.area >= COVERS_ALL_SHARE:
            yield finding(Suspicion.COVERS_ALL, f"{label}: {box.area:.1%} of the image", (label, box))
        if min(width, height) < TINY_PX:
            yield finding(Suspicion.TINY, f"{label}: {width:.1f} x {height:.1f} pixels", (label, box))
    for (label, box), (other_label, other) in combinations(boxes[:_MAX_COMPARED], 2):
        if label == other_label and box.iou(other) >= SAME_BOX_IOU:
            yield finding(Suspicion.TWICE, f"{label}: IoU {box.iou(other):.2f}", (label, box), (label, other))
    for left, right in _pairs(row, boxes):
        if left[1].centre[0] < right[1].centre[0]:
            yield finding(Suspicion.OTHER_SIDE, f"{left[0]}, {right[0]}", left, right)


def _pairs(row: Row, boxes: Sequence[tuple[str, Box]]) -> Iterator[tuple[tuple[str, Box], tuple[str, Box]]]:
    """Yields (left, right) pairs of organs, in views that show both sides; each label must be there once."""
    if row["axis"] not in (Axis.AXIAL, Axis.CORONAL) and row["modality"] != Modality.X_RAY:
        return
    times = Counter(label for label, _ in boxes)
    single = {label: box for label, box in boxes if times[label] == 1}
    for label, box in single.items():
        partner = other_side(label)
        if "left" in label.lower() and partner != label and partner in single:
            yield (label, box), (partner, single[partner])


def _check_case(row: Row, place: Place, split: str, seen: _Seen) -> Iterator[Finding]:
    case = row["case_id"]
    first, where = seen.cases.setdefault(case, (split, place))
    if first != split and case not in seen.reported_cases:
        seen.reported_cases.add(case)
        detail = f"case {case}: {first} and {split}"
        yield Finding(Suspicion.SPLIT_CASE, row["image_id"], place, detail, other=where)


def _check_image(row: Row, place: Place, split: str, seen: _Seen) -> Iterator[Finding]:
    """Read the image of a row, once per image, and keep its perceptual hash."""
    images = seen.images.setdefault(split, [])
    again = bool(images) and images[-1].image_id == row["image_id"]
    if again or not row["image"] or not row["image"]["bytes"]:
        return
    try:
        image = open_image(row["image"]["bytes"])
    except ValueError as error:
        yield Finding(Suspicion.PICTURE, row["image_id"], place, str(error))
        return
    if image.size != tuple(row["image_wh"]):
        detail = f"the image has {image.size} pixels, but image_wh is {tuple(row['image_wh'])}"
        yield Finding(Suspicion.PICTURE, row["image_id"], place, detail)
    images.append(_SeenImage(row["image_id"], place, difference_hash(np.asarray(image))))


def _compare_splits(seen: _Seen) -> Iterator[Finding]:
    """Find images that look the same in two splits; images of one colour have an empty hash and are not compared."""
    for first, second in combinations(seen.images, 2):
        index = HashIndex()
        for image in seen.images[first]:
            index.add(image.hash)
        for image in seen.images[second]:
            for number in index.near(image.hash) if any(image.hash) else ():
                other = seen.images[first][int(number)]
                detail = f"{second}, and in {first} {other.image_id}"
                yield Finding(Suspicion.SAME_PICTURE, image.image_id, image.place, detail, other=other.place)


def _boxes(row: Row) -> Iterator[tuple[str, Box]]:
    """Yields label and box of the objects with a valid box."""
    for item in row["objects"]:
        if box := _box_of(item):
            yield item["label"], box


def _box_of(item: Mapping[str, Any]) -> Box | None:
    try:
        return Box(*item["box"])
    except (TypeError, ValueError):
        return None
