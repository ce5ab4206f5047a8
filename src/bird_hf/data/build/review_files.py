"""The two tables of a review, as CSV files for any spreadsheet program.

    OUT/review/labels.csv     one line per class name of a dataset: accept, reject, or rename to new_name
    OUT/review/replies.csv    one line per question and answer: accept or reject

Reviewers fill in decision, new_name and comment only; an empty decision accepts.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..folder.spreadsheet import unescape
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
# A whole sha256: a short one may look like a number (12e45), which a spreadsheet would reformat.
_KEY = re.compile(r"[0-9a-f]{64}")
_DELIMITERS = ",;\t"  # spreadsheets write different ones in different languages

Line = dict[str, str]


def read_review(folder: Path) -> Review:
    """Read the decisions in a folder; an empty Review if it has no tables.

    Raises ValueError, naming the file, the line and the remedy, if a decision cannot be understood.
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
    """Read the lines of a table by column; an empty list if there is no file. Raises ValueError for a faulty table."""
    return [line for _, line in _lines(path, columns)]


def _lines(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Line]]:
    """Yield ("FILE, line N", cells by column). Raises ValueError for a faulty table, or a key that occurs twice."""
    if not path.is_file():
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
        head = text.partition("\n")[0]
        table = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=head.count))
        rows = [(table.line_num, row) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV table: {error}; save it as CSV in UTF-8") from error
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
                f"{where}: the key was changed or occurs twice; leave the keys as they were written"
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
        raise ValueError(f"{where}: new_name {new[:40]!r} is not a usable name ({error.reason})") from error
