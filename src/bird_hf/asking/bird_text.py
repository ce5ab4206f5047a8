"""Answers of other models in the grammar of BiRD, which scores read."""

from __future__ import annotations

from collections.abc import Sequence

from ..hub.boxes import Box
from ..hub.grounding import BOX_CLOSE, BOX_OPEN, GroundedText, Issue, Span, read, write

# Reads as a box that is not four numbers: the answer is unreadable, and there is no box more.
UNREADABLE = BOX_OPEN + BOX_CLOSE


def bird_text(answer: GroundedText) -> str:
    """An answer in BiRD's grammar; `read` gives the same words, and boxes to the nearest thousandth.

    An issue cannot be written, so an answer that has one (but for a box without a phrase) ends in `<box></box>`: its
    boxes that could be read are kept, and it is unreadable by strict rules, as it would be in BiRD's own words. So does
    an answer that holds tags of BiRD, which are another dialect's form here and are never read as boxes. Line breaks
    become spaces, because the paper's rules score the second line of several.
    """
    cleaned = _cleaned(answer)
    try:
        written = write(cleaned.text, _writable(cleaned.spans))
    except ValueError:  # tags that appear when others are removed: "<re<box>f>"
        return UNREADABLE
    issues = {*answer.issues, *read(written).issues} - {Issue.ORPHAN_BOX}
    return written + UNREADABLE if issues or len(cleaned.text) != len(answer.text) else written


def _cleaned(answer: GroundedText) -> GroundedText:
    """The answer on one line and without BiRD's tags."""
    pieces: list[str] = []
    spans: list[Span] = []
    done = length = 0
    for span in answer.spans:
        before, phrase = _plain(answer.text[done : span.start]), _plain(span.phrase)
        start = length + len(before)
        length = start + len(phrase)
        pieces += [before, phrase]
        spans.append(Span(phrase, start, length, span.boxes))
        done = span.end
    return GroundedText("".join([*pieces, _plain(answer.text[done:])]), tuple(spans))


def _plain(text: str) -> str:
    return read(text).text.replace("\n", " ")


def _writable(spans: Sequence[Span]) -> list[Span]:
    """Boxes without a phrase stand before every phrase: behind one they would be read as its own."""
    orphans: tuple[Box, ...] = tuple(box for span in spans if not span.phrase for box in span.boxes)
    named = [span for span in spans if span.phrase]
    return [Span("", 0, 0, orphans), *named] if orphans else named
