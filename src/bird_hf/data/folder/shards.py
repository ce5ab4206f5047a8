"""The Parquet files of a Med-GRIT folder. This module alone knows their names and how they are written.

    data/TASK/SPLIT-00000-of-00002.parquet

Rows are read and written a few at a time, so memory stays flat. `publish.open_folder` gives random access instead, and
copies the rows into a cache.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

from ...atomic_writes import replacing_file
from ..records import Task
from .mask_column import MASKS, published_features

Row = dict[str, Any]
Rows = list[Row]

SPLITS = ("train", "validation", "test")
_NAME = re.compile(rf"({'|'.join(SPLITS)})-\d{{5}}-of-(\d{{5}})\.parquet")
# Rows of one image stand next to each other and repeat its PNG; zstd finds the repetition in its window.
_COMPRESSION = "zstd"
_GROUP_ROWS = 64
_GROUP_BYTES = 64_000_000  # of image files, if images are large
_SHARD_GROUPS = 256  # per shard of a stream
# A row may have no pixels, slice or objects; every other value must be there.
_MAY_BE_NULL = ("image", "slice")


def shard_path(folder: Path, split: str, number: int, count: int) -> Path:
    """The path of shard `number` (from 0) of the `count` shards of a split."""
    return folder / f"{split}-{number:05d}-of-{count:05d}.parquet"


def shard_pattern(split: str) -> str:
    """A glob pattern of the shards of a split."""
    return f"{split}-*.parquet"


def shards_of(folder: Path, task: Task) -> dict[str, list[Path]]:
    """The files of a task by split, in order; empty if the folder has no such task.

    Raises ValueError if the folder is not a Med-GRIT folder, or files of a split are missing.
    """
    if not (folder / "data").is_dir():
        raise ValueError(f"{folder} is not a Med-GRIT folder; `bird data sample --out {folder}` makes one")
    splits: dict[str, list[Path]] = {}
    for path in sorted((folder / "data" / task.value).glob("*.parquet")):
        if match := _NAME.fullmatch(path.name):
            splits.setdefault(match[1], []).append(path)
    for split, paths in splits.items():
        if paths != [shard_path(paths[0].parent, split, number, len(paths)) for number in range(len(paths))]:
            raise ValueError(
                f"{paths[0].parent}: files of {split} are missing or left over; copy the folder again"
            )
    return {split: splits[split] for split in SPLITS if split in splits}


# --- reading ------------------------------------------------------------------------------------------------------


def stream_rows(paths: Sequence[Path], columns: Sequence[str]) -> Iterator[Row]:
    """Yields the rows of files with these columns only; `image` is {"bytes", "path"} or None.

    Raises ValueError if a file is not a Med-GRIT shard, or a row lacks a value.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    expected = published_features(masks=True).arrow_schema
    for path in paths:
        try:
            with pq.ParquetFile(path) as shard:
                for name in columns:
                    place = shard.schema_arrow.get_field_index(name)
                    if place < 0 or shard.schema_arrow.field(place).type != expected.field(name).type:
                        raise ValueError(
                            f"{path} is not a Med-GRIT file: it has no column {name!r} of the expected type"
                        )
                number = 0
                for batch in shard.iter_batches(_GROUP_ROWS, columns=list(columns)):
                    for row in batch.to_pylist():
                        _check_complete(row, path, number)
                        yield row
                        number += 1
        except (OSError, pa.ArrowException) as error:
            raise ValueError(
                f"{path} is not a complete Parquet file ({type(error).__name__}); copy the folder again"
            ) from error


def read_row(path: Path, number: int, columns: Sequence[str]) -> Row:
    """One row of a file that `stream_rows` has read, by its number from 0; only its row group is read."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as shard:
        for place in range(shard.metadata.num_row_groups):
            rows = shard.metadata.row_group(place).num_rows
            if number < rows:
                group = shard.read_row_group(place, columns=list(columns))
                return group.slice(number, 1).to_pylist()[0]
            number -= rows
    raise ValueError(f"{path} has no such row; the file was changed while it was read")


def _check_complete(row: Row, path: Path, number: int) -> None:
    missing = [name for name, value in row.items() if value is None and name not in _MAY_BE_NULL]
    for name, keys in (("messages", ("role", "content")), ("objects", ("instance_id", "label", "present"))):
        items = row.get(name) or ()
        missing += [name for item in items if item is None or any(item[key] is None for key in keys)]
    if missing:
        raise ValueError(f"{path}, row {number}: {missing[0]} is missing; the file cannot be trusted")


# --- writing ------------------------------------------------------------------------------------------------------


class ShardWriter:
    """Writes the shards of one split, one after another. `close` gives them their names, which hold their number.

    rows, shards: how many were written so far.
    """

    def __init__(self, folder: Path, split: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.split = folder, split
        self.rows = self.shards = 0

    def write(self, rows: Iterable[Row]) -> None:
        """Write one shard."""
        self.write_groups(_groups(rows))

    def write_groups(self, groups: Iterable[Rows]) -> None:
        """Write one shard, with a row group for each group of rows."""
        self.rows += _write_parquet(groups, self._unnamed(self.shards))
        self.shards += 1

    def close(self) -> None:
        """Rename the shards to their final names."""
        for number in range(self.shards):
            self._unnamed(number).rename(shard_path(self.folder, self.split, number, self.shards))

    def _unnamed(self, number: int) -> Path:
        return self.folder / f"{self.split}-{number:05d}.parquet"


def write_shard(rows: Iterable[Row], path: Path) -> None:
    """Write one Parquet file; it appears under its name when it is complete."""
    _write_parquet(_groups(rows), path)


def write_shards(rows: Sequence[Row], folder: Path, split: str, count: int) -> None:
    """Write rows as `count` shards of a split (fewer if there are fewer rows), in order."""
    count = max(1, min(count, len(rows)))
    writer = ShardWriter(folder, split)
    for start, stop in pairwise(len(rows) * number // count for number in range(count + 1)):
        writer.write(rows[start:stop])
    writer.close()


def write_stream(rows: Iterable[Row], folder: Path, split: str) -> int:
    """Write rows as shards of a split while they arrive; returns the number of rows."""
    writer = ShardWriter(folder, split)
    groups = _groups(rows, _GROUP_BYTES)
    for first in groups:
        writer.write_groups(chain([first], islice(groups, _SHARD_GROUPS - 1)))
    writer.close()
    return writer.rows


def _write_parquet(groups: Iterable[Rows], path: Path) -> int:
    """Write groups of rows as one Parquet file, with masks if the first row has them; returns the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups = iter(groups)
    first = next(groups, [])
    schema = published_features(bool(first) and MASKS in first[0]).arrow_schema
    groups = chain([first] if first else [], groups)
    del first  # it may hold many images
    count = 0
    with (
        replacing_file(path) as making,
        pq.ParquetWriter(making, schema, compression=_COMPRESSION) as shard,
    ):
        for group in groups:
            shard.write_table(pa.Table.from_pylist(group, schema=schema))
            count += len(group)
    return count


def _groups(rows: Iterable[Row], max_bytes: float = math.inf) -> Iterator[Rows]:
    """Groups of 64 rows; a group ends earlier when its images reach `max_bytes`."""
    group: Rows = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row["image"]["bytes"] or b"") if row["image"] else 0
        if len(group) == _GROUP_ROWS or size >= max_bytes:
            yield group
            group, size = [], 0
    if group:
        yield group
