"""What a painter of one modality hands back: the canvas and how SA-Med2D would name it."""

from __future__ import annotations

from dataclasses import dataclass

from ..records import Axis
from .canvas import Canvas


@dataclass(frozen=True)
class Sketch:
    """`prefix` is SA-Med2D's modality prefix (`mr_t1`); `slice_index` is None for planar pictures."""

    canvas: Canvas
    prefix: str
    region: str
    axis: Axis = Axis.PLANAR
    slice_index: int | None = None
