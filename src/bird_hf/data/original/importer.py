"""`bird data import`: original Med-GRIT files and a folder of images -> a Med-GRIT folder."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...hub.grounding import Span, read
from ...hub.pixels import open_image
from ..folder.publish import replace_folder, write_card
from ..folder.shards import Row, write_stream
from ..records import (
    Dialogue,
    ImageRecord,
    Instance,
    Task,
    Turn,
    dialogue_row,
)
from .file_names import info_of
from .format import (
    Broken,
    BrokenEntryError,
    Entry,
    Source,
    find_sources,
    read_entry,
    to_json,
)
from .json_list import read_list

TEACHER = "original"
MAX_IMAGE_BYTES = 100_000_000

_CARD = """\
# Med-GRIT, imported

Made by `bird data import` from the original JSON files; `bird data export` writes them back. Modality, dataset, axis
and case are read from the file names. Labels and boxes of `objects` are those of the words, `area` is the box's own,
and there are no captions and no absent objects.
"""


@dataclass(frozen=True)
class OriginalTurn(Turn):
    """A turn whose tagged words stay as they were written, to the letter."""

    words: tuple[str, str] = ("", "")

    def tagged(self) -> tuple[str, str]:
        return self.words


@dataclass
class Imported:
    """What an import made: rows by config and split; what it left out: entries by reason, and the first of each."""

    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    left_out: dict[Broken, int] = field(default_factory=dict)
    first: dict[Broken, str] = field(default_factory=dict)

    def leave_out(self, place: str, error: BrokenEntryError) -> None:
        self.left_out[error.reason] = self.left_out.get(error.reason, 0) + 1
        self.first.setdefault(error.reason, f"{place}: {error}")

    def left_out_lines(self) -> list[str]:
        """A line a reason, the commonest first."""
        by_number = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
        return [f"left out, {reason}: {count:,}, first {self.first[reason]}" for reason, count in by_number]


def import_original(
    paths: Sequence[Path], images: Path, out: Path, split: str | None = None, pixels: bool = True
) -> Imported:
    """Write original files (or folders of them) and their images as a Med-GRIT folder.

    split: of files whose names say none. pixels: whether rows carry the images or only refer to them by id.
    Broken entries are left out and counted. Raises ValueError, in one line, where a file is no list of entries, or
    nothing is left; nothing is written then.
    """
    sources = find_sources(paths, split)
    if not images.is_dir():
        raise ValueError(f"{images} is no folder; --images is the one that holds ID.png of every entry")
    for path in (images, *(source.path for source in sources)):
        if path.resolve().is_relative_to(out.resolve()):
            raise ValueError(f"{path} stands inside {out}, which is to be written; give another --out")
    making = out.with_name(f".{out.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    (making / "original").mkdir(parents=True)
    index = _TurnIndex()
    try:
        imported = _write_all(sources, _ImageShelf(images, pixels), index, making)
        replace_folder(making, out)
    finally:
        index.close()
        shutil.rmtree(making, ignore_errors=True)
    return imported


def _write_all(sources: Sequence[Source], shelf: _ImageShelf, index: _TurnIndex, making: Path) -> Imported:
    """The shards and the card. Raises ValueError where no entry can be used."""
    imported = Imported()
    for source in sources:
        kept = making / "original" / f"{source.split}-{source.task.value}.jsonl"
        rows = _rows(source, shelf, index, kept, imported)
        if count := write_stream(rows, making / "data" / source.task.value, source.split):
            imported.rows.setdefault(source.task.value, {})[source.split] = count
        else:
            kept.unlink()
    if not imported.rows:
        names = ", ".join(str(source.path) for source in sources)
        why = "; ".join(imported.left_out_lines()) or "the lists are empty"
        raise ValueError(f"{names}: no turns that can be imported ({why})")
    for name in dict.fromkeys(split for of_task in imported.rows.values() for split in of_task):
        chat = write_stream(index.chat_rows(name, shelf), making / "data" / Task.CHAT.value, name)
        imported.rows.setdefault(Task.CHAT.value, {})[name] = chat
    write_card(making, imported.rows, _CARD)
    return imported


def _rows(
    source: Source, shelf: _ImageShelf, index: _TurnIndex, original: Path, imported: Imported
) -> Iterator[Row]:
    """The rows of a file; what they have no place for goes into `original`, their turns into the index."""
    with original.open("w", encoding="utf-8") as kept:
        kept.write(to_json({"file": source.path.name}) + "\n")
        for number, value in tqdm(read_list(source.path), desc=source.path.name, unit="entry"):
            try:
                entry = read_entry(value)
                size, cell = shelf.take(entry.image_id)
            except BrokenEntryError as error:
                imported.leave_out(f"{source.path}, entry {number}", error)
                continue
            kept.write(entry.line() + "\n")
            index.add(source, entry)
            for words in entry.turns:
                yield dialogue_row(_dialogue(entry.image_id, size, [(source.task, words)]), cell)


class _ImageShelf:
    """The folder of images; the last picture is kept, because its turns stand next to each other."""

    def __init__(self, folder: Path, pixels: bool) -> None:
        self.folder, self.pixels = folder.resolve(), pixels
        self.last: tuple[str, tuple[int, int], dict[str, Any] | None] | None = None

    def take(self, image_id: str) -> tuple[tuple[int, int], dict[str, Any] | None]:
        """(width, height) and the `image` cell; raises BrokenEntryError where the picture is missing or unreadable."""
        if self.last is None or self.last[0] != image_id:
            content = self._content(self.folder / f"{image_id}.png")
            try:
                size = open_image(content).size
            except ValueError as error:
                raise BrokenEntryError(Broken.UNREADABLE_IMAGE, f"image {image_id}.png: {error}") from error
            cell = {"bytes": content, "path": f"{image_id}.png"} if self.pixels else None
            self.last = image_id, size, cell
        return self.last[1], self.last[2]

    def _content(self, path: Path) -> bytes:
        try:
            if not path.resolve().is_relative_to(self.folder):
                raise BrokenEntryError(
                    Broken.MISSING_IMAGE, f"image {path.name} is a link that leads out of {self.folder}"
                )
            if not path.is_file():
                raise BrokenEntryError(Broken.MISSING_IMAGE, f"image {path} is missing")
            if path.stat().st_size > MAX_IMAGE_BYTES:
                limit = f"larger than {MAX_IMAGE_BYTES // 1_000_000} MB"
                raise BrokenEntryError(Broken.UNREADABLE_IMAGE, f"image {path} is {limit}")
            return path.read_bytes()
        except OSError as error:
            raise BrokenEntryError(
                Broken.MISSING_IMAGE, f"image {path.name} cannot be opened ({error.strerror})"
            ) from error


class _TurnIndex:
    """All turns on disk, because those of an image stand in several files and `chat` wants them together."""

    def __init__(self) -> None:
        self.base = sqlite3.connect("")  # a private file that is gone with its connection
        self.base.execute(
            "CREATE TABLE turns (split TEXT, image TEXT, task TEXT, question TEXT, answer TEXT)"
        )

    def add(self, source: Source, entry: Entry) -> None:
        rows = [(source.split, entry.image_id, source.task.value, *words) for words in entry.turns]
        self.base.executemany("INSERT INTO turns VALUES (?, ?, ?, ?, ?)", rows)

    def chat_rows(self, split: str, shelf: _ImageShelf) -> Iterator[Row]:
        """One row an image with all its turns, in the order in which images and turns were added."""
        found = self.base.execute(
            "SELECT turns.image, task, question, answer FROM turns JOIN (SELECT image, MIN(rowid) AS first FROM turns"
            " WHERE split = :split GROUP BY image) AS heads ON heads.image = turns.image"
            " WHERE split = :split ORDER BY first, turns.rowid",
            {"split": split},
        )
        images = groupby(found, key=lambda row: row[0])
        for image_id, turns in tqdm(images, desc=f"{split} chats", unit="image"):
            size, cell = shelf.take(image_id)
            words = [(Task(task), (question, answer)) for _, task, question, answer in turns]
            yield dialogue_row(_dialogue(image_id, size, words), cell) | {"task": Task.CHAT.value}

    def close(self) -> None:
        self.base.close()


def _dialogue(
    image_id: str, image_wh: tuple[int, int], words: Sequence[tuple[Task, tuple[str, str]]]
) -> Dialogue:
    """Turns about an image; its objects are those that the words give boxes to."""
    objects: dict[str, Instance] = {}
    turns = []
    for task, pair in words:
        question, answer = map(read, pair)
        named = {
            "-".join(map(str, box.to_thousandths())): Instance("", label, box, box.area)
            for span, label in _labels(task, question.spans, answer.spans, answer.text)
            for box in span.boxes
        }
        for instance_id, instance in named.items():
            objects.setdefault(instance_id, replace(instance, instance_id=instance_id))
        turns.append(
            OriginalTurn(
                task, question.text, answer.text, question.spans, answer.spans, tuple(named), words=pair
            )
        )
    record = ImageRecord(info_of(image_id), image_wh, tuple(objects.values()))
    return Dialogue(record, tuple(turns), TEACHER)


def _labels(
    task: Task, asked: Sequence[Span], answered: Sequence[Span], answer: str
) -> Iterator[tuple[Span, str]]:
    """Spans with what their boxes are called: the phrase, but the answer where that is what is asked for."""
    name = answered[0].phrase if len(answered) == 1 else answer.strip().rstrip(".")
    for span in asked:
        yield span, name if task is Task.REFERRING_CLASSIFICATION else span.phrase
    for span in answered:
        yield span, span.phrase
