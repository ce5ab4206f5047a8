"""The two tables that people decide in, as CSV that any spreadsheet opens: read, checked and written.

    OUT/review/labels.csv     a line a name in a dataset: accept, reject, or rename to new_name
    OUT/review/replies.csv    a line a question and its answer: accept or reject

Only decision, new_name and comment are for people to fill in; an empty decision accepts.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..sources.faults import FaultyImageError
from ..sources.label_names import clean_label
from .review import Review, hash_of_name

LABELS, REPLIES = "labels.csv", "replies.csv"
LABEL_COLUMNS = (
    "key",
    "dataset",
    "modality",
    "written_as",
    "name",
    "images",
    "objects",
    "decision",
    "new_name",
    "comment",
)
REPLY_COLUMNS = ("key", "image_id", "modality", "task", "question", "answer", "decision", "comment")
_LONGEST_COMMENT = 200
# All of a sha256: a short one may look like a number (12e45), which a spreadsheet would write in its own way.
_KEY = re.compile(r"[0-9a-f]{64}")
_FORMULA = tuple("=+-@\t\r")  # what a spreadsheet takes for a formula
_DELIMITERS = ",;\t"  # of spreadsheets in different languages

Line = dict[str, str]


def read_review(folder: Path) -> Review:
    """The decisions in a folder; none where it has no tables.

    Raises ValueError, in one line, with the file, the line and what to do, where one cannot be understood.
    """
    names: dict[tuple[str, str], str | None] = {}
    for where, line in _lines(folder / LABELS, LABEL_COLUMNS):
        key = line["dataset"], line["name"]
        if line["key"] != hash_of_name(*key):
            raise ValueError(
                f"{where}: the key is not that of {key[1]!r} in {key[0]!r}, an unknown label; leave key, "
                "dataset and name as they were written"
            )
        names[key] = _name_to_use(where, line)
    turns: dict[str, str] = {}
    for where, line in _lines(folder / REPLIES, REPLY_COLUMNS):
        if _decision(where, line, "accept", "reject") == "reject":
            turns[line["key"]] = " ".join(line["comment"].split())[:_LONGEST_COMMENT]
    return Review(names, turns)


def read_table(path: Path, columns: Sequence[str]) -> list[Line]:
    """The lines of a table as they stand, by column; none where there is no file. Raises ValueError."""
    return [line for _, line in _lines(path, columns)]


def write_table(path: Path, columns: Sequence[str], lines: Iterable[Mapping[str, str]]) -> None:
    """Write a table; it appears under its name when it is whole."""
    making = path.with_suffix(".making")
    # A mark at the head, without which Excel takes the letters for those of one language.
    with making.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([escape(line[name]) for name in columns] for line in lines)
    making.replace(path)


def escape(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula; `unescape` gives it back."""
    return f"'{cell}" if cell.lstrip("'").startswith(_FORMULA) else cell


def unescape(cell: str) -> str:
    """The cell that `escape` was given."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell


def _lines(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Line]]:
    """(file and line, cells by column). Each key stands there once."""
    if not path.is_file():
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
        head = text.partition("\n")[0]
        table = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=head.count))
        rows = [(table.line_num, row) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table: {error}; save it as CSV in UTF-8") from error
    order = [cell.strip() for cell in rows[0][1]] if rows else []
    if missing := [name for name in columns if name not in order]:
        raise ValueError(
            f"{path} has no column {missing[0]!r}; its first line must name {', '.join(columns)}"
        )
    seen: set[str] = set()
    for number, row in rows[1:]:
        if not any(cell.strip() for cell in row):
            continue
        where = f"{path}, line {number}"
        cells = dict(zip(order, map(unescape, row), strict=False))
        line = {name: cells.get(name, "").strip() for name in columns}
        if not _KEY.fullmatch(line["key"]) or line["key"] in seen:
            raise ValueError(
                f"{where}: the key is changed, or there twice; leave the keys as they were written"
            )
        seen.add(line["key"])
        yield where, line


def _decision(where: str, line: Line, *known: str) -> str:
    decision = line["decision"].lower() or "accept"
    if decision not in known:
        raise ValueError(f"{where}: decision {line['decision'][:40]!r} is unknown; use {', '.join(known)}")
    return decision


def _name_to_use(where: str, line: Line) -> str | None:
    decision, new = _decision(where, line, "accept", "reject", "rename"), line["new_name"]
    if (decision == "rename") != bool(new):
        raise ValueError(f"{where}: a new_name and the decision rename go together; give both, or neither")
    if decision == "reject":
        return None
    try:
        return clean_label(line["dataset"], new) if new else line["name"]
    except FaultyImageError as error:
        raise ValueError(f"{where}: new_name {new[:40]!r} is no usable name ({error.reason})") from error
