"""LLaVA-Med, as the paper asks it: pixels, after a sentence with the size of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..base import Questions
from ..grids import Grid
from ..number_lists import NumberListDialect
from ..views import View

# BiRD, Fig. 1: what is appended to each question, "[w, h]" being the size.
_SIZE = (
    " The image size is [{width}, {height}], and the origin of the coordinate system is located in the upper left "
    "corner of the image."
)


@dataclass(frozen=True)
class LlavaMedDialect(NumberListDialect):
    """`left kidney [200, 90, 500, 330]`: whole pixels of the picture.

    LLaVA-Med was not trained on boxes and has no form of its own. The paper gives the sentence and not how a box was
    written or its answers were read: the list of four pixels is this package's reading of it. LLaVA pads pictures to a
    square; the sentence speaks of the picture itself.
    """

    name: ClassVar[str] = "llava-med"
    models: ClassVar[str] = "LLaVA-Med (the paper's baseline)"
    known: ClassVar[str] = "The paper's Fig. 1 has the sentence. How boxes were written or read is not known."
    frame: ClassVar[str] = "pixels of the picture"
    questions: ClassVar[Questions] = Questions(
        vg="Where is the {names}?" + _SIZE,
        roc="{question}" + _SIZE,
        rc="{question}" + _SIZE,
        mia="{question}" + _SIZE,
        vg_unnamed="{question}" + _SIZE,
        name_separator=" and the ",
    )
    model_types: ClassVar[tuple[str, ...]] = ("llava", "llava_mistral")
    name_parts: ClassVar[tuple[str, ...]] = ("llava-med", "llava_med")

    def grids(self, view: View) -> tuple[Grid, Grid]:
        width, height = view.image_wh
        return Grid(scale=width, top=width), Grid(scale=height, top=height)
