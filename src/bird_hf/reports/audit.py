"""`bird data audit`: the findings of an audit as one HTML file with thumbnails."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ..data.folder.audit import EXPLANATIONS, Finding, Place, Suspicion, audit_folder
from ..data.folder.shards import read_row
from ..hub.grounding import Span
from ..hub.pixels import open_image
from .html import thumbnail_with_boxes, write_page

SHOWN = 50  # findings of a kind that are shown with images; all are counted
_THUMBNAIL_PX = 320
_MAX_TEXT = 400  # characters
_MAX_LABEL = 40


@dataclass(frozen=True)
class Figure:
    """A finding on the page. images: data URIs. lines: the text below them."""

    images: list[str]
    lines: list[str]


@dataclass
class FindingKind:
    """All findings of one kind on the page: their number, and the figures of the first of them."""

    name: str
    title: str
    explanation: str
    count: int = 0
    figures: list[Figure] = field(default_factory=list)


def write_audit(folder: Path, out: Path, shown: int = SHOWN) -> dict[Suspicion, int]:
    """Write the audit of a Med-GRIT folder to the HTML file `out`; returns the number of findings by kind.

    shown: how many findings of a kind are shown with their images. Raises ValueError if the folder is not a Med-GRIT
    folder or cannot be read, or `out` is not the name of an HTML file in an existing folder.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{out}: the report is HTML; give a name that ends in .html")
    if not out.parent.is_dir() or out.is_dir():
        raise ValueError(
            f"{out} is a folder, or its folder does not exist; give the name of a file in an existing folder"
        )
    kinds = {
        kind: FindingKind(kind.value, kind.value.replace("_", " "), EXPLANATIONS[kind]) for kind in Suspicion
    }
    for finding in audit_folder(folder):
        kind = kinds[finding.suspicion]
        kind.count += 1
        if kind.count <= shown:
            kind.figures.append(_figure(finding))
    title = f"Audit of {folder.resolve().name}"
    write_page(out, "audit.html", title=title, kinds=list(kinds.values()))
    return {suspicion: kind.count for suspicion, kind in kinds.items()}


def _figure(finding: Finding) -> Figure:
    images = [_thumbnail(finding.place, finding.spans)]
    if finding.other:
        images.append(_thumbnail(finding.other, ()))
    place = f"{finding.place.path.parent.name}/{finding.place.path.name}, row {finding.place.row}"
    return Figure(images, [line[:_MAX_TEXT] for line in (finding.image_id, finding.detail, place)])


def _thumbnail(place: Place, spans: Iterable[Span]) -> str:
    """The data URI of a row's image with boxes; a grey image if the row has none that can be read."""
    cell = read_row(place.path, place.row, ["image"])["image"]
    try:
        image = open_image(cell["bytes"] if cell and cell["bytes"] else b"")
    except ValueError:
        image = Image.new("RGB", (_THUMBNAIL_PX, _THUMBNAIL_PX), "#444444")
    return thumbnail_with_boxes(image, map(_with_short_phrase, spans), _THUMBNAIL_PX)


def _with_short_phrase(span: Span) -> Span:
    """The span with a phrase that fits on a thumbnail."""
    phrase = " ".join(span.phrase.split())[:_MAX_LABEL]
    return Span(phrase, 0, len(phrase), span.boxes)
