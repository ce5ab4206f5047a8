"""`bird data audit`: what looks wrong in a Med-GRIT folder, as one HTML file that needs nothing else.

Whatever comes from the data is escaped, and the page forbids scripts and loads nothing from anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from html import escape
from pathlib import Path

from PIL import Image

from .data.folder.audit import EXPLAINED, Finding, Place, Suspicion, audit_folder
from .data.folder.shards import read_row
from .html_page import picture_with_boxes, write_page
from .hub.grounding import Span
from .hub.pixels import open_image

SHOWN = 50  # findings of a kind with pictures; all are counted
_THUMBNAIL_PX = 320
_LONGEST_TEXT = 400
_LONGEST_LABEL = 40

_BODY = """\
<p>An audit asks; it drops nothing. The boxes are those that a finding is about. For research only.</p>
<table>
<tr><th>findings</th><th>of</th><th></th></tr>
{summary}
</table>
{sections}"""


def write_audit(folder: Path, out: Path, shown: int = SHOWN) -> dict[Suspicion, int]:
    """Write the report of a Med-GRIT folder to the file `out`; returns the numbers of findings by kind.

    shown: how many findings of a kind are shown with their pictures. Raises ValueError, in one line, where the folder
    is none or cannot be read, or `out` is no place for an HTML file.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{out}: the report is HTML; give a name that ends in .html")
    if not out.parent.is_dir() or out.is_dir():
        raise ValueError(
            f"{out} is a folder, or stands in none; give the name of a file in a folder that exists"
        )
    counts: Counter[Suspicion] = Counter()
    figures: dict[Suspicion, list[str]] = {suspicion: [] for suspicion in Suspicion}
    for finding in audit_folder(folder):
        counts[finding.suspicion] += 1
        if counts[finding.suspicion] <= shown:
            figures[finding.suspicion].append(_figure(finding))
    write_page(out, f"Audit of {folder.resolve().name}", _body(counts, figures))
    return {suspicion: counts[suspicion] for suspicion in Suspicion}


def _body(counts: Counter[Suspicion], figures: dict[Suspicion, list[str]]) -> str:
    summary = []
    for kind in Suspicion:
        title = f'<a href="#{kind}">{_title(kind)}</a>' if figures[kind] else _title(kind)
        cells = (f"{counts[kind]:,}", title, escape(EXPLAINED[kind]))
        summary.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    sections = [_section(kind, counts[kind], shown) for kind, shown in figures.items() if shown]
    return _BODY.format(summary="\n".join(summary), sections="\n".join(sections))


def _section(kind: Suspicion, count: int, shown: Iterable[str]) -> str:
    shown = list(shown)
    head = f"{count:,}" if count == len(shown) else f"{count:,}, of which the first {len(shown)}"
    return (
        f'<h2 id="{kind}">{_title(kind)}: {head}</h2>\n<p>{escape(EXPLAINED[kind])}</p>\n'
        f'<div class="figures">\n{"".join(shown)}</div>'
    )


def _title(kind: Suspicion) -> str:
    return kind.value.replace("_", " ")


def _figure(finding: Finding) -> str:
    """A finding: its pictures, then its words."""
    pictures = [_thumbnail(finding.place, finding.spans)]
    if finding.other:
        pictures.append(_thumbnail(finding.other, ()))
    where = f"{finding.place.path.parent.name}/{finding.place.path.name}, row {finding.place.row}"
    lines = (finding.image_id, finding.detail, where)
    words = "<br>".join(f"<bdi>{escape(line[:_LONGEST_TEXT])}</bdi>" for line in lines)
    return f"<figure>{''.join(pictures)}<figcaption>{words}</figcaption></figure>\n"


def _thumbnail(place: Place, spans: Iterable[Span]) -> str:
    """The picture of a row with boxes, small, inside the page; an empty one where the row has none that can be read."""
    cell = read_row(place.path, place.row, ["image"])["image"]
    try:
        picture = open_image(cell["bytes"] if cell and cell["bytes"] else b"")
    except ValueError:
        picture = Image.new("RGB", (_THUMBNAIL_PX, _THUMBNAIL_PX), "#444444")
    return picture_with_boxes(picture, map(_named, spans), _THUMBNAIL_PX)


def _named(span: Span) -> Span:
    """The span with a name that fits onto a small picture."""
    name = " ".join(span.phrase.split())[:_LONGEST_LABEL]
    return Span(name, 0, len(name), span.boxes)
