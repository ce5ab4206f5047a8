"""Tables in Markdown, and reports made of text, lists and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_SPECIAL = "\\|`*_[]<>"


class Markup(str):
    """Text that is Markdown already, such as `**mean**`; `table` does not escape it."""


@dataclass(frozen=True)
class Cell:
    """A cell with a number in brackets and a second line; in Markdown the second lines are a row of their own."""

    text: str
    count: str = ""
    below: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.count})" if self.count else self.text


@dataclass(frozen=True)
class Table:
    """A table for Markdown (`str`) and for HTML templates.

    below: the first cell of the rows that hold the second lines of cells. marked: numbers of the rows that a page sets
    apart, because their figures were published by others.
    """

    header: Sequence[object]
    rows: Sequence[Sequence[object]]
    below: str = ""
    marked: frozenset[int] = field(default_factory=frozenset)

    def __str__(self) -> str:
        lines: list[Sequence[object]] = []
        for row in self.rows:
            lines.append(row)
            second = [cell.below if isinstance(cell, Cell) else "" for cell in row]
            if any(second):
                lines.append([self.below, *(Markup(plain(text)) for text in second[1:])])
        return table(self.header, lines)


# Of a report: a paragraph, whose `code` may stand in backticks; a list; a table.
Part = str | Sequence[str] | Table


@dataclass(frozen=True)
class Section:
    """A heading with its level, and what stands below it; without a title no heading."""

    title: str
    parts: Sequence[Part]
    level: int = 2


def render(sections: Iterable[Section]) -> str:
    """The sections of a report as Markdown."""
    blocks = []
    for section in sections:
        if section.title:
            blocks.append(f"{'#' * section.level} {escaped(section.title)}")
        blocks += map(rendered, section.parts)
    return "\n\n".join(blocks) + "\n"


def rendered(part: Part) -> str:
    """A part of a report as Markdown."""
    return str(part) if isinstance(part, str | Table) else "\n".join(f"- {line}" for line in part)


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table with one line per row.

    Integers get thousands separators. Text is escaped: no label can end its cell or become markup; an empty text is
    shown as "(none)".
    """
    lines = [header, [Markup("---")] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def plain(value: object) -> str:
    """What a cell shows, on one line and not escaped; integers get thousands separators."""
    return f"{value:,}" if isinstance(value, int) else " ".join(str(value).split())


def code(text: str) -> str:
    """Text between backticks, which it cannot end."""
    return f"`{plain(text).replace('`', chr(39))}`"


def escaped(text: str) -> str:
    """Text on one line that cannot become markup."""
    return "".join(f"\\{letter}" if letter in _SPECIAL else letter for letter in plain(text))


def _cell(value: object) -> str:
    if isinstance(value, Markup):
        return str(value)
    return plain(value) if isinstance(value, int) else escaped(str(value)) or "(none)"
