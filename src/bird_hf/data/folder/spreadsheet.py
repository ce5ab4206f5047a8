"""CSV tables that any spreadsheet program opens, and in which no cell is a formula."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...atomic_writes import replacing_file

_FORMULA = tuple("=+-@\t\r")  # a cell that begins so is a formula to a spreadsheet


def write_table(
    path: Path, columns: Sequence[str], lines: Iterable[Mapping[str, str]], mark: bool = True
) -> None:
    """Write a table, replacing an existing one atomically.

    mark: with a byte order mark, without which Excel assumes a local encoding; programs may take it for a letter.
    """
    encoding = "utf-8-sig" if mark else "utf-8"
    with replacing_file(path) as making, making.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([escape(line[name]) for name in columns] for line in lines)


def escape(cell: str) -> str:
    """Return a cell that no spreadsheet treats as a formula; `unescape` reverses it."""
    return f"'{cell}" if cell.lstrip("'").startswith(_FORMULA) else cell


def unescape(cell: str) -> str:
    """Return the cell that was passed to `escape`."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell
