"""The <ref>/<box> grammar: the one place where grounded text is written and read.

    <ref>left kidney</ref><box>(281,437),(399,525)</box>

A phrase stands between <ref> and </ref>. Each <box> holds a box in thousandths, or several, and belongs
to the phrase around it, else to the nearest one before it. `write` is strict: what it writes, `read` gives
back. `read` takes whatever a model has produced: it never raises, never invents a box, says what was wrong,
and runs in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from .boxes import THOUSAND, Box

REF_OPEN, REF_CLOSE, BOX_OPEN, BOX_CLOSE = "<ref>", "</ref>", "<box>", "</box>"
GROUNDING_TOKENS = (REF_OPEN, REF_CLOSE, BOX_OPEN, BOX_CLOSE, "<quad>", "</quad>")

# Everything that is markup and never content. A bare "<" stays: "nodule <5 mm" is text.
_TAG = re.compile(r"</?(?:ref|box|quad|img)>|<imgpad>|<\|(?:im_start|im_end|endoftext|extra_\d{1,3})\|>")

# Possessive quantifiers (++, *+) keep every pattern linear on hostile text.
_CORNER = r"\(\s*+({number})\s*+,\s*+({number})\s*+\)"
_WHOLE_CORNER = _CORNER.format(number=r"[0-9]++")
_ANY_CORNER = _CORNER.format(number=r"[-+]?+[0-9]++(?:\.[0-9]++)?+")
_CUT_CORNER = r"\([-+.,0-9\s]*+\Z"
_BETWEEN = r"[\s,;]*+"

_CORNERS = re.compile(_ANY_CORNER)
_ONLY_CORNERS = re.compile(rf"{_BETWEEN}(?:{_ANY_CORNER}{_BETWEEN})*+")
_UNTAGGED_BOX = re.compile(rf"{_WHOLE_CORNER}\s*+,\s*+{_WHOLE_CORNER}")
# The coordinates behind a <box> that is never closed: whole boxes, then a part of one. The words that follow
# are text, and so are their commas and digits: "<box>(1,2),(3,4), 5 mm" keeps ", 5 mm".
_UNCLOSED_BOX = re.compile(
    rf"(?:{_BETWEEN}{_ANY_CORNER}{_BETWEEN}{_ANY_CORNER})*+"
    rf"(?:{_BETWEEN}(?:{_ANY_CORNER}(?:\s*+,)?+(?:\s*+{_CUT_CORNER})?+|{_CUT_CORNER}))?+"
)


class Issue(StrEnum):
    """What `read` found wrong with a text."""

    UNCLOSED_TAG = "unclosed_tag"  # a tag without its partner
    NOT_FOUR_NUMBERS = "not_four_numbers"  # a <box> that is not (int,int),(int,int)
    OUT_OF_RANGE = "out_of_range"  # a coordinate below 0 or above 1000
    INVERTED_BOX = "inverted_box"  # a far corner that is not beyond the near one
    ORPHAN_BOX = "orphan_box"  # a box with no phrase before it
    UNTAGGED_BOX = "untagged_box"  # (int,int),(int,int) in plain text; it stays text
    # Found by the readers of other models' text (bird_hf.dialects) only.
    OUTSIDE_PICTURE = (
        "outside_picture"  # a box that lies, wholly or in part, in the padding around the picture
    )
    BROKEN_JSON = "broken_json"  # a list of objects that is cut or not valid JSON
    TOO_LONG = "too_long"  # an answer of which only the beginning was read


@dataclass(frozen=True, slots=True)
class Span:
    """A phrase of the clean text, `text[start:end]`, and its boxes: none, one or many."""

    phrase: str
    start: int
    end: int
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class GroundedText:
    """Clean text, its spans from left to right, and what was wrong with the tagged text."""

    text: str
    spans: tuple[Span, ...] = ()
    issues: tuple[Issue, ...] = ()

    @property
    def boxes(self) -> tuple[Box, ...]:
        return tuple(box for span in self.spans for box in span.boxes)


def write(text: str, spans: Sequence[Span] = ()) -> str:
    """Tag `text`: each span's phrase in `<ref>`, its boxes in thousandths right behind it.

    A span with an empty phrase writes only its boxes, and must come before every phrase.
    Raises ValueError if a span does not fit the text, spans overlap, or the text already holds a tag.
    """
    if tag := _TAG.search(text):
        place = f"{tag.group()!r} at character {tag.start()}"
        raise ValueError(f"text holds the tag {place}; give clean text and spans")
    pieces, done, last_phrase = [], 0, ""
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        _check_span(span, text, done, last_phrase)
        pieces.append(text[done : span.start])
        if span.phrase:
            pieces += [REF_OPEN, span.phrase, REF_CLOSE]
            last_phrase = span.phrase
        pieces += [f"{BOX_OPEN}{format_box(box)}{BOX_CLOSE}" for box in span.boxes]
        done = span.end
    pieces.append(text[done:])
    return "".join(pieces)


def format_box(box: Box) -> str:
    """A box as it stands inside <box>: `(281,437),(399,525)`, thousandths."""
    x1, y1, x2, y2 = box.to_thousandths()
    return f"({x1},{y1}),({x2},{y2})"


def _check_span(span: Span, text: str, done: int, last_phrase: str) -> None:
    if not 0 <= span.start <= span.end <= len(text) or text[span.start : span.end] != span.phrase:
        found = text[max(span.start, 0) : max(span.end, 0)]
        raise ValueError(f"span {span.start}:{span.end} says {span.phrase!r}; the text there is {found!r}")
    if span.start < done:
        raise ValueError(
            f"span {span.phrase!r} at character {span.start} overlaps the one that ends at {done}"
        )
    if not span.phrase and not span.boxes:
        raise ValueError(f"span at character {span.start} has neither a phrase nor a box")
    if not span.phrase and last_phrase:
        raise ValueError(
            f"the box at character {span.start} has no phrase and would be read as one of {last_phrase!r}; "
            "give it a phrase, or put it before every phrase"
        )


def read(text: str) -> GroundedText:
    """Read tagged text into clean text, spans and issues. Never raises; linear in the length of `text`.

    Known tags and the coordinates of a `<box>` are removed, and nothing else. A box that is broken in any way
    gives an issue and no box. A box before any phrase becomes a span with an empty phrase. The text is read
    once: what only looks like a tag after others are gone (`<re<box></box>f>`) is text and stays.
    """
    reader = _Reader()
    tags, pieces = _TAG.findall(text), _TAG.split(text)
    reader.add_text(pieces[0])
    neighbours = zip(["", *tags], tags, [*tags[1:], ""], pieces[1:], strict=False)
    for previous, tag, following, piece in neighbours:  # `piece` is the text between `tag` and `following`
        match tag:
            case "<ref>":
                reader.open_phrase()
            case "</ref>":
                reader.close_phrase()
            case "<box>" if following == BOX_CLOSE:
                piece = reader.add_boxes(piece)
            case "<box>":
                reader.issues.append(Issue.UNCLOSED_TAG)
                piece = _UNCLOSED_BOX.sub("", piece, count=1)
            case "</box>" if previous != BOX_OPEN:
                reader.issues.append(Issue.UNCLOSED_TAG)
        reader.add_text(piece)
    return reader.finish()


@dataclass
class _Reader:
    """The state of one left-to-right pass: clean text so far, spans, and whose the next box is."""

    pieces: list[str] = field(default_factory=list)
    length: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)  # of each span in the clean text
    boxes: list[list[Box]] = field(default_factory=list)  # of each span
    issues: list[Issue] = field(default_factory=list)
    phrase_start: int | None = None  # of the open phrase
    phrase_boxes: list[Box] | None = None  # of the open phrase or the nearest before; None: there is none

    def add_text(self, piece: str) -> None:
        self.pieces.append(piece)
        self.length += len(piece)

    def open_phrase(self) -> None:
        if self.phrase_start is not None:  # nested: the outer phrase goes on
            self.issues.append(Issue.UNCLOSED_TAG)
            return
        self.phrase_start, self.phrase_boxes = self.length, []

    def close_phrase(self) -> None:
        start, boxes = self.phrase_start, self.phrase_boxes
        if start is None or boxes is None:
            self.issues.append(Issue.UNCLOSED_TAG)
        elif start == self.length:
            self._drop_phrase()  # "<ref></ref>" names nothing
        else:
            self._add_span(start, boxes)  # this very list: boxes behind the phrase go on into it
        self.phrase_start = None

    def add_boxes(self, content: str) -> str:
        """Take the boxes of one <box>; returns the part of its content that is text: all of it if it has words."""
        found = list(_read_boxes(content))
        self.issues += [issue for issue in found if isinstance(issue, Issue)]
        self._place([box for box in found if isinstance(box, Box)])
        return content if any(map(str.isalpha, content)) else ""

    def finish(self) -> GroundedText:
        if self.phrase_start is not None:
            self.issues.append(Issue.UNCLOSED_TAG)
            self._drop_phrase()
        text = "".join(self.pieces)
        self.issues += [Issue.UNTAGGED_BOX for _ in _UNTAGGED_BOX.finditer(text)]
        spans = (
            Span(text[start:end], start, end, tuple(boxes))
            for (start, end), boxes in zip(self.ranges, self.boxes, strict=True)
        )
        return GroundedText(text, tuple(spans), tuple(self.issues))

    def _place(self, boxes: list[Box]) -> None:
        """Give boxes to the phrase; without one they are orphans, one span for all that stand together."""
        if self.phrase_boxes is not None:
            self.phrase_boxes += boxes
            return
        self.issues += [Issue.ORPHAN_BOX] * len(boxes)
        if boxes and self.ranges and self.ranges[-1] == (self.length, self.length):
            self.boxes[-1] += boxes
        elif boxes:
            self._add_span(self.length, boxes)

    def _drop_phrase(self) -> None:
        """Discard the open phrase; its boxes become orphans."""
        boxes, self.phrase_boxes = self.phrase_boxes or [], None
        self._place(boxes)

    def _add_span(self, start: int, boxes: list[Box]) -> None:
        self.ranges.append((start, self.length))
        self.boxes.append(boxes)


def _read_boxes(content: str) -> Iterator[Box | Issue]:
    """The boxes inside one <box>, each as it is or as what is wrong with it."""
    corners = _CORNERS.findall(content)
    if not corners or len(corners) % 2 or not _ONLY_CORNERS.fullmatch(content):
        yield Issue.NOT_FOUR_NUMBERS
        return
    for near, far in zip(corners[0::2], corners[1::2], strict=True):
        yield _read_box(near + far)


def _read_box(numbers: Sequence[str]) -> Box | Issue:
    # A decimal is a number of another frame (0.281 of the image?), not of ours: reading it would be a guess.
    if any("." in number for number in numbers):
        return Issue.NOT_FOUR_NUMBERS
    x1, y1, x2, y2 = values = [float(number) for number in numbers]  # int() refuses thousands of digits
    if min(values) < 0 or max(values) > THOUSAND:
        return Issue.OUT_OF_RANGE
    if x1 >= x2 or y1 >= y2:
        return Issue.INVERTED_BOX
    return Box.from_thousandths((int(x1), int(y1), int(x2), int(y2)))
