"""Dialects: how other vision-language models write a box, and what they see of a picture.

    from bird_hf import dialects

    qwen = dialects.get("qwen3-vl")
    view = qwen.view((800, 600))
    text = qwen.write(answer, view)  # '[{"bbox_2d": [250, 150, 625, 550], "label": "left kidney"}]'
    answer = qwen.read(text, view)

Everything else passes `GroundedText` with boxes in fractions of the picture.
"""

from .base import ABSENT_TEXT, Dialect, Questions
from .files import FILE_NAME, read_dialect, write_dialect
from .grids import Grid, Order, Rounding
from .registry import for_model, get, names
from .views import NotVisibleError, View, centre_crop, padded_square

dialect = get

__all__ = [
    "ABSENT_TEXT",
    "FILE_NAME",
    "Dialect",
    "Grid",
    "NotVisibleError",
    "Order",
    "Questions",
    "Rounding",
    "View",
    "centre_crop",
    "dialect",
    "for_model",
    "get",
    "names",
    "padded_square",
    "read_dialect",
    "write_dialect",
]
