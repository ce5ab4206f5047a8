"""The progress of a build in one SQLite file, so that a build that is killed loses nothing it has committed.

All queries of a build are in this module and in `sampling.py`. Every row depends on the source, the settings and the
seed only. Stages read rows in an order of their own, never in the order of insertion, so an interrupted build ends
with the same result as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..draws import draw_of
from ..folder.left_out import LeftOutRow
from ..folder.subsets import ImageOrder
from ..records import ImageInfo, ImageRecord, Task
from ..sources.base import Candidate, LeftOut
from ..sources.faults import Drop
from ..sources.label_names import Spellings
from .database import StageDatabase
from .record_json import info_from_json, info_to_json, record_from_json, record_to_json
from .sampling import SLICE_SPACING, pick
from .split import PlacedImage

_TABLES = """
CREATE TABLE IF NOT EXISTS images (
  image_id TEXT PRIMARY KEY, modality TEXT, dataset TEXT, rarest TEXT, case_id TEXT, volume TEXT, slice INT, draw INT,
  labels TEXT, info TEXT, place TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS left_out (name TEXT, reason TEXT, detail TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS labels (dataset TEXT, modality TEXT, name TEXT, images INT);
CREATE TABLE IF NOT EXISTS spellings (dataset TEXT, name TEXT, spelling TEXT);
CREATE TABLE IF NOT EXISTS picked (image_id TEXT PRIMARY KEY, rank INT);
CREATE TABLE IF NOT EXISTS reads (
  image_id TEXT PRIMARY KEY, fault TEXT, record TEXT, look BLOB, png BLOB, objects TEXT, rejected INT,
  detail TEXT NOT NULL DEFAULT '', runs TEXT);
CREATE TABLE IF NOT EXISTS chosen (image_id TEXT PRIMARY KEY, rank INT, split TEXT);
CREATE INDEX IF NOT EXISTS by_rank ON chosen (rank);
CREATE TABLE IF NOT EXISTS words (image_id TEXT PRIMARY KEY, refused TEXT, rows TEXT, rejected INT);
"""

# Columns that the state of a build by an earlier version does not have.
_ADDED = (("left_out", "detail"), ("reads", "detail"), ("reads", "runs"))

_ADDRESS = re.compile(r" ?<[^<>]{0,80} at 0x[0-9a-fA-F]{1,16}>")
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class ReadResult:
    """A picked image after decoding: its record, or the fault for which it is dropped.

    objects: the source's own name of a class -> number of objects. image_hash: see `near_duplicates`. png: the pixels,
    if rows may hold them. rejected: number of objects removed by a review. detail: the values, names or sizes for which
    the image is dropped. runs: instance id -> COCO run lengths of its mask, if rows hold masks.
    """

    image_id: str
    objects: Mapping[str, int]
    fault: Drop | None
    record: ImageRecord | None = None
    image_hash: bytes | None = None
    png: bytes | None = None
    rejected: int = 0
    detail: str = ""
    runs: Mapping[str, str] | None = None


@dataclass(frozen=True)
class DialogueResult:
    """The published rows of a chosen image, or the reason why it has none.

    rejected: number of turns removed by a review.
    """

    image_id: str
    refused: str | None
    rows: Mapping[Task, Rows] | None
    rejected: int = 0


class BuildState(StageDatabase):
    """The tables of a build, and all queries on them."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _TABLES)
        for table, column in _ADDED:
            self.add_column(table, column, "TEXT" if column == "runs" else "TEXT NOT NULL DEFAULT ''")

    def count(self, table: Literal["images", "left_out", "picked", "reads", "chosen", "words"]) -> int:
        """Return the number of rows of a table."""
        return self._number(f"SELECT COUNT(*) FROM {table}")

    def add_listed(self, listed: Iterable[Candidate | LeftOut], seed: int) -> None:
        """Store all that a source lists; of two images with the same name, the first is kept."""
        seen: Counter[tuple[str, str]] = Counter()
        for item in listed:
            if isinstance(item, LeftOut):
                self._leave_out(item)
                continue
            info = item.info
            added = self._database.execute(
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
                    info_to_json(info),
                    json.dumps(item.where),
                ),
            )
            if not added.rowcount:
                self._leave_out(LeftOut(info.image_id, Drop.DUPLICATE_ID))
            seen.update((info.dataset, label) for label in item.labels)

        def rarest(dataset: str, labels: str) -> str:
            return min(json.loads(labels), key=lambda label: (seen[dataset, label], label), default="")

        self._database.create_function("rarest", 2, rarest, deterministic=True)
        self._database.execute("UPDATE images SET rarest = rarest(dataset, labels)")

    def _leave_out(self, item: LeftOut) -> None:
        self._database.execute(
            "INSERT INTO left_out VALUES (?, ?, ?)",
            (_storable(item.name), item.reason, _storable(item.detail)),
        )

    def add_names(self, images: Mapping[tuple[str, str, str], int], spelled: Spellings) -> None:
        """Store the source's own names, before any review: their numbers of images, and their spellings.

        images: (dataset, modality, name) -> number of images.
        """
        self._database.executemany(
            "INSERT INTO labels VALUES (?, ?, ?, ?)", ((*key, count) for key, count in images.items())
        )
        self._database.executemany(
            "INSERT INTO spellings VALUES (?, ?, ?)",
            ((*key, spelling) for key, found in spelled.items() for spelling in found),
        )

    def pick(self, count: int, spacing: int = SLICE_SPACING) -> None:
        """Rank the listed images and pick the first `count` (see `sampling.py`)."""
        pick(self._database, count, spacing)

    def left_out_counts(self) -> dict[str, int]:
        """Return the number of images that could not be listed, by reason."""
        return self._counts("SELECT reason, COUNT(*) FROM left_out GROUP BY reason")

    def label_counts(self) -> Iterator[tuple[str, str, str, int]]:
        """Yield (dataset, modality, the source's name of a class, number of listed images)."""
        return self._database.execute("SELECT * FROM labels")

    def label_spellings(self) -> Iterator[tuple[str, str, str]]:
        """Yield (dataset, name of a class, a spelling of it in the source)."""
        return self._database.execute("SELECT * FROM spellings")

    def candidate(self, image_id: str) -> Candidate:
        """Return a listed image."""
        query = "SELECT info, labels, place FROM images WHERE image_id = ?"
        return _candidate(*self._database.execute(query, (image_id,)).fetchone())

    def source_sha256(self) -> str:
        """Return one hash over the listed images and their labels."""
        digest = hashlib.sha256()
        for line in self._database.execute("SELECT image_id, labels FROM images ORDER BY image_id"):
            digest.update("\0".join(line).encode())
        return digest.hexdigest()

    def candidates_to_read(self) -> Iterator[Candidate]:
        """Yield the picked images that are not read yet, the slices of a volume next to each other."""
        rows = self._paged(
            "SELECT image_id FROM images JOIN picked USING (image_id) "
            "WHERE image_id NOT IN (SELECT image_id FROM reads) ORDER BY dataset, volume, slice, image_id",
            "info, labels, place FROM {} JOIN images USING (image_id)",
        )
        for _, *row in rows:
            yield _candidate(*row)

    def add_reads(self, results: Iterable[ReadResult]) -> None:
        """Store images that were read."""
        self._database.executemany(
            "INSERT INTO reads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    result.image_id,
                    result.fault,
                    record_to_json(result.record) if result.record else None,
                    result.image_hash,
                    result.png,
                    json.dumps(result.objects),
                    result.rejected,
                    _storable(result.detail),
                    None if result.runs is None else json.dumps(result.runs),
                )
                for result in results
            ),
        )

    def left_out_rows(self) -> Iterator[LeftOutRow]:
        """Yield the images that were left out, but for those that were not sampled, by name."""
        rows = self._database.execute(
            "SELECT name, reason, detail FROM left_out "
            "UNION ALL SELECT image_id, fault, detail FROM reads WHERE fault NOT NULL "
            "UNION ALL SELECT image_id, ?, refused FROM words WHERE refused NOT NULL ORDER BY 1, 2, 3",
            (Drop.REFUSED_BY_TEACHER,),
        )
        return (LeftOutRow(name, reason, detail, Drop(reason).remedy) for name, reason, detail in rows)

    def fault_counts(self) -> dict[str, int]:
        """Return the number of images that were read and have a fault, by fault."""
        return self._counts("SELECT fault, COUNT(*) FROM reads WHERE fault NOT NULL GROUP BY fault")

    def object_counts(self) -> Iterator[tuple[str, str, str, int]]:
        """Yield (dataset, modality, the source's name of a class, number of objects) of the images that were read."""
        return self._database.execute(
            "SELECT dataset, modality, key, SUM(value) FROM reads JOIN images USING (image_id), json_each(objects) "
            "GROUP BY dataset, modality, key"
        )

    def png(self, image_id: str) -> bytes | None:
        """Return the pixels of an image as a PNG file, or None if the build stores none."""
        row = self._database.execute("SELECT png FROM reads WHERE image_id = ?", (image_id,)).fetchone()
        return row[0] if row else None

    def whole_images(self) -> Iterator[tuple[str, int, bytes]]:
        """Yield (image_id, rank, image_hash) of the images without a fault, by rank."""
        return self._paged(
            "SELECT image_id FROM picked JOIN reads USING (image_id) WHERE fault IS NULL ORDER BY rank",
            "rank, look FROM {} JOIN picked USING (image_id) JOIN reads USING (image_id)",
        )

    def drop_read(self, image_id: str, fault: Drop, detail: str = "") -> None:
        """Mark an image that was read as faulty."""
        self._database.execute(
            "UPDATE reads SET fault = ?, detail = ? WHERE image_id = ?", (fault, detail, image_id)
        )

    def add_chosen(self, image_id: str, rank: int) -> None:
        """Take an image into the dataset; `set_splits` gives it its split."""
        self._database.execute("INSERT INTO chosen VALUES (?, ?, NULL)", (image_id, rank))

    def case_sizes(self) -> dict[str, Counter[tuple[str, str]]]:
        """Return for each case its number of chosen images by (modality, dataset)."""
        cases: dict[str, Counter[tuple[str, str]]] = {}
        for case_id, modality, dataset, count in self._database.execute(
            "SELECT case_id, modality, dataset, COUNT(*) FROM chosen JOIN images USING (image_id) "
            "GROUP BY case_id, modality, dataset"
        ):
            cases.setdefault(case_id, Counter())[modality, dataset] = count
        return cases

    def chosen_counts(self) -> Iterator[tuple[str, str, int]]:
        """Yield (modality, dataset, number of chosen images)."""
        return self._database.execute(
            "SELECT modality, dataset, COUNT(*) FROM chosen JOIN images USING (image_id) "
            "GROUP BY modality, dataset ORDER BY modality, dataset"
        )

    def first_chosen(self, count: int) -> list[str]:
        """Return the first chosen images by rank, which are of as many modalities, datasets and labels as possible."""
        query = "SELECT image_id FROM chosen ORDER BY rank LIMIT ?"
        return [image_id for (image_id,) in self._database.execute(query, (count,))]

    def set_splits(self, splits: Mapping[str, str]) -> None:
        """Give the chosen images their splits. splits: case_id -> split."""
        self._database.execute("CREATE TEMP TABLE case_splits (case_id TEXT PRIMARY KEY, case_split TEXT)")
        self._database.executemany("INSERT INTO case_splits VALUES (?, ?)", splits.items())
        self._database.execute(
            "UPDATE chosen SET split = (SELECT case_split FROM images JOIN case_splits USING (case_id) "
            "WHERE images.image_id = chosen.image_id)"
        )
        self._database.execute("DROP TABLE case_splits")

    def placed_images(self) -> Iterator[PlacedImage]:
        """Yield the chosen images with their splits, by rank."""
        rows = self._database.execute(
            "SELECT image_id, case_id, look, split FROM chosen JOIN reads USING (image_id) "
            "JOIN images USING (image_id) ORDER BY rank"
        )
        return (PlacedImage(*row) for row in rows)

    def chosen_records(
        self, without_dialogue: bool = False, split: Literal["train", "test"] | None = None
    ) -> Iterator[ImageRecord]:
        """Yield the records of the chosen images by rank, optionally of one split or without a stored dialogue only."""
        where = "image_id NOT IN (SELECT image_id FROM words)" if without_dialogue else "TRUE"
        of_split = f"split = '{split}'" if split else "TRUE"
        ids = f"SELECT image_id FROM chosen WHERE {where} AND {of_split} ORDER BY rank"
        for _, text in self._paged(ids, "record FROM {} JOIN reads USING (image_id)"):
            yield record_from_json(text)

    def records_sha256(self) -> str:
        """Return one hash over the records of the chosen images."""
        digest = hashlib.sha256()
        for (text,) in self._database.execute(
            "SELECT record FROM chosen JOIN reads USING (image_id) ORDER BY rank"
        ):
            digest.update(text.encode())
        return digest.hexdigest()

    def add_dialogues(self, results: Iterable[DialogueResult]) -> None:
        """Store what was written about chosen images."""
        self._database.executemany(
            "INSERT INTO words VALUES (?, ?, ?, ?)",
            (
                (
                    result.image_id,
                    result.refused,
                    None if result.rows is None else json.dumps(result.rows),
                    result.rejected,
                )
                for result in results
            ),
        )

    def dialogues(self) -> Iterator[dict[str, Rows]]:
        """Yield the rows of each image with a dialogue, in the order of image ids."""
        for (text,) in self._database.execute("SELECT rows FROM words WHERE rows NOT NULL ORDER BY image_id"):
            yield json.loads(text)

    def refusal_counts(self) -> dict[str, int]:
        """Return the number of chosen images without a dialogue, by reason."""
        return self._counts("SELECT refused, COUNT(*) FROM words WHERE refused NOT NULL GROUP BY refused")

    def published_count(self) -> int:
        """Return the number of images that have a dialogue."""
        return self._number("SELECT COUNT(*) FROM words WHERE refused IS NULL")

    def with_pixels_count(self) -> int:
        """Return the number of chosen images whose pixels are stored."""
        return self._number("SELECT COUNT(*) FROM chosen JOIN reads USING (image_id) WHERE png NOT NULL")

    def images_of_split(self, split: str) -> list[ImageOrder]:
        """Return the images of a split that have a dialogue, by rank."""
        rows = self._database.execute(
            "SELECT image_id, modality, dataset, json_array_length(rows, '$.chat[0].messages') / 2 "
            "FROM chosen JOIN words USING (image_id) JOIN images USING (image_id) "
            "WHERE split = ? AND refused IS NULL ORDER BY rank",
            (split,),
        )
        return [
            ImageOrder(image_id, (modality, dataset), turns) for image_id, modality, dataset, turns in rows
        ]

    def dialogue_of(self, image_id: str) -> tuple[dict[str, Rows], bytes | None]:
        """Return the rows of an image, without pixels, and its PNG file if the build stores one."""
        text, png = self._database.execute(
            "SELECT rows, png FROM words JOIN reads USING (image_id) WHERE image_id = ?", (image_id,)
        ).fetchone()
        return json.loads(text), png

    def runs_of(self, image_id: str) -> dict[str, str]:
        """Return the run lengths of an image's masks by instance id; empty if the build stores none."""
        row = self._database.execute("SELECT runs FROM reads WHERE image_id = ?", (image_id,)).fetchone()
        return json.loads(row[0] or "{}")

    def published_counts(self) -> Iterator[tuple[str, str, str, int]]:
        """Yield (modality, dataset, split, number of images that have a dialogue)."""
        return self._database.execute(
            "SELECT modality, dataset, split, COUNT(*) FROM chosen JOIN images USING (image_id) "
            "JOIN words USING (image_id) WHERE refused IS NULL "
            "GROUP BY modality, dataset, split ORDER BY modality, dataset, split DESC"
        )

    def rejected_counts(self) -> dict[str, int]:
        """Return the numbers of objects and turns that a review removed from published images."""
        objects, turns = self._database.execute(
            "SELECT SUM(reads.rejected), SUM(words.rejected) FROM words JOIN reads USING (image_id) "
            "WHERE refused IS NULL"
        ).fetchone()
        return {"objects": objects or 0, "turns": turns or 0}


def _candidate(info: str, labels: str, place: str) -> Candidate:
    return Candidate(info_from_json(info), tuple(json.loads(labels)), json.loads(place))


def _storable(text: str) -> str:
    """A text without the parts of a file name that are not UTF-8, which SQLite refuses, and without addresses.

    Errors of Pillow name the object that they could not read, with an address that differs in each run.
    """
    return _ADDRESS.sub("", text.encode("utf-8", "backslashreplace").decode())


def _volume_of(info: ImageInfo) -> str:
    return info.image_id if info.slice_index is None else info.image_id.rpartition("_")[0]
