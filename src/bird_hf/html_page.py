"""HTML reports in one file that needs nothing else: the page forbids scripts and loads nothing.

What comes from data is escaped by who puts it in; pictures stand inside the page.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from PIL import Image

from .draw import data_uri, draw_spans
from .hub.grounding import Span

_LARGEST_PX = 1024  # of a picture on which boxes are drawn, before it is made small

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px/1.4 sans-serif; margin: 2em auto; max-width: 1400px; padding: 0 1em; }}
table {{ border-collapse: collapse; }}
td, th {{ border-bottom: 1px solid #ccc; padding: .3em .8em; text-align: left; vertical-align: top; }}
.figures {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 1em; }}
figure {{ margin: 0; overflow-wrap: anywhere; }}
figure img {{ max-width: 100%; }}
small {{ color: #555; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def write_page(path: Path, title: str, body: str) -> None:
    """Write a page of this title (text) and body (HTML), under another name until it is whole."""
    making = path.with_name(f".{path.name}.making")
    making.write_text(_PAGE.format(title=escape(title), body=body), encoding="utf-8")
    making.replace(path)


def picture_with_boxes(picture: Image.Image, spans: Iterable[Span], side_px: int) -> str:
    """The HTML of a picture with boxes, at most so many pixels wide and high."""
    picture = picture.copy()
    picture.thumbnail((_LARGEST_PX, _LARGEST_PX))
    drawn = draw_spans(picture, list(spans))
    drawn.thumbnail((side_px, side_px))
    return f'<img alt="" src="{data_uri(drawn)}">'
