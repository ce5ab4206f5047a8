"""A file of boxes -> a diagnosis for each of its fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .conventions import Pictures
from .diagnosis import Diagnosis, diagnose, of_texts
from .dialect_evidence import MOST_TEXTS, AnswerText, try_dialects
from .marks import Corners, Numbers, boxes_in, content_of, image_of, may_hold_boxes, size_of
from .mask_evidence import MaskEvidence
from .number_evidence import NumberEvidence
from .pictures import MOST_CANDIDATES, MaskFolder, PictureFolder, header_size
from .row_files import FileRow, RowFile

MAX_BOXES = 200_000  # of a field
MAX_FIELDS = 12
_SHOWN_NAMES = 8
_MOST_MASKED = 20_000  # boxes of a field that are compared with masks
_IN_TEXT = "in the text of "


@dataclass
class _Field:
    """The boxes of a field. pictures: the number of the picture of each box."""

    numbers: list[Numbers] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    texts: list[tuple[str, str, int]] = field(default_factory=list)  # place, text, picture
    broken: int = 0
    first_broken: str = ""
    is_cut: bool = False


@dataclass
class _Picture:
    """A picture of a row or an object, with the boxes of its masks."""

    name: str | None
    size_wh: tuple[int, int] | None
    outlines: tuple[Corners, ...]
    slack_px: float


@dataclass(frozen=True)
class Examination:
    """The diagnoses of a file's fields. kind: of the file. notes: about the file as a whole."""

    kind: str
    rows: int
    diagnoses: tuple[Diagnosis, ...]
    notes: tuple[str, ...]


def examine(path: Path, images: Path | None = None, masks: Path | None = None) -> Examination:
    """Which conventions the boxes of a file are in, field by field.

    images: a folder of the pictures, for their sizes. masks: a folder of masks named like the pictures. Raises
    ValueError, in one line, if the file or a folder cannot be read, or there are no boxes in the file.
    """
    folder = PictureFolder(images) if images is not None else None
    mask_folder = MaskFolder(masks) if masks is not None else None
    file = RowFile(path)
    gathered = _Gathered()
    for row in file.rows():
        gathered.add(row)
    if not gathered.fields:
        skipped = (
            f"; {file.skipped} rows could not be read, first {file.first_skipped}" if file.skipped else ""
        )
        raise ValueError(
            f"{path} has no boxes in {gathered.rows} rows{gathered.first_names}{skipped}; they are looked for under "
            "keys such as bbox and boxes, in columns such as x1, y1, x2, y2 or x, y, w, h, and in texts"
        )
    notes = gathered.join_pictures(folder, mask_folder)
    if file.skipped:
        notes.append(f"{file.skipped} rows could not be read, first {file.first_skipped}")
    return Examination(
        file.kind, gathered.rows, tuple(gathered.diagnoses(mask_folder is not None)), tuple(notes)
    )


class _Gathered:
    """What is kept of the rows of a file: at most 200,000 boxes and 300 texts of each of 12 fields."""

    def __init__(self) -> None:
        self.rows = 0
        self.fields: dict[str, _Field] = {}
        self._pictures: list[_Picture] = []
        self._other_fields: set[str] = set()
        self.first_names = ""  # what the first row has, in words

    def add(self, row: FileRow) -> None:
        """The boxes and texts of a row."""
        self.rows += 1
        if self.rows == 1:
            names = ", ".join(repr(str(name)[:30]) for name in [*row.content][:_SHOWN_NAMES])
            self.first_names = f" (the first has {names or 'nothing'})"
        content = content_of(row.content)
        texts = [(name, text, boxes_in(text)) for name, text in content.texts if may_hold_boxes(text)]
        if not content.boxes and not texts and not content.broken:
            return
        picture = len(self._pictures)
        self._pictures.append(_picture_of(row))
        for name, numbers in content.boxes:
            self._add_boxes(name, [numbers], row.place, picture)
        for name in content.broken:
            if (found := self._field(name)) is not None:
                found.broken += 1
                found.first_broken = found.first_broken or row.place
        for name, text, boxes in texts:
            found = self._add_boxes(f"{_IN_TEXT}{name}", boxes, row.place, picture)
            if found is not None and len(found.texts) < MOST_TEXTS:
                found.texts.append((row.place, text, picture))

    def join_pictures(self, folder: PictureFolder | None, masks: MaskFolder | None) -> list[str]:
        """Adds sizes and masks of the folders; returns what a reader has to know of them."""
        notes = []
        if folder is not None:
            notes += self._join_sizes(folder)
        if masks is not None:
            notes += self._join_masks(masks)
        if self._other_fields:
            notes.append(
                f"Only the first {MAX_FIELDS} fields with boxes are shown; {len(self._other_fields)} more have some"
            )
        return notes

    def diagnoses(self, masks_given: bool) -> Iterable[Diagnosis]:
        for name, found in self.fields.items():
            if found.numbers or found.texts:
                yield self._diagnosis(name, found, masks_given)

    def _diagnosis(self, name: str, found: _Field, masks_given: bool) -> Diagnosis:
        trials = try_dialects(
            [AnswerText(place, text, self._pictures[number].size_wh) for place, text, number in found.texts]
        )
        notes = []
        if found.broken:
            notes.append(f"{found.broken} boxes are not four finite numbers, first in {found.first_broken}")
        if found.is_cut:
            notes.append(f"only the first {MAX_BOXES:,} boxes were looked at")
        if not found.numbers:
            return of_texts(name, trials, notes)
        sizes = {number: self._pictures[number].size_wh for number in {*found.pictures}}
        wh = np.array([sizes[number] or (np.nan, np.nan) for number in found.pictures], float)
        numbers = np.array(found.numbers, float)
        masks = self._mask_evidence(found, numbers, wh)
        return diagnose(
            name, numbers, wh, found.places.__getitem__, masks, notes, trials=trials, masks_given=masks_given
        )

    def _mask_evidence(self, found: _Field, numbers: np.ndarray, wh: np.ndarray) -> MaskEvidence | None:
        known = [
            place
            for place, number in enumerate(found.pictures)
            if self._pictures[number].outlines and self._pictures[number].size_wh
        ][:_MOST_MASKED]
        if not known:
            return None
        pictures = [self._pictures[found.pictures[place]] for place in known]
        most = max(len(each.outlines) for each in pictures)
        nothing = (np.nan,) * 4
        candidates = np.array(
            [[*each.outlines, *[nothing] * (most - len(each.outlines))] for each in pictures], float
        )
        places = np.array(known)
        step = NumberEvidence.of(numbers, Pictures(wh)).step
        slack = np.array([each.slack_px for each in pictures])
        return MaskEvidence(places, numbers[places], Pictures(wh[places]), candidates, slack, step)

    def _field(self, name: str) -> _Field | None:
        if name not in self.fields and len(self.fields) >= MAX_FIELDS:
            if len(self._other_fields) < 1000:
                self._other_fields.add(name[:100])
            return None
        return self.fields.setdefault(name, _Field())

    def _add_boxes(self, name: str, boxes: Iterable[Numbers], place: str, picture: int) -> _Field | None:
        found = self._field(name)
        if found is None:
            return None
        for numbers in boxes:
            if len(found.numbers) >= MAX_BOXES:
                found.is_cut = True
                break
            found.numbers.append(numbers)
            found.pictures.append(picture)
            found.places.append(place)
        return found

    def _join_sizes(self, folder: PictureFolder) -> list[str]:
        known = folder.sizes(each.name for each in self._pictures if each.name)
        found, other = 0, []
        for each in self._pictures:
            size = known.get(each.name or "")
            found += size is not None
            if each.size_wh is None:
                each.size_wh = size
            elif size is not None and size != each.size_wh:
                other.append(f"{each.name} is {_wh(size)}, and the row says {_wh(each.size_wh)}")
        notes = []
        if found < len(self._pictures):
            notes.append(f"--images has the picture of {found} of {len(self._pictures)} rows with boxes")
        if other:
            notes.append(f"{len(other)} pictures are of another size than their rows say, first {other[0]}")
        return notes

    def _join_masks(self, folder: MaskFolder) -> list[str]:
        read: dict[str, tuple[tuple[int, int], list[Corners]] | None] = {}
        other = taken = 0
        for each in self._pictures:
            if each.name is None or each.outlines:
                continue
            if each.name not in read:
                read[each.name] = folder.boxes(each.name)
            found = read[each.name]
            if found is None:
                continue
            if each.size_wh is None:
                each.size_wh, taken = found[0], taken + 1
            if each.size_wh == found[0]:
                each.outlines = tuple(found[1][:MOST_CANDIDATES])
            else:
                other += 1
        notes = []
        if not any(read.values()):
            notes.append("--masks has no readable mask named like one of the pictures")
        if taken:
            notes.append(f"the sizes of {taken} pictures were not known; those of their masks are used")
        if other:
            notes.append(
                f"the masks of {other} pictures are of another size than the picture, and are left out"
            )
        if folder.unreadable:
            notes.append(f"{folder.unreadable} masks could not be read")
        return notes


def _picture_of(row: FileRow) -> _Picture:
    image = image_of(row.content)
    size = row.size_wh or size_of(row.content)
    name: str | None = None
    if isinstance(image, str):
        name = image[:500]
    elif isinstance(image, Mapping):
        size = size or header_size(image)
        name = str(image.get("path") or row.content.get("image_id") or "")[:500] or None
    return _Picture(name, size, row.outlines[:MOST_CANDIDATES], row.slack_px)


def _wh(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
