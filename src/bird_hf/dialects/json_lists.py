"""Dialects whose answer is a JSON list of objects, each with a box and a label."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from ..hub.boxes import Box
from ..hub.grounding import GroundedText, Issue
from .base import ABSENT_TEXT, Dialect
from .collect import Collector, without_surrogates
from .views import View

# What matters for finding objects. A string that is not closed ends with its line, so that every character is
# passed once.
_TOKEN = re.compile(r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+(?:"|(?=\n)|\\?\Z)|[][{}]')
_OPENING = re.compile(r"[\[{]")
_FENCE_BEFORE = re.compile(r"```(?:json|JSON)?\s*+\Z")
_FENCE_AFTER = re.compile(r"\s*+```")
_LONGEST_OPENING = 64  # characters before a list in which its fence is looked for
_DEEPEST = 5  # brackets in one another, those of an object among them
_EMPTY_LIST = re.compile(r"\[\s*+\]")


@dataclass(frozen=True)
class JsonDialect(Dialect):
    """`[{"KEY": [a, b, c, d], "label": "left kidney"}]`, alone, in a fence, or with words around it.

    Words outside the list are kept by `read` and not written by `write`.
    """

    key: ClassVar[str]
    keeps_text: ClassVar[bool] = False

    @property
    def markup(self) -> re.Pattern[str]:
        return _markup(self.key)

    def format_box(self, box: Box, view: View) -> str:
        return json.dumps(list(self.numbers(box, view)))

    def _compose(self, answer: GroundedText, view: View) -> str:
        spans = self._spans(answer)
        if not answer.boxes:
            return answer.text
        objects = [
            {self.key: list(self.numbers(box, view)), "label": span.phrase}
            for span in spans
            for box in span.boxes
        ]
        return json.dumps(objects, ensure_ascii=False)

    def _parse(self, text: str, view: View) -> GroundedText:
        collector = Collector()
        regions = [region for region in _regions(text, self.key) if self._is_answer(text, region)]
        if not regions and _is_empty_list(text):
            return GroundedText(ABSENT_TEXT)
        done = 0
        for region in regions:
            before = _FENCE_BEFORE.sub("", text[max(done, region.start - _LONGEST_OPENING) : region.start])
            head = text[done : max(done, region.start - _LONGEST_OPENING)] + before
            collector.text(head if head.strip() else "")
            for item in region.objects:
                self._add_object(collector, item, view)
            if not region.is_complete:
                collector.issues.append(Issue.BROKEN_JSON)
            after = _FENCE_AFTER.match(text, region.end)
            done = after.end() if after else region.end
        rest = text[done:]
        collector.text(rest if rest.strip() or not regions else "")
        return collector.finish()

    def _is_answer(self, text: str, region: _Region) -> bool:
        """Whether a bracketed part of a text has boxes; other brackets are text."""
        return text.find(f'"{self.key}"', region.start, region.end) >= 0

    def _add_object(self, collector: Collector, text: str, view: View) -> None:
        item = _loaded(text)
        if not isinstance(item, dict) or self.key not in item:
            collector.issues.append(Issue.BROKEN_JSON)
            return
        label = item.get("label")
        found = [self._number_list(each, view) for each in _lists(item[self.key])]
        collector.labelled(without_surrogates(label) if isinstance(label, str) else "", found)

    def _number_list(self, values: Any, view: View) -> Box | Issue:
        if not (isinstance(values, list) and len(values) == 4 and all(map(_is_whole, values))):
            return Issue.NOT_FOUR_NUMBERS
        if max(values) <= 1 and any(isinstance(value, _Decimal) for value in values):
            return Issue.NOT_FOUR_NUMBERS  # [0.0, 0.0, 1.0, 1.0] is the whole picture in fractions
        a, b, c, d = map(float, values)
        return self.box((a, b, c, d), view)


@cache
def _markup(key: str) -> re.Pattern[str]:
    return re.compile(rf'"{key}"|\A[\sa-z`]*+\[\s*+\]')


class _Decimal(float):
    """A number that is written with a point or an exponent."""


@dataclass
class _Region:
    """A bracketed part of a text.

    objects: the {...} in it that have the key of boxes themselves. is_complete: all brackets have partners, and no
    object was passed over because it has others with boxes inside.
    """

    start: int
    end: int
    objects: list[str]
    is_complete: bool


def _regions(text: str, key: str) -> Iterator[_Region]:
    """The outermost bracketed parts of a text. One pass; brackets inside strings do not count."""
    stack: list[int] = []
    region = _Region(0, 0, [], True)
    holders: set[int] = set()  # where the open "{" stand that have the key
    last_object = -1  # where it begins
    position = 0
    # Outside brackets, quotation marks are prose.
    while found := (_TOKEN if stack else _OPENING).search(text, position):
        position, mark = found.end(), found.group()
        if mark[0] == '"':
            if mark[1:-1] == key:
                holders.add(stack[-1])
            continue
        if mark in "[{":
            if not stack:
                region = _Region(found.start(), found.end(), [], True)
            stack.append(found.start())
        else:
            opening = stack.pop()
            region.end = found.end()
            if text[opening] + mark not in ("[]", "{}"):
                region.is_complete = False
                stack.clear()
            elif mark == "}" and opening in holders:
                if opening < last_object:
                    region.is_complete = False
                else:
                    region.objects.append(text[opening : found.end()])
                    last_object = opening
            if not stack:
                yield region
    if stack:
        region.end, region.is_complete = len(text), False
        yield region


def _loaded(text: str) -> Any:
    """A JSON object; None if it is not valid or its brackets are too deep."""
    depth = 0
    for mark in _TOKEN.findall(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark, 0)
        if depth > _DEEPEST:
            return None
    try:
        # int() refuses thousands of digits.
        return json.loads(text, parse_int=float, parse_float=_Decimal)
    except ValueError:
        return None


def _lists(value: Any) -> list[Any]:
    """The lists of numbers of an object: one, or several in a list."""
    return value if isinstance(value, list) and value and isinstance(value[0], list) else [value]


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and (value.is_integer() or value in (float("inf"), -float("inf")))


def _is_empty_list(text: str) -> bool:
    """Whether an answer is `[]` and nothing else, with or without a fence."""
    found = _EMPTY_LIST.search(text)
    if found is None:
        return False
    opening = max(0, found.start() - _LONGEST_OPENING)
    head = text[:opening] + _FENCE_BEFORE.sub("", text[opening : found.start()])
    after = _FENCE_AFTER.match(text, found.end())
    return not head.strip() and not text[after.end() if after else found.end() :].strip()
