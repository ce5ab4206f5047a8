"""`bird data import`: original Med-GRIT files and a folder of images -> a Med-GRIT folder."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..hub.grounding import Span, read
from ..hub.pixels import open_image
from .file_names import info_of
from .json_list import read_list
from .original_format import Entry, Source, find_sources, read_entry, to_json
from .publish import replace_folder, write_card
from .records import Dialogue, ImageRecord, Instance, Task, Turn, dialogue_row
from .shards import Row, write_stream

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


def import_original(
    paths: Sequence[Path], images: Path, out: Path, split: str | None = None, pixels: bool = True
) -> dict[str, dict[str, int]]:
    """Write original files (or folders of them) and their images as a Med-GRIT folder; rows by config and split.

    split: of files whose names say none. pixels: whether rows carry the images or only refer to them by id.
    Raises ValueError, in one line with file and entry, at the first fault; nothing is written then.
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
        shelf = _ImageShelf(images, pixels)
        counts: dict[str, dict[str, int]] = {}
        for source in sources:
            rows = _rows(source, shelf, index, making / "original")
            count = write_stream(rows, making / "data" / source.task.value, source.split)
            if not count:
                raise ValueError(f"{source.path} holds no turns; leave it out")
            counts.setdefault(source.task.value, {})[source.split] = count
        for name in dict.fromkeys(source.split for source in sources):
            chat = write_stream(index.chat_rows(name, shelf), making / "data" / Task.CHAT.value, name)
            counts.setdefault(Task.CHAT.value, {})[name] = chat
        write_card(making, counts, _CARD)
        replace_folder(making, out)
    finally:
        index.close()
        shutil.rmtree(making, ignore_errors=True)
    return counts


def _rows(source: Source, shelf: _ImageShelf, index: _TurnIndex, originals: Path) -> Iterator[Row]:
    """The rows of a file; what they have no place for goes into `originals`, their turns into the index."""
    with (originals / f"{source.split}-{source.task.value}.jsonl").open("w", encoding="utf-8") as kept:
        kept.write(to_json({"file": source.path.name}) + "\n")
        entries = tqdm(read_list(source.path), desc=source.path.name, unit="entry")
        for number, value in entries:
            try:
                entry = read_entry(value)
                size, cell = shelf.take(entry.image_id)
                kept.write(entry.line() + "\n")
            except (ValueError, OSError) as error:
                raise ValueError(f"{source.path}, entry {number}: {error}") from error
            index.add(source, entry)
            for words in entry.turns:
                dialogue = _dialogue(entry.image_id, size, [(source.task, words)])
                yield dialogue_row(dialogue, cell)


class _ImageShelf:
    """The folder of images; the last picture is kept, because its turns stand next to each other."""

    def __init__(self, folder: Path, pixels: bool) -> None:
        self.folder, self.pixels = folder.resolve(), pixels
        self.last: tuple[str, tuple[int, int], dict[str, Any] | None] | None = None

    def take(self, image_id: str) -> tuple[tuple[int, int], dict[str, Any] | None]:
        """(width, height) and the `image` cell; raises ValueError where the picture is missing or unreadable."""
        if self.last is None or self.last[0] != image_id:
            path = (self.folder / f"{image_id}.png").resolve()
            if not path.is_relative_to(self.folder):
                raise ValueError(f"image {image_id}.png is a link that leads out of {self.folder}")
            if not path.is_file():
                raise ValueError(f"image {path} is missing; --images must hold every image")
            if path.stat().st_size > MAX_IMAGE_BYTES:
                raise ValueError(f"image {path} is larger than {MAX_IMAGE_BYTES // 1_000_000} MB")
            content = path.read_bytes()
            try:
                size = open_image(content).size
            except ValueError as error:
                raise ValueError(f"image {path}: {error}") from error
            cell = {"bytes": content, "path": f"{image_id}.png"} if self.pixels else None
            self.last = image_id, size, cell
        return self.last[1], self.last[2]


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
