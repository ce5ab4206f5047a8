"""Read a JSON list one entry at a time, so that memory stays flat for files of any size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_ENTRY_CHARS = 1_000_000
_BLANK = " \t\r\n"


def read_list(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields (number, entry) of every entry of the list in a file; numbers begin at 1.

    Raises ValueError, with file and entry, if the file is not a JSON list in UTF-8, a key is twice in an object, a
    number is not finite, or an entry is longer than a million characters.
    """
    try:
        with path.open(encoding="utf-8-sig") as stream:
            yield from _EntryReader(path, stream)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error.reason}); it must be a JSON list") from error


class _EntryReader:
    """Decodes entries from a buffer that is longer than any entry, so that each is decoded only once."""

    def __init__(self, path: Path, stream: Any) -> None:
        self.path, self.stream = path, stream
        self.text, self.at, self.ended = "", 0, False
        self.decoder = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        if self._next_mark() != "[":
            raise ValueError(f"{self.path} is not a JSON list; original files are lists of entries")
        self.at += 1
        number = 0
        if self._next_mark() == "]":
            self.at += 1
        else:
            mark = ","
            while mark == ",":
                number += 1
                self._next_mark()
                yield number, self._entry(number)
                mark = self._next_mark()
                self.at += 1
            if mark != "]":
                raise ValueError(
                    f"{self.path}, after entry {number}: {mark or 'the end'!r} instead of , or ]"
                )
        if self._next_mark():
            raise ValueError(f"{self.path}: text follows the end of the list")

    def _entry(self, number: int) -> Any:
        try:
            entry, end = self.decoder.raw_decode(self.text, self.at)
        except RecursionError:
            raise ValueError(f"{self.path}, entry {number}: nested too deeply") from None
        except ValueError as error:
            reason = getattr(error, "msg", error)
            cut = "" if self.ended else f", or longer than {MAX_ENTRY_CHARS:,} characters"
            raise ValueError(f"{self.path}, entry {number}: not JSON ({reason}){cut}") from None
        if end - self.at > MAX_ENTRY_CHARS:
            raise ValueError(f"{self.path}, entry {number}: longer than {MAX_ENTRY_CHARS:,} characters")
        self.at = end
        return entry

    def _next_mark(self) -> str:
        """Skip blanks and fill the buffer; returns the next character, or "" at the end of the file."""
        while True:
            if not self.ended and len(self.text) - self.at <= MAX_ENTRY_CHARS:
                more = self.stream.read(MAX_ENTRY_CHARS)
                self.text, self.at, self.ended = self.text[self.at :] + more, 0, not more
            while self.at < len(self.text) and self.text[self.at] in _BLANK:
                self.at += 1
            if self.ended or len(self.text) - self.at > MAX_ENTRY_CHARS:
                return self.text[self.at : self.at + 1]


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
