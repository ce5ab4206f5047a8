"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_SPECIAL = "\\|`*_[]<>"


class Markup(str):
    """Text that is Markdown already, such as `**mean**`; `table` does not escape it."""


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table with one line per row.

    Integers get thousands separators. Text is escaped: no label can end its cell or become markup; an empty text is
    shown as "(none)".
    """
    lines = [header, [Markup("---")] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, Markup):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    text = " ".join(str(value).split())
    return "".join(f"\\{letter}" if letter in _SPECIAL else letter for letter in text) or "(none)"
