"""Answer the questions of a Med-GRIT split into prediction files. A stopped run continues where it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ..checkpoint.load import find_checkpoint
from ..data.folder.publish import open_folder
from ..data.records import SINGLE_TASKS
from ..inference import GroundingModel, load
from ..progress import progress_bar
from ..questions import Query
from .checks import CHECKS, checks_of_rows
from .hallucination import missing_objects
from .predictions import Prediction, finished, write_predictions
from .run import Run, begin_run, prediction_file, weights_sha256

if TYPE_CHECKING:
    from datasets import Dataset

_IMAGE_COLUMNS = [
    "image_id", "image_wh", "modality", "region", "axis", "dataset", "case_id", "task", "objects", "synthetic",
    "teacher",
]  # fmt: skip


def predict_dataset(model: GroundingModel, dataset: Dataset, out: Path, batch_size: int = 32) -> int:
    """Answer every single-turn row of a dataset into a prediction file; returns the number of new answers.

    Answers are appended as they come, so a stopped run continues. Raises ValueError if `out` holds answers to other
    questions.
    """
    return _answer(model, _questions_of(dataset), _Images([dataset]), out, batch_size)


def predict_run(
    checkpoint: Path, data: Path, out: Path, split: str = "test", batch_size: int = 32
) -> dict[str, int]:
    """Answer a whole split into a folder: every task, the fixed questions about missing objects, and the checks.

    Returns the number of questions by kind; a stopped run continues. Raises ValueError if `data` has no tasks, or if
    `out` holds the answers of another model or to other questions.
    """
    # A published folder keeps each task in data/TASK; a folder with another layout must have all tasks.
    names = [task for task in SINGLE_TASKS if (data / "data" / task).is_dir()] or SINGLE_TASKS
    tasks = {task: open_folder(data, task, split) for task in names}
    questions = {task.value: _questions_of(dataset) for task, dataset in tasks.items()}
    rows = [row for each in tasks.values() for row in each.select_columns(_IMAGE_COLUMNS)]
    questions |= {kind.value: asked for kind, asked in missing_objects(rows).items() if asked}
    questions[CHECKS] = checks_of_rows(rows)
    counts = {kind: len(asked) for kind, asked in questions.items()}
    folder = find_checkpoint(checkpoint)
    model = load(folder)
    begin_run(out, Run(checkpoint.resolve().name, weights_sha256(folder), data.resolve().name, split, counts))
    images = _Images(tasks.values())
    for kind, asked in questions.items():
        _answer(model, asked, images, prediction_file(out, kind), batch_size)
    return counts


class _Images:
    """The images of datasets by file name; each is decoded when it is asked for."""

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self._places: dict[str, tuple[Dataset, int]] = {}
        for dataset in datasets:
            for number, image_id in enumerate(dataset["image_id"]):
                self._places.setdefault(f"{image_id}.png", (dataset, number))

    def __getitem__(self, name: str) -> Image.Image:
        dataset, number = self._places[name]
        image = dataset[number]["image"]
        if image is None:
            raise ValueError(
                f"{name}: the row has no pixels; join the data with your copy of the images first"
            )
        return image


def _questions_of(dataset: Dataset) -> list[Prediction]:
    """The rows of a single-turn dataset as predictions with an empty response."""
    columns = ["image_id", "messages", "task", "synthetic"]
    questions = [
        Prediction(number, f"{row['image_id']}.png", row["messages"][0]["content"], row["messages"][1]["content"],
                   "", row["task"], row["synthetic"])
        for number, row in enumerate(dataset.select_columns(columns))
    ]  # fmt: skip
    for question in questions:
        assert question.modality  # raises ValueError now, not after all questions are answered
    return questions


def _answer(
    model: GroundingModel, questions: Sequence[Prediction], images: _Images, out: Path, batch_size: int
) -> int:
    done = finished(out, questions)
    write_predictions(out, done.values())  # without a truncated last line
    left = [each for each in questions if each.id not in done]
    with (
        out.open("a", encoding="utf-8") as file,
        progress_bar(total=len(questions), initial=len(done), desc=out.stem) as bar,
    ):
        for start in range(0, len(left), batch_size):
            batch = left[start : start + batch_size]
            opened = {name: images[name] for name in {each.image for each in batch}}
            queries = [Query(each.question, opened[each.image]) for each in batch]
            for each, response in zip(batch, model.generate(queries, batch_size), strict=True):
                done[each.id] = replace(each, response=response)
                file.write(done[each.id].as_line())
            file.flush()
            bar.update(len(batch))
    write_predictions(out, done.values())
    return len(left)
