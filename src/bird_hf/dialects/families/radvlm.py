"""RadVLM: `The left kidney is located at the coordinates [0.25, 0.15, 0.62, 0.55] on the image.`"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...hub.grounding import GroundedText
from ..base import Questions
from ..collect import Collector
from ..grids import Grid, Rounding
from ..number_lists import NumberListDialect
from ..views import View

_LOCATED = (" is located at the coordinates", " are located at the coordinates")
_JOIN = " and"  # between two boxes of one phrase


@dataclass(frozen=True)
class RadVLMDialect(NumberListDialect):
    """A sentence for each phrase, its boxes in fractions of the picture with up to two decimal places."""

    name: ClassVar[str] = "radvlm"
    models: ClassVar[str] = "RadVLM (chest X-rays)"
    known: ClassVar[str] = (
        "RadVLM's code for one box: Python's round to two places. How it writes several boxes of a phrase, or a box "
        "in a question, is not known; boxes are joined by `and`. RadVLM v2 (from Qwen3-VL) may write otherwise."
    )
    frame: ClassVar[str] = "fractions of the picture"
    questions: ClassVar[Questions] = Questions(
        vg="Where is the {names} located on the image?", vg_unnamed="{question}", name_separator=" and the "
    )
    model_types: ClassVar[tuple[str, ...]] = ("llava_onevision",)
    name_parts: ClassVar[tuple[str, ...]] = ("radvlm",)
    keeps_text: ClassVar[bool] = False
    decimals: ClassVar[int] = 2

    def grids(self, view: View) -> tuple[Grid, Grid]:
        grid = Grid(scale=100, top=100, rounding=Rounding.DECIMAL)
        return grid, grid

    def format_number(self, number: int) -> str:
        return str(number / 100)

    def _compose(self, answer: GroundedText, view: View) -> str:
        spans = [span for span in self._spans(answer) if span.boxes]
        if not spans:
            return answer.text
        sentences = []
        for span in spans:
            boxes = f"{_JOIN} ".join(self.format_box(box, view) for box in span.boxes)
            sentences.append(f"The {span.phrase} is located at the coordinates {boxes} on the image.")
        return " ".join(sentences)

    def _add_words(self, collector: Collector, words: str) -> bool:
        """The phrase of the model's own sentence stands before "is located at the coordinates"."""
        words = words.removesuffix(" ")
        if words == _JOIN and collector.has_phrases:
            collector.text(words)
            return True
        subject = next((words.removesuffix(ending) for ending in _LOCATED if words.endswith(ending)), None)
        if subject is None:
            return super()._add_words(collector, words)
        start = max(subject.rfind(mark) for mark in ".;:\n") + 1
        phrase = subject[start:].strip()
        phrase = phrase[4:] if phrase.lower().startswith("the ") else phrase
        collector.text(words)
        if phrase:
            end = collector.length - len(words) + len(subject.rstrip())
            collector.phrase(end - len(phrase), end)
        return bool(phrase)
