"""Qwen2.5-VL: a JSON list of boxes in pixels of the resized picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..base import Dialect, Questions
from ..grids import Grid
from ..json_lists import JsonDialect
from ..views import View

_MOST_PIXELS = 100_000_000  # that a small picture may be made to have
_LARGEST_RATIO = 200  # of sides; the image processor refuses pictures beyond it


@dataclass(frozen=True)
class Qwen25VLDialect(JsonDialect):
    """`[{"bbox_2d": [203, 88, 508, 323], "label": "left kidney"}]`: pixels of the picture as the model sees it.

    The numbers hold only for the same image processor in training and in use: `factor` (patch size times merge size),
    `min_pixels` and `max_pixels` are settings, which `dialect.json` keeps. A picture with sides in a ratio above 200
    is refused, as the image processor does.
    """

    factor: int = 28
    min_pixels: int = 56 * 56
    max_pixels: int = 14 * 14 * 4 * 1280

    name: ClassVar[str] = "qwen2.5-vl"
    models: ClassVar[str] = "Qwen2.5-VL and models made from it (Lingshu, Citrus-V)"
    known: ClassVar[str] = (
        "Qwen's fine-tuning code: smart_resize, Python's round, the far corner at most the last pixel. The form in "
        "questions is not known."
    )
    frame: ClassVar[str] = "pixels of the resized picture"
    sees: ClassVar[str] = "the picture resized by smart_resize"
    questions: ClassVar[Questions] = Questions(
        vg="Locate the {names} in this image and output the bbox coordinates in JSON format.",
        vg_unnamed="{question} Report bbox coordinates in JSON format.",
        name_separator=" and the ",
    )
    absent: ClassVar[str | None] = "[]"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)
    key: ClassVar[str] = "bbox_2d"

    def __post_init__(self) -> None:
        super().__post_init__()
        least = min(self.max_pixels, _MOST_PIXELS)
        if not (1 <= self.factor <= 1024 and 1 <= self.min_pixels <= least):
            factor, fewest, most = (
                str(value)[:20] for value in (self.factor, self.min_pixels, self.max_pixels)
            )
            raise ValueError(
                f"{self.name}: factor {factor} is 1 to 1024, and min_pixels {fewest} at least 1 and at most "
                f"{_MOST_PIXELS:,} and max_pixels {most}"
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Dialect:
        vision, size = _mapping(config.get("vision_config")), _mapping(preprocessor.get("size"))
        patch = _first_whole(preprocessor.get("patch_size"), vision.get("patch_size"), 14)
        merge = _first_whole(preprocessor.get("merge_size"), vision.get("spatial_merge_size"), 2)
        return cls(
            factor=patch * merge,
            min_pixels=_first_whole(
                preprocessor.get("min_pixels"), size.get("shortest_edge"), cls.min_pixels
            ),
            max_pixels=_first_whole(preprocessor.get("max_pixels"), size.get("longest_edge"), cls.max_pixels),
        )

    def view(self, image_wh: tuple[int, int]) -> View:
        return View(
            image_wh, resized_wh=smart_resize(image_wh, self.factor, self.min_pixels, self.max_pixels)
        )

    def grids(self, view: View) -> tuple[Grid, Grid]:
        if view.resized_wh is None:
            raise ValueError(
                f"{self.name} writes pixels of the resized picture, and the view has no resized size"
            )
        width, height = view.resized_wh
        return Grid(scale=width, top=width - 1), Grid(scale=height, top=height - 1)


def smart_resize(image_wh: tuple[int, int], factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Width and height after Qwen's resizing: multiples of `factor`, between `min_pixels` and `max_pixels`.

    Raises ValueError if the sides are in a ratio above 200. The rule is that of Qwen's image processor.
    """
    width, height = image_wh
    if max(image_wh) > _LARGEST_RATIO * min(image_wh):
        raise ValueError(
            f"a picture of {width}x{height} has sides in a ratio above {_LARGEST_RATIO}, which Qwen's image processor "
            "refuses; cut it or leave it out"
        )
    sides = [round(side / factor) * factor for side in image_wh]
    if sides[0] * sides[1] > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        sides = [max(factor, math.floor(side / shrink / factor) * factor) for side in image_wh]
    elif sides[0] * sides[1] < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        sides = [math.ceil(side * grow / factor) * factor for side in image_wh]
    return sides[0], sides[1]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _first_whole(*values: Any) -> int:
    """The first whole number above 0; files may lack a value, or hold null."""
    return next(value for value in values if type(value) is int and value > 0)
