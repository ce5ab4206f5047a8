"""`bird data check`: what a build would take and leave out, as tables and a picture of some images with their marks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..data.build.check import checked_source
from ..data.build.pipeline import BuildSettings
from ..data.masks import outlines_of
from ..data.records import ImageRecord, MaskedImage
from ..draw import captioned, contact_sheet, draw_outlines, draw_spans, save_png
from ..hub.grounding import Span
from ..markdown import Markup, table

PICTURE = "check.png"
EXAMPLES, COLUMNS = 6, 3
_SIDE_PX = 640
_BOXES_SHOWN = 6


@dataclass(frozen=True)
class CheckReport:
    """What a build would do. taken: a table in Markdown. dropped: number of images by reason."""

    taken: str
    dropped: dict[str, int]


def write_check(src: Path, out: Path, settings: BuildSettings, workers: int) -> CheckReport:
    """Write `out`/left_out.csv and `out`/check.png. Raises ValueError as `build` does, then without a picture."""
    (out / PICTURE).unlink(missing_ok=True)  # that of an earlier check would be taken for this one's
    with checked_source(src, out, settings, workers) as checked:
        pictures = [picture_of(*example, settings.min_area) for example in checked.examples(EXAMPLES)]
        save_png(contact_sheet(pictures, COLUMNS), out / PICTURE)
        rows = [(Markup(modality), dataset, count) for modality, dataset, count in checked.images]
        return CheckReport(table(("modality", "dataset", "images"), rows), checked.dropped)


def picture_of(image: MaskedImage, record: ImageRecord, min_area: float) -> Image.Image:
    """Draw an image with the boxes and outlines of its objects, and a caption: its name, its size and the boxes."""
    pixels = Image.fromarray(image.pixels).convert("RGB")
    scale = _SIDE_PX / max(pixels.size)
    size = (max(1, round(pixels.width * scale)), max(1, round(pixels.height * scale)))
    outlines = outlines_of(image, min_area)
    spans, masks, lines = [], [], []
    for item in record.present:
        assert item.box is not None
        spans.append(Span(item.label, 0, len(item.label), (item.box,)))
        masks.append(outlines.get(item.instance_id))
        corners = ", ".join(f"{value:g}" for value in map(_short, item.box.to_pixels(record.image_wh)))
        lines.append(f"{item.label}: {corners}")
    if len(lines) > _BOXES_SHOWN:
        lines = [*lines[:_BOXES_SHOWN], f"and {len(lines) - _BOXES_SHOWN} more"]
    resized = pixels.resize(size, Image.Resampling.BICUBIC)
    drawn = draw_spans(draw_outlines(resized, masks), spans)
    name = f"{record.info.image_id}, {record.image_wh[0]}x{record.image_wh[1]}"
    return captioned(drawn, [name, *lines])


def _short(value: float) -> float:
    return round(value, 1)
