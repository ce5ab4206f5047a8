"""A SQLite file whose content is written in stages, each of which runs once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PAGE = 256  # images per query of `_paged`
_STAGES = "CREATE TABLE IF NOT EXISTS stages (name TEXT PRIMARY KEY);"


class StageDatabase:
    """A database with the given tables and a record of the stages that are done."""

    def __init__(self, path: Path, tables: str) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._queues = 0
        # With a write-ahead log, killing the program loses nothing even without fsync; a crash of the machine may.
        self._database.executescript(
            f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {_STAGES} {tables}"
        )

    def close(self) -> None:
        self._database.close()

    def is_done(self, stage: str) -> bool:
        return bool(self._database.execute("SELECT 1 FROM stages WHERE name = ?", (stage,)).fetchone())

    def finish(self, stage: str) -> None:
        """Mark a stage as done."""
        self._database.execute("INSERT OR IGNORE INTO stages VALUES (?)", (stage,))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block writes, or nothing if it raises."""
        self._database.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def stage(self, name: str) -> Iterator[bool]:
        """Run a stage in one transaction; yields False if it is already done."""
        if self.is_done(name):
            yield False
            return
        with self.transaction():
            yield True
            self.finish(name)

    def add_column(self, table: str, column: str, kind: str) -> None:
        """Add a column to a table that an earlier version made without it."""
        names = [row[1] for row in self._database.execute(f"PRAGMA table_info({table})")]
        if column not in names:
            self._database.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")

    def _number(self, query: str) -> int:
        return int(self._database.execute(query).fetchone()[0])

    def _counts(self, query: str) -> dict[str, int]:
        return dict(sorted(self._database.execute(query)))

    def _paged(self, image_ids: str, columns: str) -> Iterator[tuple[Any, ...]]:
        """Yield (image_id, the columns) of the images of a query, in its order, a page at a time.

        columns: "a, b FROM {} JOIN ...", with {} for the query's images. The query runs once, at the first row, so that
        later writes do not change its result, and memory does not grow with the number of images.
        """
        self._queues += 1
        queue = f"queue_{self._queues}"
        self._database.execute(f"CREATE TEMP TABLE {queue} (position INTEGER PRIMARY KEY, image_id TEXT)")
        self._database.execute(f"INSERT INTO {queue} (image_id) {image_ids}")
        page = f"SELECT position, image_id, {columns.format(queue)} WHERE position > ? ORDER BY position LIMIT {_PAGE}"
        last = 0
        while rows := self._database.execute(page, (last,)).fetchall():
            yield from (row[1:] for row in rows)
            last = rows[-1][0]
        self._database.execute(f"DROP TABLE {queue}")
