"""The drawing of a phantom: its canvas, and the parts of its SA-Med2D name."""

from __future__ import annotations

from dataclasses import dataclass

from ..records import Axis
from .canvas import Canvas

_LETTERS = {Axis.SAGITTAL: "x", Axis.CORONAL: "y", Axis.AXIAL: "z"}


@dataclass(frozen=True)
class Drawing:
    """prefix: SA-Med2D's modality prefix (`mr_t1`). slice_index: None if the image is not a slice."""

    canvas: Canvas
    prefix: str
    region: str
    axis: Axis = Axis.PLANAR
    slice_index: int | None = None

    @property
    def plane(self) -> str:
        """The last part of an SA-Med2D name, such as `z_0040` or `2d_none`."""
        if self.slice_index is None:
            return "2d_none"
        return f"{_LETTERS[self.axis]}_{self.slice_index:04d}"
