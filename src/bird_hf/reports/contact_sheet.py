"""`bird data show`: a picture of some rows of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.folder.publish import open_folder
from ..draw import captioned, contact_sheet, draw_spans
from ..hub.grounding import read

COLUMNS = 4
_TURNS_SHOWN = 6  # of a row of `chat`


def contact_sheet_of(folder: Path, task: str, split: str, count: int) -> Image.Image:
    """Draw `count` rows, evenly spaced over a split: images with the boxes and the text of their turns.

    Raises ValueError if the folder is not a Med-GRIT folder, or has no such task or split.
    """
    dataset = open_folder(folder, task, split)
    places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    return contact_sheet([picture_of_row(dataset[int(place)]) for place in places], COLUMNS)


def picture_of_row(row: dict[str, Any]) -> Image.Image:
    """Draw one row: the image with the boxes of its turns, its name, and the text of the turns."""
    if row["image"] is None:
        raise ValueError(
            f"row {row['image_id']} has no pixels; join the rows with your copy of the images first"
        )
    turns = [read(message["content"]) for message in row["messages"][: 2 * _TURNS_SHOWN]]
    spans = [span for turn in turns for span in turn.spans if span.boxes]
    lines = [f"{'QA'[number % 2]}: {turn.text}" for number, turn in enumerate(turns)]
    return captioned(draw_spans(row["image"], spans), [row["image_id"], *lines])
