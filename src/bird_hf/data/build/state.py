"""What a build has done so far: one SQLite file, so that a kill at any moment loses nothing that was committed.

Every answer of a stage is a row that depends on the source, the settings and the seed only. Stages read rows in an
order of their own, never in that of their writing, so an interrupted build ends as an unbroken one does.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...hub.boxes import Box
from ..draws import draw_of
from ..records import Axis, ImageInfo, ImageRecord, Instance, Modality
from ..sources.base import Candidate, LeftOut
from ..sources.label_names import Spellings

_TABLES = """
CREATE TABLE IF NOT EXISTS stages (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS images (
  image_id TEXT PRIMARY KEY, modality TEXT, dataset TEXT, rarest TEXT, case_id TEXT, volume TEXT, slice INT, draw INT,
  labels TEXT, info TEXT, place TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS left_out (name TEXT, reason TEXT);
CREATE TABLE IF NOT EXISTS labels (dataset TEXT, modality TEXT, name TEXT, images INT);
CREATE TABLE IF NOT EXISTS spellings (dataset TEXT, name TEXT, spelling TEXT);
CREATE TABLE IF NOT EXISTS picked (image_id TEXT PRIMARY KEY, rank INT);
CREATE TABLE IF NOT EXISTS reads (
  image_id TEXT PRIMARY KEY, fault TEXT, record TEXT, look BLOB, png BLOB, objects TEXT, rejected INT);
CREATE TABLE IF NOT EXISTS chosen (image_id TEXT PRIMARY KEY, rank INT, split TEXT);
CREATE INDEX IF NOT EXISTS by_rank ON chosen (rank);
CREATE TABLE IF NOT EXISTS words (image_id TEXT PRIMARY KEY, refused TEXT, rows TEXT, rejected INT);
"""
_PAGE = 256  # images that are looked up at a time
_FIELDS = (
    "image_id",
    "modality",
    "modality_detail",
    "region",
    "axis",
    "slice_index",
    "dataset",
    "case_id",
    "synthetic",
)


class BuildState:
    """The tables of a build. `with state.stage(name)` is no part of it: see `is_done` and `finish`."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(path, isolation_level=None)
        self._queues = 0
        # With a write-ahead log and no fsync a kill of the program loses nothing; only the machine's own crash could.
        self.database.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {_TABLES}")

    def close(self) -> None:
        self.database.close()

    def is_done(self, stage: str) -> bool:
        return bool(self.database.execute("SELECT 1 FROM stages WHERE name = ?", (stage,)).fetchone())

    def finish(self, stage: str) -> None:
        """To be called in the transaction that writes the stage's last rows."""
        self.database.execute("INSERT OR IGNORE INTO stages VALUES (?)", (stage,))

    def add_listed(self, listed: Iterable[Candidate | LeftOut], seed: int) -> None:
        """Stage 1, in one transaction: all that a source lists. Of two images of one name the first stays."""
        seen: Counter[tuple[str, str]] = Counter()
        for item in listed:
            if isinstance(item, LeftOut):
                self.database.execute("INSERT INTO left_out VALUES (?, ?)", (item.name, item.reason))
                continue
            info = item.info
            added = self.database.execute(
                "INSERT OR IGNORE INTO images VALUES (?, ?, ?, '', ?, ?, ?, ?, ?, ?, ?)",
                (
                    info.image_id,
                    info.modality,
                    info.dataset,
                    info.case_id,
                    _volume_of(info),
                    info.slice_index,
                    draw_of(seed, info.image_id),
                    json.dumps(item.labels),
                    _info_text(info),
                    json.dumps(item.where),
                ),
            )
            if not added.rowcount:
                self.database.execute("INSERT INTO left_out VALUES (?, 'duplicate_id')", (info.image_id,))
            seen.update((info.dataset, label) for label in item.labels)

        def rarest(dataset: str, labels: str) -> str:
            return min(json.loads(labels), key=lambda label: (seen[dataset, label], label), default="")

        self.database.create_function("rarest", 2, rarest, deterministic=True)
        self.database.execute("UPDATE images SET rarest = rarest(dataset, labels)")

    def candidates_to_read(self) -> Iterator[Candidate]:
        """Those that were picked and not read yet, in the source's order: slices of a volume stand together."""
        rows = self.each(
            "SELECT image_id FROM images JOIN picked USING (image_id) "
            "WHERE image_id NOT IN (SELECT image_id FROM reads) ORDER BY dataset, volume, slice, image_id",
            "info, labels, place FROM {} JOIN images USING (image_id)",
        )
        for _, *row in rows:
            yield _candidate(*row)

    def each(self, image_ids: str, columns: str) -> Iterator[tuple[Any, ...]]:
        """(image_id, the columns) of the images that a query gives, in its order, a page at a time.

        columns: "a, b FROM {} JOIN ...", with {} for the query's images. The query is asked once, at the first row, so
        that what is written meanwhile changes nothing, and memory does not grow with the number of images.
        """
        self._queues += 1
        queue = f"queue_{self._queues}"
        self.database.execute(f"CREATE TEMP TABLE {queue} (position INTEGER PRIMARY KEY, image_id TEXT)")
        self.database.execute(f"INSERT INTO {queue} (image_id) {image_ids}")
        page = f"SELECT position, image_id, {columns.format(queue)} WHERE position > ? ORDER BY position LIMIT {_PAGE}"
        last = 0
        while rows := self.database.execute(page, (last,)).fetchall():
            yield from (row[1:] for row in rows)
            last = rows[-1][0]
        self.database.execute(f"DROP TABLE {queue}")

    def add_names(self, images: Mapping[tuple[str, str, str], int], spelled: Spellings) -> None:
        """The source's own names, before any review: (dataset, modality, name) -> images, and how they were written."""
        self.database.executemany(
            "INSERT INTO labels VALUES (?, ?, ?, ?)", ((*key, count) for key, count in images.items())
        )
        self.database.executemany(
            "INSERT INTO spellings VALUES (?, ?, ?)",
            ((*key, spelling) for key, found in spelled.items() for spelling in found),
        )

    def objects(self) -> Iterator[tuple[str, str, str, int]]:
        """(dataset, modality, the source's name, objects) of all images that were read."""
        return self.database.execute(
            "SELECT dataset, modality, key, SUM(value) FROM reads JOIN images USING (image_id), json_each(objects) "
            "GROUP BY dataset, modality, key"
        )

    def rejected(self) -> dict[str, int]:
        """Objects and turns that a review took from the images of the dataset."""
        query = (
            "SELECT SUM(reads.rejected), SUM(words.rejected) FROM words JOIN reads USING (image_id) "
            "WHERE refused IS NULL"
        )
        objects, turns = self.database.execute(query).fetchone()
        return {"objects": objects or 0, "turns": turns or 0}

    def candidate(self, image_id: str) -> Candidate:
        """The listed image of that name."""
        row = self.database.execute(
            "SELECT info, labels, place FROM images WHERE image_id = ?", (image_id,)
        ).fetchone()
        return _candidate(*row)

    def png(self, image_id: str) -> bytes | None:
        """The pixels of an image, where the build keeps them."""
        row = self.database.execute("SELECT png FROM reads WHERE image_id = ?", (image_id,)).fetchone()
        return row[0] if row else None

    def count(self, what: str, *values: Any) -> int:
        """The number of rows that `SELECT COUNT(*) FROM {what}` gives."""
        return int(self.database.execute(f"SELECT COUNT(*) FROM {what}", values).fetchone()[0])


def _candidate(info: str, labels: str, place: str) -> Candidate:
    return Candidate(_info_of(info), tuple(json.loads(labels)), json.loads(place))


def _volume_of(info: ImageInfo) -> str:
    return info.image_id if info.slice_index is None else info.image_id.rpartition("_")[0]


def _info_text(info: ImageInfo) -> str:
    return json.dumps([getattr(info, field) for field in _FIELDS])


def _info_of(text: str) -> ImageInfo:
    values = dict(zip(_FIELDS, json.loads(text), strict=True))
    return ImageInfo(**values | {"modality": Modality(values["modality"]), "axis": Axis(values["axis"])})


def record_text(record: ImageRecord) -> str:
    """A record as JSON; floats come back exactly."""
    instances = [
        (item.instance_id, item.label, item.box.xyxy if item.box else None, item.area)
        for item in record.instances
    ]
    return json.dumps([_info_text(record.info), record.image_wh, instances, record.caption])


def record_of_text(text: str) -> ImageRecord:
    """The record that `record_text` wrote."""
    info, (width, height), instances, caption = json.loads(text)
    return ImageRecord(
        _info_of(info),
        (width, height),
        tuple(Instance(i, label, Box(*box) if box else None, area) for i, label, box, area in instances),
        caption,
    )
