"""`bird data review`: what a build took from its source and wrote, for people to accept or reject.

Two tables to decide in (see data/review_files.py), and an HTML file that shows the sampled turns on their pictures. It
needs nothing else; whatever comes from the data is escaped, and the page forbids scripts and loads nothing.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from .data.build.pipeline import built_state
from .data.build.review_files import (
    LABEL_COLUMNS,
    LABELS,
    REPLIES,
    REPLY_COLUMNS,
    read_review,
    read_table,
    write_table,
)
from .data.build.review_lines import WrittenTurn, label_lines, readable, reply_lines, sample_turns
from .data.build.state import BuildState
from .data.sources.open import open_source
from .html_page import picture_with_boxes, write_page
from .hub.pixels import open_image

PAGE = "replies.html"
_THUMBNAIL_PX = 360
_KEY_SHOWN = 12  # letters of a key: enough to find its line

_BODY = """\
<p>Decide in {table}: each line there begins with the key that stands under a picture here. For research only.</p>
<main class="figures">
{figures}</main>"""


def write_review(out: Path, each: int, source: Path | None = None) -> dict[Path, int]:
    """Write `out`/review for the build in `out`; returns the files with the number of names or turns in them.

    each: turns of each modality and task. source: where pictures are read that the build holds no copy of. Earlier
    decisions stay. Raises ValueError, in one line, where `out` is no build's, or an earlier table is faulty.
    """
    folder = out / "review"
    pictures = open_source(source) if source else None

    def picture(state: BuildState, image_id: str) -> Image.Image | None:
        try:
            if png := state.png(image_id):
                return open_image(png)
            pixels = pictures.read(state.candidate(image_id)).pixels if pictures else None
        except ValueError:
            return None
        return None if pixels is None else Image.fromarray(np.asarray(pixels)).convert("RGB")

    with built_state(out) as (state, settings):
        read_review(folder)  # faults are said before anything is written
        labels = label_lines(state, read_table(folder / LABELS, LABEL_COLUMNS))
        turns = sample_turns(state, settings.seed, each)
        replies = reply_lines(turns, read_table(folder / REPLIES, REPLY_COLUMNS))
        figures = "".join(_figure(turn, picture(state, turn.image_id)) for turn in turns)
    folder.mkdir(exist_ok=True)
    write_table(folder / LABELS, LABEL_COLUMNS, labels)
    write_table(folder / REPLIES, REPLY_COLUMNS, replies)
    write_page(folder / PAGE, "Replies to review", _BODY.format(table=REPLIES, figures=figures))
    return {folder / LABELS: len(labels), folder / REPLIES: len(replies), folder / PAGE: len(turns)}


def _figure(turn: WrittenTurn, picture: Image.Image | None) -> str:
    shown = "" if picture is None else picture_with_boxes(picture, turn.spans, _THUMBNAIL_PX)
    words = "<br>".join(f"<bdi>{escape(readable(text))}</bdi>" for text in (turn.question, turn.answer))
    about = escape(f"{turn.key[:_KEY_SHOWN]} · {turn.task} · {turn.image_id}")
    return f"<figure>{shown}<figcaption>{words}<br><small>{about}</small></figcaption></figure>\n"
