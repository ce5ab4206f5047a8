"""The drawing of a phantom: its canvas, and the parts of its SA-Med2D name."""

from __future__ import annotations

from dataclasses import dataclass

from ..records import Axis
from .canvas import Canvas


@dataclass(frozen=True)
class Drawing:
    """prefix: SA-Med2D's modality prefix (`mr_t1`). slice_index: None if the image is not a slice."""

    canvas: Canvas
    prefix: str
    region: str
    axis: Axis = Axis.PLANAR
    slice_index: int | None = None
