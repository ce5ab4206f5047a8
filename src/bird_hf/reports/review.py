"""`bird data review`: what a build took from its source and wrote, for people to accept or reject.

Two tables hold the decisions (see `data/build/review_files.py`), and an HTML page shows the sampled turns on their
images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.build.pipeline import built_state
from ..data.build.reading import opened
from ..data.build.review_files import (
    LABEL_COLUMNS,
    LABELS,
    REPLIES,
    REPLY_COLUMNS,
    read_review,
    read_table,
)
from ..data.build.review_lines import WrittenTurn, label_lines, readable, reply_lines, sample_turns
from ..data.build.state import BuildState
from ..data.folder.spreadsheet import write_table
from ..hub.pixels import open_image
from .html import thumbnail_with_boxes, write_page

PAGE = "replies.html"
_THUMBNAIL_PX = 360
_KEY_SHOWN = 12  # characters of a key, enough to find its line


@dataclass(frozen=True)
class Figure:
    """A turn on the page. image: a data URI, or None if the image cannot be read."""

    image: str | None
    question: str
    answer: str
    source: str


def write_review(out: Path, each: int, source: Path | None = None) -> dict[Path, int]:
    """Write the tables and the page to `out`/review for the build in `out`; returns the number of lines of each file.

    each: turns of each modality and task. source: the source of the build, for images that the build did not keep.
    Earlier decisions are kept. Raises ValueError if `out` is not the folder of a build, or an earlier table is invalid.
    """
    folder = out / "review"

    def read_image(state: BuildState, image_id: str) -> Image.Image | None:
        try:
            if png := state.png(image_id):
                return open_image(png)
            pixels = images.read(state.candidate(image_id)).pixels if images else None
        except ValueError:
            return None
        return None if pixels is None else Image.fromarray(np.asarray(pixels)).convert("RGB")

    with built_state(out) as (state, settings):
        images = opened(source, settings.modality) if source else None
        read_review(folder)  # raises for an invalid table before anything is written
        labels = label_lines(state, read_table(folder / LABELS, LABEL_COLUMNS))
        turns = sample_turns(state, settings.seed, each)
        replies = reply_lines(turns, read_table(folder / REPLIES, REPLY_COLUMNS))
        figures = [_figure(turn, read_image(state, turn.image_id)) for turn in turns]
    folder.mkdir(exist_ok=True)
    write_table(folder / LABELS, LABEL_COLUMNS, labels)
    write_table(folder / REPLIES, REPLY_COLUMNS, replies)
    write_page(folder / PAGE, "review.html", title="Replies to review", table=REPLIES, figures=figures)
    return {folder / LABELS: len(labels), folder / REPLIES: len(replies), folder / PAGE: len(turns)}


def _figure(turn: WrittenTurn, image: Image.Image | None) -> Figure:
    return Figure(
        None if image is None else thumbnail_with_boxes(image, turn.spans, _THUMBNAIL_PX),
        readable(turn.question),
        readable(turn.answer),
        f"{turn.key[:_KEY_SHOWN]} · {turn.task} · {turn.image_id}",
    )
