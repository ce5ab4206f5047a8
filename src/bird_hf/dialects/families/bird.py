"""BiRD and Qwen-VL: `<ref>left kidney</ref><box>(250,150),(625,550)</box>`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ...hub.boxes import Box
from ...hub.grounding import BOX_CLOSE, BOX_OPEN, REF_CLOSE, REF_OPEN, GroundedText, format_box, read, write
from ..base import Dialect, Questions
from ..grids import Grid, Rounding
from ..views import View

_TAG = re.compile("|".join((REF_OPEN, REF_CLOSE, BOX_OPEN, BOX_CLOSE)))


@dataclass(frozen=True)
class BirdDialect(Dialect):
    """The grammar of `bird_hf.hub.grounding`. The picture is squeezed into a square, so fractions stay as they are."""

    name: ClassVar[str] = "bird"
    models: ClassVar[str] = "BiRD, Qwen-VL"
    known: ClassVar[str] = (
        "The BiRD paper, section 3, and docs/coordinates.md. Qwen-VL's own rounding is not known."
    )
    frame: ClassVar[str] = "thousandths of the picture"
    questions: ClassVar[Questions] = Questions(
        vg="Where is the {names}?", vg_unnamed="{question}", name_separator=" and the "
    )
    model_types: ClassVar[tuple[str, ...]] = ("bird",)
    special_tokens: ClassVar[bool] = True  # of Qwen-VL; not of BiRD

    @classmethod
    def fits(cls, config: Mapping[str, Any]) -> bool:
        """Qwen-VL has the model type of Qwen, and what belongs to pictures under `visual`."""
        return super().fits(config) or (config.get("model_type") == "qwen" and "visual" in config)

    @property
    def markup(self) -> re.Pattern[str]:
        return _TAG

    def grids(self, view: View) -> tuple[Grid, Grid]:
        grid = Grid(scale=1000, top=1000, rounding=Rounding.HALF_UP)
        return grid, grid

    def format_box(self, box: Box, view: View) -> str:
        return f"{BOX_OPEN}{format_box(box)}{BOX_CLOSE}"

    def format_question(self, question: GroundedText, view: View) -> str:
        return self._compose(question, view)

    def _compose(self, answer: GroundedText, view: View) -> str:
        return write(answer.text, self._spans(answer))

    def _parse(self, text: str, view: View) -> GroundedText:
        return read(text)
