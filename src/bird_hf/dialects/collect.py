"""Clean text, spans and issues, gathered from left to right by the readers of all dialects."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..hub.boxes import Box
from ..hub.grounding import GroundedText, Issue, Span

_SURROGATE = re.compile("[\ud800-\udfff]")


def without_surrogates(text: str) -> str:
    """Text of a JSON document as it can be written in UTF-8: an escape such as `\\ud83d` is half a character."""
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


class Collector:
    """Takes text and boxes in the order in which they are read."""

    def __init__(self) -> None:
        self.issues: list[Issue] = []
        self.length = 0  # of the text so far
        self._pieces: list[str] = []
        self._ranges: list[tuple[int, int]] = []  # of each span in the text
        self._boxes: list[list[Box]] = []  # of each span

    @property
    def has_phrases(self) -> bool:
        """Whether there was a phrase, or a box without one."""
        return bool(self._ranges)

    @property
    def ends_in_phrase(self) -> bool:
        """Whether nothing follows the last phrase."""
        return bool(self._ranges) and self._ranges[-1][0] < self._ranges[-1][1] == self.length

    def text(self, piece: str) -> None:
        """Appends words."""
        if piece:
            self._pieces.append(piece)
        self.length += len(piece)

    def phrase(self, start: int, end: int) -> None:
        """Makes a span of the text `start:end`; the boxes that follow belong to it."""
        self._ranges.append((start, end))
        self._boxes.append([])

    def boxes(self, found: Sequence[Box | Issue], is_orphan: bool = False) -> None:
        """Gives boxes to the last phrase; without one, or if `is_orphan`, they get a span with an empty phrase."""
        self.issues += [each for each in found if isinstance(each, Issue)]
        boxes = [each for each in found if isinstance(each, Box)]
        if not boxes:
            return
        here = (self.length, self.length)
        if not self._ranges or (is_orphan and self._ranges[-1] != here):
            self.phrase(*here)
        start, end = self._ranges[-1]
        self.issues += [Issue.ORPHAN_BOX] * (len(boxes) if start == end else 0)
        self._boxes[-1] += boxes

    def labelled(self, label: str, found: Sequence[Box | Issue], separator: str = ", ") -> None:
        """A label with its boxes, for dialects that list objects; consecutive boxes of one label share its span."""
        label = label.strip()
        follows = self.ends_in_phrase
        if label and not (follows and self._pieces[-1] == label):
            self.text(separator if follows else "")
            self.text(label)
            self.phrase(self.length - len(label), self.length)
        self.boxes(found, is_orphan=not label)

    def finish(self) -> GroundedText:
        """What was gathered; spaces at the ends of a phrase are text around it."""
        text = "".join(self._pieces)
        spans = []
        for (start, end), boxes in zip(self._ranges, self._boxes, strict=True):
            phrase = text[start:end].strip()
            start += len(text[start:end]) - len(text[start:end].lstrip()) if phrase else 0
            end = start + len(phrase)
            spans.append(Span(phrase, start, end, tuple(boxes)))
        return GroundedText(text, tuple(spans), tuple(self.issues))
