"""The Parquet files of a Med-GRIT folder, read and written a few rows at a time: memory stays flat.

`publish.open_folder` gives random access and copies the rows into a cache; this needs neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ..records import Task, row_features

Row = dict[str, Any]

_NAME = re.compile(r"(train|validation|test)-\d{5}-of-(\d{5})\.parquet")
_GROUP_ROWS = 64
_GROUP_BYTES = 64_000_000  # of pixels, where pictures are large
_SHARD_GROUPS = 256
# A row may be without pixels, slice or objects; nothing else may be missing.
_MAY_BE_NULL = ("image", "slice")


def shards_of(folder: Path, task: Task) -> dict[str, list[Path]]:
    """The files of a task by split, in order; empty where the folder has no such task.

    Raises ValueError where the folder is no Med-GRIT folder, or files of a split are missing.
    """
    if not (folder / "data").is_dir():
        raise ValueError(f"{folder} is no Med-GRIT folder; `bird data sample --out {folder}` makes one")
    splits: dict[str, list[Path]] = {}
    for path in sorted((folder / "data" / task.value).glob("*.parquet")):
        if match := _NAME.fullmatch(path.name):
            splits.setdefault(match[1], []).append(path)
    for split, paths in splits.items():
        whole = [f"{split}-{number:05d}-of-{len(paths):05d}.parquet" for number in range(len(paths))]
        if [path.name for path in paths] != whole:
            raise ValueError(
                f"{paths[0].parent}: files of {split} are missing or left over; copy the folder again"
            )
    order = ("train", "validation", "test")
    return {split: splits[split] for split in order if split in splits}


def stream_rows(paths: Sequence[Path], columns: Sequence[str]) -> Iterator[Row]:
    """The rows of files one by one, with these columns only; `image` comes as {"bytes", "path"} or None.

    Raises ValueError, in one line, for a file that is no part of Med-GRIT or a row that lacks a value.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    expected = row_features().arrow_schema
    for path in paths:
        try:
            with pq.ParquetFile(path) as shard:
                for name in columns:
                    place = shard.schema_arrow.get_field_index(name)
                    if place < 0 or shard.schema_arrow.field(place).type != expected.field(name).type:
                        raise ValueError(
                            f"{path} is no part of Med-GRIT: it has no column {name!r} of its form"
                        )
                number = 0
                for batch in shard.iter_batches(_GROUP_ROWS, columns=list(columns)):
                    for row in batch.to_pylist():
                        yield _whole(row, path, number)
                        number += 1
        except (OSError, pa.ArrowException) as error:
            raise ValueError(
                f"{path} is no whole Parquet file ({type(error).__name__}); copy the folder again"
            ) from error


def read_row(path: Path, number: int, columns: Sequence[str]) -> Row:
    """One row of a file that `stream_rows` has read, by its number from 0: only its row group is read."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as shard:
        for place in range(shard.metadata.num_row_groups):
            rows = shard.metadata.row_group(place).num_rows
            if number < rows:
                group = shard.read_row_group(place, columns=list(columns))
                return group.slice(number, 1).to_pylist()[0]
            number -= rows
    raise ValueError(f"{path} has no such row; it was changed meanwhile")


def write_stream(rows: Iterable[Row], folder: Path, split: str) -> int:
    """Write rows as SPLIT-0000i-of-0000n.parquet files in `folder` as they come; returns their number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    schema = row_features().arrow_schema
    making: list[Path] = []
    count = 0
    groups = _groups(rows)
    for first in groups:  # a round writes one file
        making.append(folder / f"{split}-{len(making):05d}.making")
        with pq.ParquetWriter(making[-1], schema, compression="zstd") as shard:
            for group in chain([first], islice(groups, _SHARD_GROUPS - 1)):
                shard.write_table(pa.Table.from_pylist(group, schema=schema))
                count += len(group)
    for number, path in enumerate(making):
        path.rename(folder / f"{split}-{number:05d}-of-{len(making):05d}.parquet")
    return count


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in groups that fit into memory."""
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row["image"]["bytes"] or b"") if row["image"] else 0
        if len(group) == _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _whole(row: Row, path: Path, number: int) -> Row:
    missing = [name for name, value in row.items() if value is None and name not in _MAY_BE_NULL]
    for name, keys in (("messages", ("role", "content")), ("objects", ("instance_id", "label", "present"))):
        items = row.get(name) or ()
        missing += [name for item in items if item is None or any(item[key] is None for key in keys)]
    if missing:
        raise ValueError(f"{path}, row {number}: {missing[0]} is missing; this file cannot be trusted")
    return row
