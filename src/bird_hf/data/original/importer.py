"""`bird data import`: original Med-GRIT files and a folder of images -> a Med-GRIT folder."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...atomic_writes import replacing_folder
from ...hub.grounding import Span, read
from ...hub.pixels import open_image
from ...progress import progress_bar
from ..folder.left_out import LEFT_OUT, LeftOutRow, write_left_out
from ..folder.publish import png_bytes, write_card
from ..folder.shards import Row, write_stream
from ..frames import Frame, Orientation, frame_of
from ..records import Dialogue, ImageRecord, Instance, Task, Turn, dialogue_row
from .file_names import info_of
from .format import (
    BrokenEntryError,
    Entry,
    EntryFault,
    OriginalFile,
    find_files,
    read_entry,
    to_json,
)
from .json_list import read_list
from .upright_text import upright_text

TEACHER = "original"
MAX_IMAGE_BYTES = 100_000_000
_LONGEST_ID = 240  # that left_out.csv shows

_CARD = """\
# Med-GRIT, imported

Made by `bird data import` from the original JSON files; `bird data export` writes them back. Modality, dataset, axis
and case are read from the file names. Labels and boxes of `objects` are those of the text, `area` is the area of the
box, and there are no captions and no absent objects.
"""


@dataclass(frozen=True)
class OriginalTurn(Turn):
    """A turn that keeps its tagged question and answer exactly as they were written."""

    original: tuple[str, str] = ("", "")

    def tagged(self) -> tuple[str, str]:
        return self.original


@dataclass
class ImportResult:
    """The rows of an import by config and split; the entries left out by reason, and the first of each reason."""

    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    left_out: dict[EntryFault, int] = field(default_factory=dict)
    first: dict[EntryFault, str] = field(default_factory=dict)

    def leave_out(self, place: str, error: BrokenEntryError) -> None:
        self.left_out[error.reason] = self.left_out.get(error.reason, 0) + 1
        self.first.setdefault(error.reason, _storable(f"{place}: {error}"))

    def left_out_lines(self) -> list[str]:
        """One line per reason, the most frequent first."""
        by_number = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
        return [f"left out, {reason}: {count:,}, first {self.first[reason]}" for reason, count in by_number]


def import_original(
    paths: Sequence[Path],
    images: Path,
    out: Path,
    split: str | None = None,
    pixels: bool = True,
    orientation: Orientation | None = None,
) -> ImportResult:
    """Convert original files (or folders of them) and their images into a Med-GRIT folder.

    split: for files whose names contain no split. pixels: whether rows hold the images or only their ids. orientation:
    on which pixels the boxes of images with an EXIF orientation were made; without it such images are left out, because
    boxes in thousandths have no size that could tell. Rows hold the upright image, and boxes on it.
    Entries that cannot be imported are left out, counted and listed in `out`/left_out.csv. Raises ValueError if a file
    is not a list of entries or no entry is left; then only that file is written, if any entry was left out.
    """
    files = find_files(paths, split)
    if not images.is_dir():
        raise ValueError(f"{images} is not a folder; --images is the folder that holds ID.png of every entry")
    for path in (images, *(file.path for file in files)):
        if path.resolve().is_relative_to(out.resolve()):
            raise ValueError(f"{path} is inside {out}, which is to be written; give another --out")
    turns = TurnTable()
    try:
        with replacing_folder(out) as making:
            result = _write_all(files, ImageReader(images, pixels, orientation), turns, making)
            write_left_out(turns.left_out_rows(), making / LEFT_OUT)
        return result
    except ValueError as error:
        if not turns.has_left_out():
            raise
        out.mkdir(parents=True, exist_ok=True)
        write_left_out(turns.left_out_rows(), out / LEFT_OUT)
        raise ValueError(f"{error}; all are in {out / LEFT_OUT}") from None
    finally:
        turns.close()


def _write_all(
    files: Sequence[OriginalFile], images: ImageReader, turns: TurnTable, making: Path
) -> ImportResult:
    """Write shards and card. Raises ValueError if no entry can be imported."""
    result = ImportResult()
    (making / "original").mkdir()
    for file in files:
        layout = making / "original" / f"{file.split}-{file.task.value}.jsonl"
        rows = _rows(file, images, turns, layout, result)
        if count := write_stream(rows, making / "data" / file.task.value, file.split):
            result.rows.setdefault(file.task.value, {})[file.split] = count
        else:
            layout.unlink()
    if not result.rows:
        names = ", ".join(str(file.path) for file in files)
        why = "; ".join(result.left_out_lines()) or "the lists are empty"
        raise ValueError(f"{names}: no turns that can be imported ({why})")
    for split in dict.fromkeys(split for of_task in result.rows.values() for split in of_task):
        count = write_stream(turns.chat_rows(split, images), making / "data" / Task.CHAT.value, split)
        result.rows.setdefault(Task.CHAT.value, {})[split] = count
    write_card(making, result.rows, _CARD)
    return result


def _rows(
    file: OriginalFile, images: ImageReader, turns: TurnTable, layout: Path, result: ImportResult
) -> Iterator[Row]:
    """Yields the rows of a file. Writes what rows have no column for to `layout`, and adds the turns to `turns`."""
    with layout.open("w", encoding="utf-8") as lines:
        lines.write(to_json({"file": file.path.name}) + "\n")
        for number, value in progress_bar(read_list(file.path), desc=file.path.name, unit="entry"):
            try:
                entry = read_entry(value)
                image_wh, cell, turned_by = images.read(entry.image_id)
            except BrokenEntryError as error:
                place = f"{file.path}, entry {number}"
                result.leave_out(place, error)
                turns.leave_out(_id_of(value), place, error)
                continue
            lines.write(entry.layout_line() + "\n")
            if turned_by is not None:
                entry = replace(entry, turns=tuple(_upright(turn, turned_by) for turn in entry.turns))
            turns.add(file, entry)
            for turn in entry.turns:
                yield dialogue_row(_dialogue(entry.image_id, image_wh, [(file.task, turn)]), cell)


class ReadImage(NamedTuple):
    """(width, height) of the upright image, the `image` cell, and the frame to turn boxes by, if they have to be."""

    image_wh: tuple[int, int]
    cell: dict[str, Any] | None
    turned_by: Frame | None


class ImageReader:
    """Reads images of a folder by id. The last one is cached, because the turns of an image follow one another."""

    def __init__(self, folder: Path, pixels: bool, orientation: Orientation | None) -> None:
        self.folder, self.pixels, self.orientation = folder.resolve(), pixels, orientation
        self.last: tuple[str, ReadImage] | None = None

    def read(self, image_id: str) -> ReadImage:
        """Raises BrokenEntryError if the image is missing or unreadable, or the frame of its boxes is not known."""
        if self.last is None or self.last[0] != image_id:
            self.last = image_id, self._read(image_id)
        return self.last[1]

    def _read(self, image_id: str) -> ReadImage:
        name = f"{image_id}.png"
        content = self._content(self.folder / name)
        try:
            picture = open_image(content)
            frame = frame_of(content)
        except ValueError as error:
            raise BrokenEntryError(EntryFault.UNREADABLE_IMAGE, f"image {name}: {error}") from error
        if frame.exif != 1:
            if self.orientation is None:
                detail = (
                    f"image {name} has EXIF orientation {frame.exif}; give --orientation stored or upright"
                )
                raise BrokenEntryError(EntryFault.ORIENTATION_UNKNOWN, detail)
            content = png_bytes(np.asarray(picture))  # not every reader of a row turns its image
        cell = {"bytes": content, "path": name} if self.pixels else None
        stored = frame.exif != 1 and self.orientation is Orientation.STORED
        return ReadImage(picture.size, cell, frame if stored else None)

    def _content(self, path: Path) -> bytes:
        try:
            if not path.resolve().is_relative_to(self.folder):
                raise BrokenEntryError(
                    EntryFault.MISSING_IMAGE, f"image {path.name} is a link to a file outside {self.folder}"
                )
            if not path.is_file():
                raise BrokenEntryError(EntryFault.MISSING_IMAGE, f"image {path} is missing")
            if path.stat().st_size > MAX_IMAGE_BYTES:
                limit = f"larger than {MAX_IMAGE_BYTES // 1_000_000} MB"
                raise BrokenEntryError(EntryFault.UNREADABLE_IMAGE, f"image {path} is {limit}")
            return path.read_bytes()
        except OSError as error:
            raise BrokenEntryError(
                EntryFault.MISSING_IMAGE, f"image {path.name} cannot be opened ({error.strerror})"
            ) from error


class TurnTable:
    """All turns, on disk. The turns of an image are in several files, and a row of `chat` needs all of them."""

    def __init__(self) -> None:
        self.database = sqlite3.connect("")  # a private temporary file, deleted when the connection is closed
        self.database.execute(
            "CREATE TABLE turns (split TEXT, image TEXT, task TEXT, question TEXT, answer TEXT)"
        )
        self.database.execute("CREATE TABLE left_out (image TEXT, reason TEXT, detail TEXT)")

    def add(self, file: OriginalFile, entry: Entry) -> None:
        rows = [(file.split, entry.image_id, file.task.value, *turn) for turn in entry.turns]
        self.database.executemany("INSERT INTO turns VALUES (?, ?, ?, ?, ?)", rows)

    def leave_out(self, image_id: str, place: str, error: BrokenEntryError) -> None:
        """Add an entry that is left out."""
        row = (image_id, error.reason, _storable(f"{place}: {error}"))
        self.database.execute("INSERT INTO left_out VALUES (?, ?, ?)", row)

    def has_left_out(self) -> bool:
        return self.database.execute("SELECT 1 FROM left_out LIMIT 1").fetchone() is not None

    def left_out_rows(self) -> Iterator[LeftOutRow]:
        """Yields the entries left out, in the order of the files."""
        rows = self.database.execute("SELECT image, reason, detail FROM left_out ORDER BY rowid")
        return (
            LeftOutRow(image, reason, detail, EntryFault(reason).remedy) for image, reason, detail in rows
        )

    def chat_rows(self, split: str, images: ImageReader) -> Iterator[Row]:
        """Yields one row per image with all its turns; images and turns keep the order in which they were added."""
        found = self.database.execute(
            "SELECT turns.image, task, question, answer FROM turns JOIN (SELECT image, MIN(rowid) AS first FROM turns"
            " WHERE split = :split GROUP BY image) AS heads ON heads.image = turns.image"
            " WHERE split = :split ORDER BY first, turns.rowid",
            {"split": split},
        )
        by_image = groupby(found, key=lambda row: row[0])
        for image_id, rows in progress_bar(by_image, desc=f"{split} chats", unit="image"):
            image_wh, cell, _ = images.read(image_id)
            turns = [(Task(task), (question, answer)) for _, task, question, answer in rows]
            yield dialogue_row(_dialogue(image_id, image_wh, turns), cell) | {"task": Task.CHAT.value}

    def close(self) -> None:
        self.database.close()


def _id_of(value: Any) -> str:
    """The id of an entry that may be broken; empty if it has none."""
    name = value.get("id") if isinstance(value, dict) else None
    return _storable(name[:_LONGEST_ID]) if isinstance(name, str) else ""


def _storable(text: str) -> str:
    """A text without lone surrogates, which JSON can hold and SQLite refuses."""
    return text.encode("utf-8", "backslashreplace").decode()


def _upright(turn: tuple[str, str], frame: Frame) -> tuple[str, str]:
    question, answer = turn
    return upright_text(question, frame), upright_text(answer, frame)


def _dialogue(
    image_id: str, image_wh: tuple[int, int], originals: Sequence[tuple[Task, tuple[str, str]]]
) -> Dialogue:
    """A dialogue of tagged (question, answer) pairs. Its objects are those that have boxes in the text."""
    objects: dict[str, Instance] = {}
    turns = []
    for task, original in originals:
        question, answer = map(read, original)
        named = {
            "-".join(map(str, box.to_thousandths())): Instance("", label, box, box.area)
            for span, label in _labels(task, question.spans, answer.spans, answer.text)
            for box in span.boxes
        }
        for instance_id, instance in named.items():
            objects.setdefault(instance_id, replace(instance, instance_id=instance_id))
        spans = (question.spans, answer.spans)
        turns.append(OriginalTurn(task, question.text, answer.text, *spans, tuple(named), original=original))
    record = ImageRecord(info_of(image_id), image_wh, tuple(objects.values()))
    return Dialogue(record, tuple(turns), TEACHER)


def _labels(
    task: Task, questioned: Sequence[Span], answered: Sequence[Span], answer: str
) -> Iterator[tuple[Span, str]]:
    """Yields each span with the label of its boxes: its phrase, or the answer if the question asks for the name."""
    name = answered[0].phrase if len(answered) == 1 else answer.strip().rstrip(".")
    for span in questioned:
        yield span, name if task is Task.REFERRING_CLASSIFICATION else span.phrase
    for span in answered:
        yield span, span.phrase
