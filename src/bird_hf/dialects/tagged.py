"""Dialects that mark phrases and boxes with an opening and a closing tag each."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from ..hub.boxes import Box
from ..hub.grounding import GroundedText, Issue
from .base import Dialect, numbers_of
from .collect import Collector
from .views import View

_NUMBER = r"[-+]?+[0-9]++(?:\.[0-9]++)?+"
_LIST = re.compile(rf"\[\s*+({_NUMBER}(?:\s*+,\s*+{_NUMBER})*+)\s*+\]")
_POINT = re.compile(rf"\(\s*+({_NUMBER})\s*+,\s*+({_NUMBER})\s*+\)")
_BETWEEN = "[](),; \t\r\n"  # what may stand between the numbers of several boxes


@dataclass(frozen=True)
class TaggedDialect(Dialect):
    """`<ref>left kidney</ref><box>...</box>`: each box stands behind its phrase, words around stay as they are.

    phrase_tags, box_tags: opening and closing tag. other_tags: those that `read` drops. has_boxes_inside: boxes stand
    inside the phrase's tags.
    """

    phrase_tags: ClassVar[tuple[str, str]]
    box_tags: ClassVar[tuple[str, str]]
    other_tags: ClassVar[tuple[str, ...]] = ()
    has_boxes_inside: ClassVar[bool] = False
    groups_boxes: ClassVar[bool] = False  # one pair of tags holds all boxes of a phrase

    @abstractmethod
    def format_content(self, boxes: Sequence[Box], view: View) -> str:
        """What stands between the tags of boxes: one box, or all of a phrase if `groups_boxes`."""

    @abstractmethod
    def read_content(self, content: str, view: View) -> list[Box | Issue]:
        """The boxes that stand between tags."""

    @property
    def tags(self) -> tuple[str, str, str, str]:
        return (*self.phrase_tags, *self.box_tags)

    @property
    def markup(self) -> re.Pattern[str]:
        return _any_of((*self.tags, *self.other_tags))

    def format_box(self, box: Box, view: View) -> str:
        opening, closing = self.box_tags
        return f"{opening}{self.format_content([box], view)}{closing}"

    def format_question(self, question: GroundedText, view: View) -> str:
        return self._compose(question, view)

    def _compose(self, answer: GroundedText, view: View) -> str:
        pieces, done, last_phrase = [], 0, ""
        for span in self._spans(answer):
            if not span.phrase and last_phrase:
                raise ValueError(
                    f"the box at character {span.start} has no phrase and would be read as one of {last_phrase!r}"
                )
            pieces.append(answer.text[done : span.start])
            pieces.append(self._tagged(span.phrase, span.boxes, view))
            done, last_phrase = span.end, span.phrase or last_phrase
        return "".join([*pieces, answer.text[done:]])

    def _tagged(self, phrase: str, boxes: Sequence[Box], view: View) -> str:
        groups = [boxes] if self.groups_boxes and boxes else [[box] for box in boxes]
        tagged = "".join(
            f"{self.box_tags[0]}{self.format_content(group, view)}{self.box_tags[1]}" for group in groups
        )
        opening, closing = self.phrase_tags
        if not phrase:
            return tagged
        return (
            f"{opening}{phrase} {tagged}{closing}"
            if self.has_boxes_inside
            else f"{opening}{phrase}{closing}{tagged}"
        )

    def _parse(self, text: str, view: View) -> GroundedText:
        collector = Collector()
        phrase_open, phrase_close, box_open, box_close = self.tags
        tags, pieces = self.markup.findall(text), self.markup.split(text)
        collector.text(pieces[0])
        start: int | None = None  # of the open phrase
        pending: list[Box | Issue] = []  # boxes inside the open phrase
        for tag, following, previous, piece in zip(
            tags, [*tags[1:], ""], ["", *tags], pieces[1:], strict=False
        ):
            if tag == phrase_open:
                if start is not None:  # nested: the outer phrase goes on
                    collector.issues.append(Issue.UNCLOSED_TAG)
                else:
                    start = collector.length
            elif tag == phrase_close:
                self._close(collector, start, pending)
                start, pending = None, []
            elif tag == box_open and following == box_close:
                found = self.read_content(piece, view)
                if start is None:
                    collector.boxes(found)
                else:
                    pending += found
                piece = piece if any(map(str.isalpha, piece)) and Issue.NOT_FOUR_NUMBERS in found else ""
            elif tag == box_open or (tag == box_close and previous != box_open):
                collector.issues.append(Issue.UNCLOSED_TAG)
            if start is not None and following == box_open:
                piece = piece.rstrip()
            collector.text(piece)
        if start is not None:
            collector.issues.append(Issue.UNCLOSED_TAG)
            collector.boxes(pending, is_orphan=True)
        return collector.finish()

    def _close(self, collector: Collector, start: int | None, pending: list[Box | Issue]) -> None:
        if start is None:
            collector.issues.append(Issue.UNCLOSED_TAG)
        elif start == collector.length:  # the phrase is empty
            collector.boxes(pending, is_orphan=True)
        else:
            collector.phrase(start, collector.length)
            collector.boxes(pending)


@cache
def _any_of(tags: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, tags)))


@dataclass(frozen=True)
class ListTagsDialect(TaggedDialect):
    """Between tags: `[[a, b, c, d], [e, f, g, h]]`."""

    groups_boxes: ClassVar[bool] = True

    def format_content(self, boxes: Sequence[Box], view: View) -> str:
        return str([list(self.numbers(box, view)) for box in boxes])

    def read_content(self, content: str, view: View) -> list[Box | Issue]:
        lists = _LIST.findall(content)
        if not lists or _LIST.sub("", content).strip(_BETWEEN):
            return [Issue.NOT_FOUR_NUMBERS]
        read = [numbers_of([value.strip() for value in each.split(",")], whole=True) for each in lists]
        return [self.box(each, view) if each else Issue.NOT_FOUR_NUMBERS for each in read]


@dataclass(frozen=True)
class PointTagsDialect(TaggedDialect):
    """Between tags: `(x1,y1),(x2,y2)`; several boxes in one pair of tags are read."""

    def format_content(self, boxes: Sequence[Box], view: View) -> str:
        corners = [self.numbers(box, view) for box in boxes]
        return ",".join(f"({a},{b}),({c},{d})" for a, b, c, d in corners)

    def read_content(self, content: str, view: View) -> list[Box | Issue]:
        points = _POINT.findall(content)
        if not points or len(points) % 2 or _POINT.sub("", content).strip(_BETWEEN):
            return [Issue.NOT_FOUR_NUMBERS]
        read = [
            numbers_of(near + far, whole=True) for near, far in zip(points[::2], points[1::2], strict=True)
        ]
        return [self.box(each, view) if each else Issue.NOT_FOUR_NUMBERS for each in read]
