"""HTML reports as single files: images are embedded, and the page loads nothing and runs no scripts.

Pages are jinja2 templates with autoescape, so text from the data can never become markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..atomic_writes import write_text
from ..draw import data_uri, draw_spans
from ..hub.grounding import Span
from ..markdown import Cell, Table, plain

if TYPE_CHECKING:
    from jinja2 import Environment

_MAX_DRAWING_PX = (
    1024  # boxes are drawn on an image of at most this size, which is then scaled to a thumbnail
)


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write a page from a template in `templates/`, atomically. values: the variables of the template."""
    write_text(path, _environment().get_template(template).render(values))


def thumbnail_with_boxes(
    image: Image.Image, spans: Iterable[Span], side_px: int, reference: Iterable[Span] = ()
) -> str:
    """The data URI of an image with boxes, at most `side_px` pixels wide and high; those of `reference` are dashed."""
    image = image.copy()
    image.thumbnail((_MAX_DRAWING_PX, _MAX_DRAWING_PX))
    drawn = draw_spans(image, list(spans), list(reference))
    drawn.thumbnail((side_px, side_px))
    return data_uri(drawn)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Parts of a report (markdown.py). The text of all of them is escaped.
    environment.filters["plain"] = plain
    environment.tests["table"] = lambda part: isinstance(part, Table)
    environment.tests["scored"] = lambda cell: isinstance(cell, Cell)
    return environment
