"""The rows of a file that was made anywhere: Parquet, JSON, JSON lines, CSV, TSV or COCO. It is not trusted."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...hub.pixels import MAX_PIXELS
from ..masks import corners_of_mask
from ..original.json_list import read_list
from ..sources.box_tables import MAX_TABLE_BYTES
from ..sources.coco import has_outline, mask_of
from ..sources.coco_file import CocoFile, CocoObject
from .marks import Corners, checked_size, number_of

_LONGEST_LINE = 16_000_000  # bytes
_ROWS_PER_BATCH = 64
_LONGEST_FIELD = 100_000  # characters of a CSV file
_DELIMITERS = ",;\t"
_MOST_POINTS = 10_000  # numbers of a polygon


@dataclass(frozen=True)
class FileRow:
    """A row. place: in words, such as `row 12`. outlines: boxes of its masks, half-open pixels; slack_px: how far they
    may be off.
    """

    place: str
    content: Mapping[str, Any]
    size_wh: tuple[int, int] | None = None
    outlines: tuple[Corners, ...] = ()
    slack_px: float = 0.0


@dataclass
class RowFile:
    """A file, read once from its beginning to its end. skipped: rows that could not be read; first_skipped: of them."""

    path: Path
    skipped: int = 0
    first_skipped: str = ""
    kind: str = field(default="", init=False)

    def rows(self) -> Iterator[FileRow]:
        """Raises ValueError, in one line, if the file is missing, empty, too large or of no known kind."""
        if not self.path.is_file():
            raise ValueError(f"{self.path}: no such file; give Parquet, JSON, JSON lines, CSV, TSV or COCO")
        if self.path.stat().st_size == 0:
            raise ValueError(f"{self.path} is empty; copy it again")
        ending = self.path.suffix.lower()
        if ending == ".parquet":
            self.kind = "Parquet"
            return self._parquet()
        if ending in (".csv", ".tsv"):
            self.kind = "table"
            return self._table()
        return self._json()

    def _skip(self, place: str, why: object) -> None:
        self.skipped += 1
        self.first_skipped = self.first_skipped or f"{place}: {' '.join(str(why).split())[:200]}"

    def _parquet(self) -> Iterator[FileRow]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        try:
            with pq.ParquetFile(self.path) as file:
                names = [each for each in file.schema_arrow.names if each != "image"]
                # Pixels are read only if nothing else tells the size of the picture.
                columns = None if "image_wh" not in names else names
                for batch in file.iter_batches(_ROWS_PER_BATCH, columns=columns):
                    for row in batch.to_pylist():
                        number += 1
                        yield _with_masks(f"row {number}", row)
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{self.path} is not a whole Parquet file ({reason}); copy it again") from error

    def _table(self) -> Iterator[FileRow]:
        if self.path.stat().st_size > MAX_TABLE_BYTES:
            raise ValueError(f"{self.path} is larger than {MAX_TABLE_BYTES:,} bytes; split it")
        with self.path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            first = file.readline(_LONGEST_FIELD)
            delimiter = max(_DELIMITERS, key=first.count)  # files of either ending hold any
            file.seek(0)
            lines = csv.reader((line.replace("\0", "") for line in file), delimiter=delimiter)
            header: list[str] | None = None
            while True:
                try:
                    fields = next(lines, None)
                except csv.Error as error:
                    self._skip(f"line {lines.line_num}", error)
                    continue
                if fields is None:
                    return
                if header is None:
                    header = [name.strip() for name in fields]
                elif any(fields):
                    cells = zip(header, (cell.strip()[:_LONGEST_FIELD] for cell in fields), strict=False)
                    yield FileRow(f"line {lines.line_num}", _parsed(dict(cells)))

    def _json(self) -> Iterator[FileRow]:
        with self.path.open("rb") as file:
            start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
            file.seek(0)
            first = file.readline(_LONGEST_LINE + 1)
            more = bool(file.read(65536).strip())
        if start == b"[":
            self.kind = "JSON list"
            return self._json_list()
        if (
            start == b"{"
            and (more or self.path.suffix.lower() in (".jsonl", ".ndjson"))
            and _is_object(first)
        ):
            self.kind = "JSON lines"
            return self._json_lines()
        if start == b"{":
            return self._json_object()
        raise ValueError(
            f"{self.path} is not Parquet, JSON, JSON lines, CSV, TSV or COCO (its ending tells which)"
        )

    def _json_list(self) -> Iterator[FileRow]:
        for number, entry in read_list(self.path):
            if isinstance(entry, dict):
                yield _with_masks(f"entry {number}", entry)
            else:
                self._skip(f"entry {number}", "not a JSON object")

    def _json_lines(self) -> Iterator[FileRow]:
        with self.path.open("rb") as file:
            number = 0
            while line := file.readline(_LONGEST_LINE + 1):
                number += 1
                place = f"line {number}"
                if len(line) > _LONGEST_LINE:
                    self._skip(place, f"longer than {_LONGEST_LINE:,} bytes")
                    while line and not line.endswith(b"\n"):
                        line = file.readline(_LONGEST_LINE + 1)
                    continue
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    self._skip(place, error)
                    continue
                if isinstance(row, dict):
                    yield _with_masks(place, row)
                else:
                    self._skip(place, "not a JSON object")

    def _json_object(self) -> Iterator[FileRow]:
        """COCO, or one row."""
        if self.path.stat().st_size > MAX_TABLE_BYTES:
            raise ValueError(f"{self.path} is larger than {MAX_TABLE_BYTES:,} bytes; split it")
        try:
            content = json.loads(self.path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path} is not JSON ({str(error)[:200]})") from error
        if not {"images", "annotations"} <= {*content}:
            self.kind = "JSON object"
            yield _with_masks("the object", content)
            return
        del content
        self.kind = "COCO"
        file = CocoFile.read(self.path.parent, self.path.name, "")
        for image, objects in file.objects.items():
            known = file.images.get(image)
            marked_wh = file.marked_wh(image) if known else None
            size = checked_size(*marked_wh) if marked_wh else None
            for each in objects:
                outline, slack = _outline(each, size)
                content = {"bbox": each.bbox, "file_name": known.file_name if known else ""}
                yield FileRow(f"annotation {each.annotation}", content, size, outline, slack)


def _with_masks(place: str, row: Mapping[str, Any]) -> FileRow:
    """A row with the boxes of its column `masks`, if it has one of run lengths."""
    found: list[Corners] = []
    masks = row.get("masks")
    for each in masks[:64] if isinstance(masks, list) else ():
        if isinstance(each, dict) and each.get("counts") is not None:
            found += _mask_boxes(each)
    return FileRow(place, row, outlines=tuple(dict.fromkeys(found)))


def _outline(each: CocoObject, size: tuple[int, int] | None) -> tuple[tuple[Corners, ...], float]:
    """The box of an object's outline and how far it may be off: a polygon's corners lie on or between pixels."""
    if each.crowd or not has_outline(each.segmentation):
        return (), 0.0
    if isinstance(each.segmentation, dict):
        return tuple(_mask_boxes(each.segmentation)[:1]), 0.0
    points = [
        number_of(value)
        for polygon in each.segmentation
        if isinstance(polygon, list)
        for value in polygon[:_MOST_POINTS]
    ]
    if size is None or len(points) < 6 or any(point is None for point in points):
        return (), 0.0
    x, y = np.array(points[0::2], float), np.array(points[1::2], float)
    if len(x) != len(y):
        return (), 0.0
    return ((float(x.min()), float(y.min()), float(x.max()), float(y.max())),), 1.0


def _mask_boxes(segmentation: Mapping[str, Any]) -> list[Corners]:
    size = segmentation.get("size")
    wh = checked_size(*size[::-1]) if isinstance(size, list) and len(size) == 2 else None
    if wh is None or wh[0] * wh[1] > MAX_PIXELS:
        return []
    try:
        x1, y1, x2, y2 = corners_of_mask(mask_of(dict(segmentation), (wh[1], wh[0])))
    except (ValueError, KeyError, TypeError, OverflowError):  # malformed, or empty
        return []
    return [(float(x1), float(y1), float(x2), float(y2))]


def _parsed(row: dict[str, str]) -> dict[str, Any]:
    """A row of a table, with cells such as `[1, 2, 3, 4]` as lists."""
    return {name: _list_of(cell) if cell[:1] == "[" else cell for name, cell in row.items()}


def _list_of(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
