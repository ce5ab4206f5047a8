"""What is checked before the first step: lengths, answer tokens, and boxes as they are read back from the labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image

from ...dialects import Dialect, View
from ...hub.boxes import Box
from ...hub.grounding import read
from ...progress import progress_bar
from ..collate import DROP, IGNORED
from .encode import Encoder

_READ_BACK = 16  # answers with boxes that are decoded from their labels
_NOISE = 1e-6

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checked:
    """What was found in the questions that will be trained.

    tokens, answer_tokens: of all questions. longest: tokens of the longest. read_back: answers with boxes whose labels
    were decoded and read, and example: the text of the first.
    """

    questions: int
    tokens: int
    answer_tokens: int
    longest: int
    read_back: int
    example: str

    def __str__(self) -> str:
        return (
            f"{self.questions:,} questions: {self.answer_tokens:,} of {self.tokens:,} tokens are answers and learnt; "
            f"the longest has {self.longest:,} tokens; {self.read_back} answers with boxes were decoded from their "
            f"labels and read back to the boxes of the rows, such as {self.example}"
        )


def checked_questions(
    dataset: Dataset, encoder: Encoder, dialect: Dialect, max_length: int | None, too_long: str
) -> tuple[Dataset, Checked]:
    """The questions that can be trained, and what was found.

    Questions of more than `max_length` tokens are left out and counted if `too_long` is "drop": cutting one would cut
    the answer, or the tokens of the image. Raises ValueError, in one line, if one is too long else, if no answer has a
    box, or if the labels of one do not read back to the boxes of its row.
    """
    lengths, answers = _lengths(dataset, encoder)
    over = np.flatnonzero(lengths > (max_length or np.inf))
    if len(over):
        longest = int(lengths.argmax())
        row = dataset.with_format(None).select_columns(["image_id"])[longest]["image_id"]
        said = (
            f"{len(over)} of {len(dataset)} questions have more than {max_length} tokens, the longest "
            f"{lengths[longest]} (row {row})"
        )
        if too_long != DROP or len(over) == len(dataset):
            raise ValueError(
                f"{said}; raise max_length, make images smaller, or set too_long: drop: cutting would cut the answer"
            )
        log.warning("%s; they are left out", said)
        kept = np.flatnonzero(lengths <= max_length)
        dataset, lengths, answers = dataset.select(kept), lengths[kept], answers[kept]
    read_back, example = _read_back(dataset, encoder, dialect)
    found = Checked(
        len(dataset), int(lengths.sum()), int(answers.sum()), int(lengths.max()), read_back, example
    )
    return dataset, found


def _lengths(dataset: Dataset, encoder: Encoder) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each question with its answer, and of each answer, (N,) each.

    How many tokens an image adds depends on its size alone, so one image of each size is processed.
    """
    added: dict[tuple[int, ...], int] = {}
    lengths, answers = np.zeros((2, len(dataset)), dtype=np.int64)
    rows = dataset.with_format(None).select_columns(["image_id", "image_wh", "history", "question", "answer"])
    for number, row in enumerate(progress_bar(rows, total=len(rows), desc="counting tokens", leave=False)):
        question, answer = encoder.texts(row)
        words = encoder.question_length(question)
        size = tuple(row["image_wh"])
        if size not in added:
            blank = row | {"image": Image.new("RGB", size)}
            added[size] = encoder.questions([blank])["input_ids"].shape[1] - words
        answers[number] = len(encoder.answer_ids(question, answer))
        lengths[number] = words + added[size] + answers[number]
    return lengths, answers


def _read_back(dataset: Dataset, encoder: Encoder, dialect: Dialect) -> tuple[int, str]:
    """How many answers were read back from their labels, and the text of the first."""
    references = dataset.with_format(None).select_columns(["reference"])["reference"]
    with_boxes = [number for number, reference in enumerate(references) if read(reference).boxes]
    if not with_boxes:
        raise ValueError("no answer of the dataset has a box; set dataset_config to chat or vg")
    places = np.linspace(0, len(with_boxes) - 1, min(_READ_BACK, len(with_boxes))).round().astype(int)
    texts = [_read_one(dataset[with_boxes[place]], encoder, dialect) for place in places]
    return len(texts), texts[0]


def _read_one(row: Mapping[str, Any], encoder: Encoder, dialect: Dialect) -> str:
    """The text of a row's labels, after it was read back to the boxes of the row."""
    batch = encoder.batch([row])
    view = dialect.view(tuple(row["image_wh"]))
    _check_resizing(batch, encoder, view, row)
    labels = batch["labels"][0]
    text = encoder.said(labels[labels != IGNORED].tolist())
    wanted, found = read(row["reference"]).boxes, dialect.read(text, view)
    if found.issues or not _are_near(wanted, found.boxes, view, dialect.quantum(view)):
        raise ValueError(
            f"row {row['image_id']}: its labels decode to {text[:120]!r}, which reads back to {len(found.boxes)} "
            f"boxes, not to the {len(wanted)} of the row; the tokenizer does not keep the marks of dialect "
            f"{dialect.name}"
        )
    return text


def _are_near(
    wanted: Sequence[Box], found: Sequence[Box], view: View, quantum_xy: tuple[float, float]
) -> bool:
    """Whether boxes are the same ones but for the rounding of the dialect, and of the thousandths of the rows."""
    x1, y1, x2, y2 = view.seen_px
    width, height = view.image_wh
    slack_x = quantum_xy[0] * (x2 - x1) / width + _NOISE
    slack_y = quantum_xy[1] * (y2 - y1) / height + _NOISE
    slacks = (slack_x, slack_y, slack_x, slack_y)
    return len(wanted) == len(found) and all(
        abs(one - other) <= slack
        for box, guess in zip(wanted, found, strict=True)
        for one, other, slack in zip(box.xyxy, guess.xyxy, slacks, strict=True)
    )


def _check_resizing(batch: Mapping[str, Any], encoder: Encoder, view: View, row: Mapping[str, Any]) -> None:
    """Raises ValueError if the processor resizes an image to another size than the dialect's numbers are for."""
    grid = batch.get("image_grid_thw")  # (images, 3): frames, patches down, patches across
    if view.resized_wh is None or grid is None:
        return
    patch = encoder.processor.image_processor.patch_size
    resized_wh = int(grid[0, 2]) * patch, int(grid[0, 1]) * patch
    if resized_wh != view.resized_wh:
        raise ValueError(
            f"row {row['image_id']}: the processor resizes its image to {resized_wh}, and the dialect counts pixels of "
            f"{view.resized_wh}; dialect.json was written for another processor"
        )
