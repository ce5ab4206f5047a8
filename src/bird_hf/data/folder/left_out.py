"""`left_out.csv`: which images of a source were left out, why, and what to do about each.

The file names are those of the source. Cells that a spreadsheet would read as a formula begin with an apostrophe.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from .spreadsheet import unescape, write_table

LEFT_OUT = "left_out.csv"
_SHOWN = 3
_LONGEST_CELL = 300


class LeftOutRow(NamedTuple):
    """An image that was left out. detail: the values, names or sizes that were found."""

    image: str
    reason: str
    detail: str
    what_to_do: str

    def __str__(self) -> str:
        found = f" ({self.detail})" if self.detail else ""
        return f"left out: {self.image}, {self.reason}{found}: {self.what_to_do}"


def write_left_out(rows: Iterable[LeftOutRow], path: Path) -> None:
    """Write the file row by row, replacing an existing one atomically; cells are one printable line each."""
    write_table(
        path,
        LeftOutRow._fields,
        ({name: _line(cell) for name, cell in row._asdict().items()} for row in rows),
        mark=False,
    )


def left_out_lines(path: Path, count: int) -> list[str]:
    """Return the lines to print about a file of `count` rows: its first three, and where all are."""
    if not count:
        return []
    with path.open(encoding="utf-8", newline="") as file:
        first = [LeftOutRow(*map(unescape, cells)) for cells in islice(csv.reader(file), 1, 1 + _SHOWN)]
    more = f"{count - len(first):,} more, " if count > len(first) else ""
    return [*map(str, first), f"left out: {more}see {path}"]


def _line(cell: str) -> str:
    """A cell without line breaks and control characters, of up to 300 characters."""
    text = " ".join(cell.split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 3]}..."
