"""Images with the boxes of a CSV or TSV file, one row per box, in half-open pixels of the image.

The file is not trusted: its size and its rows are limited, the names of images in it are compared with the existing
files and never opened, and numbers are plain ASCII. A row without coordinates says that its image has no objects; its
label is then empty, 0 or "No finding".
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from ...hub.boxes import Box
from ..records import ImageInfo, MaskedImage
from .archives import FolderFiles
from .base import Candidate, LeftOut, checked
from .box_columns import BoxColumns
from .description import DESCRIPTION, Description, Faulty
from .faults import Drop, FaultyImageError
from .label_maps import IMAGE_ENDINGS, read_bytes
from .label_names import clean_label
from .named_files import NamedFiles
from .photographs import Photograph

TABLE_ENDINGS = (".csv", ".tsv")
MAX_TABLE_BYTES = 2**28
MAX_ROWS = 1_000_000  # all are kept in memory, less than half a gigabyte
_DICOM_ENDINGS = (".dcm", ".dicom")
_LONGEST_FIELD = 10_000  # characters
_LONGEST_SHOWN = 40  # characters of a value in a message
_NUMBER = re.compile(r"[+-]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})([eE][+-]?\d{1,3})?", re.ASCII)
_NOTHING = ("", "0", "no finding")


@dataclass(frozen=True, slots=True)
class BoxRow:
    """A row. number: its line in the file. xyxy: half-open pixels; None for an image without objects, or with a fault.

    label: the clean name, "" if it has none. image_wh: size of the image that the box was drawn on, if it is known.
    """

    number: int
    label: str
    xyxy: tuple[float, float, float, float] | None
    image_wh: tuple[int, int] | None = None
    fault: Drop | None = None
    detail: str = ""


@dataclass(frozen=True)
class ImageRows:
    """The rows of an image, without repeated ones. name: in the table. patients: hashes of the column `patient`."""

    name: str
    rows: list[BoxRow]
    patients: set[str]


class BoxTable:
    """Images with the boxes of a CSV or TSV file."""

    kind = "CSV of boxes"

    def __init__(self, folder: Path, about: Description) -> None:
        self._about = about
        name = about.annotations or ""
        path = folder / name
        if PurePath(name).name != name or not path.is_file():
            raise ValueError(f"annotations {name!r} must be a file beside {DESCRIPTION} in {folder}")
        try:
            lines = _rows_of(path)
            header = [column.strip() for column in next(lines, (0, []))[1]]
            self._columns = BoxColumns.of_header(header, about.columns)
            by_name = self._by_name(lines)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        root = folder / "images" if (folder / "images").is_dir() else folder
        self._root = root
        self._names = NamedFiles(root, (*IMAGE_ENDINGS, *_DICOM_ENDINGS))
        self._files = FolderFiles(root, ("",))
        # The terms of the published files do not allow that their pixels are published again.
        self.pixels_are_free = self._columns.published is None
        self._images, self._missing = self._found(by_name.values())

    def listed(self) -> Iterator[Candidate | LeftOut]:
        for name, error in self._missing:
            yield LeftOut(_printable(name) or "a row without an image", error.reason, error.detail)
        for place, image in self._images.items():
            fault = self._fault_of(image)
            labels = tuple(dict.fromkeys(row.label for row in image.rows if row.xyxy and not row.fault))
            if fault is not None:
                yield LeftOut(_printable(image.name), *fault)
            elif not labels and not self._about.exhaustive:
                yield LeftOut(_printable(image.name), Drop.NO_MASKS)
            else:
                yield Candidate(self._info(place, image), labels, place)

    def read(self, candidate: Candidate) -> MaskedImage:
        place = candidate.where
        picture = self._picture(place)
        boxes: list[tuple[str, Box]] = []
        unsure: set[str] = set()
        for row in self._images[place].rows:
            try:
                if row.fault is not None:
                    raise FaultyImageError(row.fault, row.detail)
                if row.xyxy is not None:
                    boxes.append((row.label, self._box(picture, row)))
            except FaultyImageError as error:
                image_wide = error.reason in (Drop.SIZE_MISMATCH, Drop.ORIENTATION_UNKNOWN)
                if image_wide or self._about.faulty is Faulty.DROP_IMAGE:
                    raise
                unsure.add(row.label)
        unsure |= {label for label, _ in boxes}
        # An object without a name may be any of the known ones.
        known = self._labels if self._about.exhaustive and "" not in unsure else ()
        absent = [label for label in known if label not in unsure]
        return checked(candidate.info, picture.pixels, (), absent, boxes)

    def _picture(self, place: str) -> Photograph:
        if place.lower().endswith(_DICOM_ENDINGS):
            return Photograph.of_dicom(self._root / place, self._about.modality)
        content = read_bytes(self._files, ["", place], Drop.UNREADABLE_IMAGE)
        return Photograph.read(content, self._about.orientation)

    def _box(self, picture: Photograph, row: BoxRow) -> Box:
        assert row.xyxy is not None
        try:
            return picture.box(row.xyxy, row.image_wh)
        except FaultyImageError as error:
            raise FaultyImageError(error.reason, f"row {row.number}: {error.detail}") from error

    def _fault_of(self, image: ImageRows) -> tuple[Drop, str] | None:
        """The fault for which an image is left out without being decoded."""
        if len(image.patients) > 1:
            return Drop.BAD_NAME, f"its rows name {len(image.patients)} patients"
        if self._about.faulty is Faulty.DROP_OBJECT:
            return None
        return next(((row.fault, row.detail) for row in image.rows if row.fault is not None), None)

    def _info(self, place: str, image: ImageRows) -> ImageInfo:
        info = self._about.image_info(self._names.original_of(place))
        if self._about.patient is None and image.patients:
            return replace(info, case_id=f"{self._about.dataset}/{next(iter(image.patients))}")
        return info

    def _found(
        self, images: Iterable[ImageRows]
    ) -> tuple[dict[str, ImageRows], list[tuple[str, FaultyImageError]]]:
        """The images by the place of their file, and those without one file."""
        found: dict[str, ImageRows] = {}
        missing = []
        for image in images:
            try:
                place = self._names.find(image.name)
            except FaultyImageError as error:
                missing.append((image.name, error))
                continue
            other = found.get(place)
            found[place] = image if other is None else _merged(other, image)
        return found, missing

    def _by_name(self, lines: Iterator[tuple[int, list[str]]]) -> dict[str, ImageRows]:
        """The rows by the image's name in the table; a row that is there twice counts once."""
        by_name: dict[str, ImageRows] = {}
        labels: dict[str, None] = {}
        width = self._columns.width
        for count, (number, fields) in enumerate(lines):
            if count >= MAX_ROWS:
                raise ValueError(f"it has more than {MAX_ROWS:,} rows; split it")
            if not any(fields):
                continue
            fields += [""] * (width - len(fields))
            name = fields[self._columns.image].strip()
            image = by_name.setdefault(name, ImageRows(name, [], set()))
            row = self._row(number, fields)
            image.rows.append(row)
            if row.label and row.xyxy:
                labels[row.label] = None
            if (patient := self._patient_of(fields)) is not None:
                image.patients.add(patient)
        self._labels = tuple(dict.fromkeys((*self._about.labels.values(), *labels)))
        return {name: replace(image, rows=_once(image.rows)) for name, image in by_name.items()}

    def _row(self, number: int, fields: Sequence[str]) -> BoxRow:
        text = fields[self._columns.label].strip()
        corners = [fields[column].strip() for column in self._columns.corners]
        empty = not any(corners)
        if empty and text.lower().replace("_", " ") in _NOTHING:
            return BoxRow(number, "", None)
        label = ""
        try:
            label = self._label_of(text)
            if empty:
                raise FaultyImageError(Drop.UNREADABLE_BOX, f"{_shown(text)} without a box")
            a, b, c, d = (_number(value) for value in corners)
            xyxy = (a, b, a + c, b + d) if self._columns.are_sizes else (a, b, c, d)
            return BoxRow(number, label, xyxy, self._image_wh(fields))
        except FaultyImageError as error:
            return BoxRow(number, label, None, None, error.reason, f"row {number}: {error.detail}")

    def _label_of(self, text: str) -> str:
        """The clean name of a label. A number is looked up in `labels` of labels.yaml. Raises FaultyImageError."""
        if not text:
            raise FaultyImageError(Drop.UNREADABLE_BOX, "no label")
        if text.isascii() and text.isdigit() and len(text) < 6 and int(text) in self._about.labels:
            return self._about.labels[int(text)]
        published = self._columns.published
        return clean_label(self._about.dataset, published.labels.get(text, text) if published else text)

    def _image_wh(self, fields: Sequence[str]) -> tuple[int, int] | None:
        """Width and height of the image that a box was drawn on; None if the row does not say."""
        if self._columns.image_wh is None:
            return None
        texts = [fields[column].strip() for column in self._columns.image_wh]
        if not any(texts):
            return None
        width, height = (_number(text) for text in texts)
        if not (width == int(width) > 0 and height == int(height) > 0):
            raise FaultyImageError(Drop.UNREADABLE_BOX, f"image of {_shown(texts[0])} x {_shown(texts[1])}")
        return int(width), int(height)

    def _patient_of(self, fields: Sequence[str]) -> str | None:
        """A hash of the row's patient; None if it names none."""
        if self._columns.patient is None or not (text := fields[self._columns.patient].strip()):
            return None
        published = self._columns.published
        if published is not None and published.patient is not None:
            found = published.patient.search(text)
            if found is None:
                return None
            text = found.group(1)
        return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _rows_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, fields) of every row. Raises ValueError if the file is too large or no such table."""
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise ValueError(f"it is larger than {MAX_TABLE_BYTES:,} bytes; split it")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(_without_nul(file), delimiter=delimiter, strict=True)
        try:
            for fields in reader:
                if fields and max(map(len, fields)) > _LONGEST_FIELD:
                    raise ValueError(
                        f"line {reader.line_num}: a field of more than {_LONGEST_FIELD:,} characters"
                    )
                yield reader.line_num, fields
        except UnicodeDecodeError as error:
            raise ValueError("it is not UTF-8; save it as UTF-8") from error
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}; is a quotation mark not closed?") from error


def _without_nul(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if "\0" in line:
            raise ValueError("it holds NUL characters, as tables of text do not; save it as UTF-8")
        yield line


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise FaultyImageError(Drop.UNREADABLE_BOX, f"{_shown(text)} is not a number")
    value = float(text)
    if abs(value) > 1e9:
        raise FaultyImageError(Drop.UNREADABLE_BOX, f"{_shown(text)} is beyond any image")
    return value


def _once(rows: Sequence[BoxRow]) -> list[BoxRow]:
    """Rows without those that repeat a label and a box exactly."""
    return list({(row.label, row.xyxy, row.image_wh, row.detail): row for row in reversed(rows)}.values())[
        ::-1
    ]


def _merged(one: ImageRows, other: ImageRows) -> ImageRows:
    return ImageRows(one.name, _once([*one.rows, *other.rows]), one.patients | other.patients)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "...")


def _printable(name: str) -> str:
    """A name from the table that is short and has no control characters."""
    return "".join(character if character.isprintable() else "?" for character in name[:200])
