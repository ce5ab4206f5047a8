"""SA-Med2D as a source: a folder, a zip, or the zip in parts that it is published as.

Files are grouped by image in a private database on disk, so twenty million names need no more memory than a few.
Names come from the archive and are only taken apart, never used as a path. The layout is that of `sa_med2d.py`.
"""

from __future__ import annotations

import codecs
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import cached_property
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from ..phantoms.sa_med2d_folder import CLASSES_TABLE, IMAGES_TABLE
from ..records import Axis, ImageInfo, MaskedImage, Modality
from ..volumes import AXIS_LETTER
from .archives import Files, FolderFiles, Place, ZipArchive
from .base import Candidate, LeftOut, checked
from .faults import Drop, FaultyImageError, read_mask, read_pixels
from .label_names import clean_label, exhaustive_labels, patient_of, region_of

_AXES = {letter: axis for axis, letter in AXIS_LETTER.items()} | {"2d": Axis.PLANAR}
_IDS = re.compile(r"(\d{1,6})_(\d{1,6})")
_PLANE = re.compile(r"(?:([xyz])_(\d{1,6})|2d_none)")
_TABLE_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|[\[\]"]')  # a string, a bracket, or where a string is cut off
_LONGEST_NAME = 400  # characters; file systems allow 255
_IMAGE = ""  # what stands for an image's own class id


class SaMed2D:
    """Images and masks in the layout of SA-Med2D, wherever their files are."""

    kind = "SA-Med2D"
    pixels_are_free = False  # CC BY-NC-SA and each source's own terms: text and boxes only

    def __init__(self, files: Files, place_of_source: str) -> None:
        self._files, self._name = files, place_of_source

    @classmethod
    def of_folder(cls, path: Path) -> SaMed2D:
        return cls(FolderFiles(path, ("", "images", "masks")), str(path))

    @classmethod
    def of_archive(cls, path: Path) -> SaMed2D:
        return cls(ZipArchive(path), str(path))

    def listed(self) -> Iterator[Candidate | LeftOut]:
        # An empty name is a database on disk that is gone with its connection.
        with closing(sqlite3.connect("")) as database:
            database.execute("CREATE TABLE files (stem TEXT, class TEXT, instance TEXT, place TEXT)")
            yield from self._gather(database)
            rows = database.execute(
                "SELECT * FROM files ORDER BY stem, class, instance, place IS NULL, place"
            )
            for stem, of_image in groupby(rows, key=lambda row: row[0]):
                yield self._candidate(stem, [row[1:] for row in of_image])

    def read(self, candidate: Candidate) -> MaskedImage:
        info, where = candidate.info, candidate.where
        pixels = read_pixels(self._bytes(where["image"], Drop.UNREADABLE_IMAGE))
        masks = [(label, read_mask(self._bytes(at, Drop.UNREADABLE_MASK))) for label, at in where["masks"]]
        shown = {label for label, _ in masks}
        absent = [label for label in self._exhaustive.get(info.dataset, ()) if label not in shown]
        return checked(info, pixels, masks, absent)

    def _bytes(self, place: Place, reason: Drop) -> bytes:
        try:
            return self._files.read(place)
        except ValueError as error:
            raise FaultyImageError(reason, str(error)) from error

    def _gather(self, database: sqlite3.Connection) -> Iterator[LeftOut]:
        """Puts every file, and every mask that the table lists, into the database."""
        table: Place | None = None
        for name, place in self._files.files():
            path = PurePosixPath(name)
            if path.name == IMAGES_TABLE:
                table = place
            elif path.suffix.lower() == ".png" and path.parent.name in ("images", "masks"):
                found = _file_key(path)
                if found is None:
                    yield LeftOut(path.name[:_LONGEST_NAME], Drop.BAD_NAME)
                else:
                    database.execute("INSERT INTO files VALUES (?, ?, ?, ?)", (*found, json.dumps(place)))
        if table is not None:
            for name in _names_in_table(self._files.stream(table)):
                path = PurePosixPath(name)
                if path.parent.name == "masks" and (found := _file_key(path)):
                    database.execute("INSERT INTO files VALUES (?, ?, ?, NULL)", found)

    def _candidate(self, stem: str, rows: list[tuple[str, str, str | None]]) -> Candidate | LeftOut:
        files: dict[tuple[str, str], str | None] = {}
        for class_id, instance, place in rows:  # a file stands before its line in the table
            files.setdefault((class_id, instance), place)
        image = files.pop((_IMAGE, ""), None)
        try:
            if image is None:
                raise FaultyImageError(Drop.MISSING_IMAGE)
            if not files:
                raise FaultyImageError(Drop.NO_MASKS)
            if None in files.values():
                raise FaultyImageError(Drop.MISSING_MASK)
            prefix, dataset, original, axis, number = parse_stem(stem)
            modality, detail = modality_of(prefix)
            masks = [
                [self._label(dataset, class_id), json.loads(place or "")]
                for (class_id, _), place in files.items()
            ]
        except FaultyImageError as error:
            return LeftOut(stem, error.reason)
        labels = tuple(dict.fromkeys(label for label, _ in masks))
        region = region_of(modality, labels)
        case_id = f"{dataset}/{patient_of(dataset, original)}"
        synthetic = dataset.startswith("phantom_")
        info = ImageInfo(stem, modality, detail, region, axis, number, dataset, case_id, synthetic)
        return Candidate(info, labels, {"image": json.loads(image), "masks": masks})

    def _label(self, dataset: str, class_id: str) -> str:
        name = self._classes.get(dataset, {}).get(int(class_id))
        if name is None:
            raise FaultyImageError(Drop.UNNAMED_CLASS, f"class {class_id} of {dataset}")
        return clean_label(dataset, name)

    @cached_property
    def _classes(self) -> dict[str, dict[int, str]]:
        """dataset -> class id -> name in the source."""
        for name, place in self._files.files():
            if PurePosixPath(name).name == CLASSES_TABLE:
                try:
                    table = json.loads(self._files.read(place))
                    return {
                        str(dataset): {int(number): str(label) for label, number in of_dataset.items()}
                        for dataset, of_dataset in table.items()
                    }
                except (ValueError, TypeError, AttributeError) as error:
                    raise ValueError(
                        f"{CLASSES_TABLE} of {self._name} is no table of dataset -> name -> id ({error})"
                    ) from error
        raise ValueError(f"{self._name} has no {CLASSES_TABLE}: classes would have no names; add it")

    @cached_property
    def _exhaustive(self) -> dict[str, tuple[str, ...]]:
        return {
            dataset: exhaustive_labels(dataset, _clean(dataset, names.values()))
            for dataset, names in self._classes.items()
        }


def parse_stem(stem: str) -> tuple[str, str, str, Axis, int | None]:
    """(modality prefix, dataset, original name, axis, slice) of an image's name without `.png`.

    The original name may hold dots and `--`, so the ends are taken off. Raises FaultyImageError.
    """
    head, _, plane = stem.rpartition("--")
    parts = head.split("--", 2)
    found = _PLANE.fullmatch(plane)
    if len(parts) != 3 or not all(parts) or not found:
        raise FaultyImageError(Drop.BAD_NAME, stem)
    axis = _AXES[found.group(1) or "2d"]
    return parts[0], parts[1], parts[2], axis, int(found.group(2)) if found.group(2) else None


def modality_of(prefix: str) -> tuple[Modality, str]:
    """`mr_t1ce` -> (MR, "t1ce"). Raises FaultyImageError for a modality that is not one of the eight."""
    for modality in Modality:
        if prefix == modality.value or prefix.startswith(f"{modality.value}_"):
            return modality, prefix[len(modality.value) + 1 :]
    raise FaultyImageError(Drop.UNKNOWN_MODALITY, prefix)


def _file_key(path: PurePosixPath) -> tuple[str, str, str] | None:
    """(image stem, class id, instance) of an image's or a mask's name; None where it is neither."""
    stem = path.name[: -len(path.suffix)]
    if len(stem) > _LONGEST_NAME or not stem.isprintable():
        return None
    if path.parent.name == "images":
        return stem, _IMAGE, ""
    image, _, ids = stem.rpartition("--")
    found = _IDS.fullmatch(ids)
    return (image, found.group(1), found.group(2)) if image and found else None


def _names_in_table(pieces: Iterable[bytes]) -> Iterator[str]:
    """The masks listed in {"images/...": ["masks/...", ...]}, however long the text: it is read token by token."""
    text, depth = "", 0
    for piece in codecs.iterdecode(pieces, "utf-8", "replace"):
        text += piece
        end = 0
        for token in _TABLE_TOKEN.finditer(text):
            if token.group() == '"':
                break
            end = token.end()
            if token.group(1) is None:
                depth += 1 if token.group() == "[" else -1
            elif depth:
                yield _unquoted(token.group())
        text = text[end:][: 8 * _LONGEST_NAME]  # a string that never ends is no name


def _unquoted(token: str) -> str:
    try:
        return str(json.loads(token))
    except ValueError:
        return ""


def _clean(dataset: str, names: Iterable[Any]) -> list[str]:
    """The clean names of a dataset's classes that have one."""
    clean = []
    for name in names:
        try:
            clean.append(clean_label(dataset, name))
        except FaultyImageError:
            continue
    return list(dict.fromkeys(clean))
