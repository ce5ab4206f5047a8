"""Dialects that write a box as a plain list of numbers in a sentence, `[200, 90, 500, 330]`, without other marks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from ..hub.boxes import Box
from ..hub.grounding import GroundedText, Issue
from .base import Dialect, numbers_of
from .collect import Collector
from .views import View

_NUMBER = r"-?+[0-9]++(?:\.[0-9]++)?+"
_LIST = re.compile(rf"\[\s*+({_NUMBER}(?:\s*+[,;]\s*+{_NUMBER})++)\s*+\]")
_BREAK = re.compile(r"[.,;:\n]")


@dataclass(frozen=True)
class NumberListDialect(Dialect):
    """A box stands behind its words, after a space: `the left kidney [200, 90, 500, 330] is seen`.

    Nothing marks where a phrase begins. `read` takes the words since the last box, full stop, comma, semicolon, colon
    or line break. decimals: places of each number; 0: whole numbers.
    """

    decimals: ClassVar[int] = 0
    separator: ClassVar[str] = ", "
    marks_phrases: ClassVar[bool] = False

    @property
    def markup(self) -> re.Pattern[str]:
        return _LIST

    def describe(self) -> dict[str, str]:
        described = super().describe()
        return described | ({"grid": f"0 to 1, {self.decimals} decimal places"} if self.decimals else {})

    def format_number(self, number: int) -> str:
        """A number of the grid as it is written."""
        return f"{number / 10**self.decimals:.{self.decimals}f}" if self.decimals else str(number)

    def format_box(self, box: Box, view: View) -> str:
        return f"[{self._listed(box, view)}]"

    def _listed(self, box: Box, view: View) -> str:
        return self.separator.join(map(self.format_number, self.numbers(box, view)))

    def _compose(self, answer: GroundedText, view: View) -> str:
        return self.format_question(answer, view)

    def _parse(self, text: str, view: View) -> GroundedText:
        collector = Collector()
        done = 0
        for found in _LIST.finditer(text):
            has_phrase = self._add_words(collector, text[done : found.start()])
            collector.boxes(self._boxes(found[1], view), is_orphan=not has_phrase)
            done = found.end()
        collector.text(text[done:])
        return collector.finish()

    def _add_words(self, collector: Collector, words: str) -> bool:
        """Takes the words before a box, without the space in front of it; returns whether the box has a phrase."""
        words = words.removesuffix(" ")
        collector.text(words)
        start = max((found.end() for found in _BREAK.finditer(words)), default=0)
        phrase = words[start:].strip()
        if phrase:
            end = collector.length - (len(words) - len(words.rstrip()))
            collector.phrase(end - len(phrase), end)
        return collector.ends_in_phrase

    def _boxes(self, content: str, view: View) -> list[Box | Issue]:
        found: list[Box | Issue] = []
        for part in content.split(";"):
            values = [value.strip() for value in part.split(",")]
            numbers = numbers_of(values, whole=not self.decimals)
            if numbers is None:
                found.append(Issue.NOT_FOUR_NUMBERS)
                continue
            a, b, c, d = (value * 10**self.decimals for value in numbers)
            found.append(self.box((a, b, c, d), view))
        return found
