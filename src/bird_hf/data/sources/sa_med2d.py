"""SA-Med2D as a source: a folder, a zip archive, or the split zip archive in which it is published.

Files are grouped by image in a temporary SQLite database on disk, so that memory does not grow with the number of
files (SA-Med2D-20M has about twenty million). Names in an archive are only parsed, never used as paths. For the
layout, see `ImageName`, `MaskName` and `phantoms/sa_med2d_folder.py`.
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

from ..records import CLASSES_TABLE, IMAGES_TABLE, ImageInfo, ImageName, MaskedImage, MaskName, Modality
from .archives import Files, FolderFiles, Place, ZipArchive
from .base import Candidate, LeftOut, checked
from .faults import Drop, FaultyImageError, mask_of_values
from .label_names import clean_label, exhaustive_labels, patient_of, region_of
from .photographs import Photograph

_TABLE_TOKEN = re.compile(
    r'"((?:[^"\\]|\\.)*)"|[\[\]"]'
)  # a string, a bracket, or the start of a cut-off string
_LONGEST_NAME = 400  # characters; file systems allow 255
_IMAGE_FILE = ("", "")  # class id and instance in the row of an image itself


class SaMed2D:
    """Images and masks in the layout of SA-Med2D, in a folder or an archive."""

    kind = "SA-Med2D"
    pixels_are_free = False  # CC BY-NC-SA and the terms of each dataset: only text and boxes may be published

    def __init__(self, files: Files, location: str) -> None:
        self._files, self._location = files, location

    @classmethod
    def of_folder(cls, path: Path) -> SaMed2D:
        """The source in a folder with `images` and `masks`."""
        return cls(FolderFiles(path, ("", "images", "masks")), str(path))

    @classmethod
    def of_archive(cls, path: Path) -> SaMed2D:
        """The source in a zip archive; `path` is its `.zip` file, even if it has several parts."""
        return cls(ZipArchive(path), str(path))

    def listed(self) -> Iterator[Candidate | LeftOut]:
        # With an empty name SQLite makes a temporary database on disk and deletes it when the connection closes.
        with closing(sqlite3.connect("")) as database:
            database.execute("CREATE TABLE files (stem TEXT, class TEXT, instance TEXT, place TEXT)")
            yield from self._collect_files(database)
            rows = database.execute(
                "SELECT * FROM files ORDER BY stem, class, instance, place IS NULL, place"
            )
            for stem, of_image in groupby(rows, key=lambda row: row[0]):
                yield self._candidate(stem, [row[1:] for row in of_image])

    def read(self, candidate: Candidate) -> MaskedImage:
        info, where = candidate.info, candidate.where
        photograph = Photograph.read(self._read_bytes(where["image"], Drop.UNREADABLE_IMAGE))
        masks = []
        for label, place in where["masks"]:
            values = photograph.upright_values(self._read_bytes(place, Drop.UNREADABLE_MASK))
            masks.append((label, mask_of_values(values)))
        shown = {label for label, _ in masks}
        absent = [label for label in self._exhaustive.get(info.dataset, ()) if label not in shown]
        return checked(info, photograph.pixels, masks, absent)

    def _read_bytes(self, place: Place, reason: Drop) -> bytes:
        try:
            return self._files.read(place)
        except ValueError as error:
            raise FaultyImageError(reason, str(error)) from error

    def _collect_files(self, database: sqlite3.Connection) -> Iterator[LeftOut]:
        """Insert every file, and every mask in the images table, into the database; yield files with bad names."""
        table: Place | None = None
        for name, place in self._files.files():
            path = PurePosixPath(name)
            if path.name == IMAGES_TABLE:
                table = place
            elif path.suffix.lower() == ".png" and path.parent.name in ("images", "masks"):
                key = _file_key(path)
                if key is None:
                    yield LeftOut(path.name[:_LONGEST_NAME], Drop.BAD_NAME)
                else:
                    database.execute("INSERT INTO files VALUES (?, ?, ?, ?)", (*key, json.dumps(place)))
        if table is not None:
            for name in _mask_names(self._files.stream(table)):
                path = PurePosixPath(name)
                if path.parent.name == "masks" and (key := _file_key(path)):
                    database.execute("INSERT INTO files VALUES (?, ?, ?, NULL)", key)

    def _candidate(self, stem: str, rows: list[tuple[str, str, str | None]]) -> Candidate | LeftOut:
        files: dict[tuple[str, str], str | None] = {}
        for class_id, instance, place in rows:  # a file is sorted before its entry in the table
            files.setdefault((class_id, instance), place)
        image = files.pop(_IMAGE_FILE, None)
        try:
            if image is None:
                raise FaultyImageError(Drop.MISSING_IMAGE)
            if not files:
                raise FaultyImageError(Drop.NO_MASKS)
            if None in files.values():
                raise FaultyImageError(Drop.MISSING_MASK)
            name, modality, detail = _parsed(stem)
            masks = [
                [self._label(name.dataset, class_id), json.loads(place or "")]
                for (class_id, _), place in files.items()
            ]
        except FaultyImageError as error:
            return LeftOut(stem, error.reason, error.detail)
        labels = tuple(dict.fromkeys(label for label, _ in masks))
        info = ImageInfo(
            image_id=stem,
            modality=modality,
            modality_detail=detail,
            region=region_of(modality, labels),
            axis=name.axis,
            slice_index=name.slice_index,
            dataset=name.dataset,
            case_id=f"{name.dataset}/{patient_of(name.dataset, name.original)}",
            synthetic=name.synthetic,
        )
        return Candidate(info, labels, {"image": json.loads(image), "masks": masks})

    def _label(self, dataset: str, class_id: str) -> str:
        name = self._classes.get(dataset, {}).get(int(class_id))
        if name is None:
            raise FaultyImageError(Drop.UNNAMED_CLASS, f"class {class_id} of {dataset}")
        return clean_label(dataset, name)

    @cached_property
    def _classes(self) -> dict[str, dict[int, str]]:
        """dataset -> class id -> class name as the dataset writes it."""
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
                        f"{CLASSES_TABLE} of {self._location} is not a table of dataset -> name -> id ({error})"
                    ) from error
        raise ValueError(f"{self._location} has no {CLASSES_TABLE}, so its classes have no names; add it")

    @cached_property
    def _exhaustive(self) -> dict[str, tuple[str, ...]]:
        """dataset -> the clean names that are annotated wherever they are visible."""
        return {
            dataset: exhaustive_labels(dataset, _clean_labels(dataset, names.values()))
            for dataset, names in self._classes.items()
        }


def _parsed(stem: str) -> tuple[ImageName, Modality, str]:
    """An image's name, modality and detail. Raises FaultyImageError."""
    try:
        name = ImageName.parse(stem)
    except ValueError as error:
        raise FaultyImageError(Drop.BAD_NAME, stem) from error
    try:
        return name, *Modality.from_prefix(name.prefix)
    except ValueError as error:
        raise FaultyImageError(Drop.UNKNOWN_MODALITY, name.prefix) from error


def _file_key(path: PurePosixPath) -> tuple[str, str, str] | None:
    """(image id, class id, instance) of an image file or a mask file; None if the name is not usable."""
    stem = path.name[: -len(path.suffix)]
    if len(stem) > _LONGEST_NAME or not stem.isprintable():
        return None
    if path.parent.name == "images":
        return stem, *_IMAGE_FILE
    try:
        name = MaskName.parse(stem)
    except ValueError:
        return None
    return name.image_id, name.class_id, name.instance


def _mask_names(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the masks listed in {"images/...": ["masks/...", ...]}; the JSON is read token by token."""
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
        text = text[end:][: 8 * _LONGEST_NAME]  # a longer string is not a name


def _unquoted(token: str) -> str:
    try:
        return str(json.loads(token))
    except ValueError:
        return ""


def _clean_labels(dataset: str, names: Iterable[Any]) -> list[str]:
    """The clean names of a dataset's classes, without those that have none."""
    clean = []
    for name in names:
        try:
            clean.append(clean_label(dataset, name))
        except FaultyImageError:
            continue
    return list(dict.fromkeys(clean))
