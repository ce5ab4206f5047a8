"""Dialects that write each number as a token of the vocabulary, such as `<loc0153>`, and list labels with boxes."""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from ..hub.boxes import Box
from ..hub.grounding import GroundedText, Issue
from .base import Dialect
from .collect import Collector
from .views import View

_NUMBER = re.compile("[0-9]++")


@dataclass(frozen=True)
class LocationTokenDialect(Dialect):
    """Runs of location tokens, four for each box. token: a token as a format of its number."""

    token: ClassVar[str]
    keeps_text: ClassVar[bool] = False

    @property
    def markup(self) -> re.Pattern[str]:
        return _run_of(self.token)

    def format_box(self, box: Box, view: View) -> str:
        return "".join(self.token.format(number) for number in self.numbers(box, view))

    def _boxes(self, run: str, view: View) -> list[Box | Issue]:
        """The boxes of a run of tokens."""
        values = [float(number) for number in _NUMBER.findall(run)]
        if len(values) % 4:
            return [Issue.NOT_FOUR_NUMBERS]
        fours = zip(values[::4], values[1::4], values[2::4], values[3::4], strict=True)
        return [self.box(four, view) for four in fours]

    def _compose(self, answer: GroundedText, view: View) -> str:
        spans = [span for span in self._spans(answer) if span.boxes]
        if not spans:
            return answer.text
        return self._listed(
            [(span.phrase, [self.format_box(box, view) for box in span.boxes]) for span in spans]
        )

    @abstractmethod
    def _listed(self, objects: list[tuple[str, list[str]]]) -> str:
        """Labels with the tokens of each of their boxes, as the model says them."""


@dataclass(frozen=True)
class BoxesFirstDialect(LocationTokenDialect):
    """`<loc..>x4 left kidney ; <loc..>x4 spleen`: the label follows its box."""

    separator: ClassVar[str] = ";"

    def _listed(self, objects: list[tuple[str, list[str]]]) -> str:
        for label, _ in objects:
            if self.separator in label:
                raise ValueError(
                    f"the phrase {label!r} holds {self.separator!r}, which separates objects in {self.name}"
                )
        return f" {self.separator} ".join(
            f"{box} {label}".rstrip() for label, boxes in objects for box in boxes
        )

    def _parse(self, text: str, view: View) -> GroundedText:
        collector = Collector()
        runs, pieces = self.markup.findall(text), self.markup.split(text)
        if not runs:
            return GroundedText(text)
        collector.text(pieces[0] if pieces[0].strip() else "")
        for run, piece in zip(runs, pieces[1:], strict=True):
            label, _, rest = piece.partition(self.separator)
            collector.labelled(label, self._boxes(run, view))
            collector.text(rest if rest.strip() else "")
        return collector.finish()


@dataclass(frozen=True)
class BoxesLastDialect(LocationTokenDialect):
    """`left kidney<loc..>x4spleen<loc..>x4`: the label stands before its boxes."""

    def _listed(self, objects: list[tuple[str, list[str]]]) -> str:
        return "".join(label + "".join(boxes) for label, boxes in objects)

    def _parse(self, text: str, view: View) -> GroundedText:
        collector = Collector()
        runs, pieces = self.markup.findall(text), self.markup.split(text)
        if not runs:
            return GroundedText(text)
        for run, label in zip(runs, pieces, strict=False):
            collector.labelled(label, self._boxes(run, view))
        collector.text(pieces[-1] if pieces[-1].strip() else "")
        return collector.finish()


@cache
def _run_of(token: str) -> re.Pattern[str]:
    opening, _, closing = token.partition("{")
    return re.compile(f"(?:{re.escape(opening)}[0-9]++{re.escape(closing.partition('}')[2])})++")
