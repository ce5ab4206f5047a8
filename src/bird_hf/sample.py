"""`bird quickstart`: installs the embedded checkpoint and sample data, and shows answers to held-out questions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from .atomic_writes import replacing_folder
from .checkpoint.load import copy_code
from .data.embedded.sample_set import write_sample
from .draw import captioned, contact_sheet, save_png
from .hub.grounding import GroundedText, read
from .inference import Answer, load
from .questions import Query

if TYPE_CHECKING:
    from datasets import Dataset

NOTICE = "For research only. Not for clinical use."
_TASK_NAMES = {
    "vg": "visual grounding",
    "roc": "referring object classification",
    "rc": "referring captioning",
    "mia": "medical image analysis",
}


@dataclass(frozen=True)
class Example:
    """One question of the test split, with the reference answer and the model's."""

    image_id: str
    task: str
    image: Image.Image
    question: GroundedText
    reference: GroundedText
    answer: Answer


def embedded_checkpoint() -> Path:
    """The folder of the embedded checkpoint, inside the package."""
    return Path(__file__).parent / "assets" / "bird-nano"


def install_checkpoint(out: Path) -> None:
    """Copy the embedded checkpoint to the folder `out`, replacing files of the same names.

    Raises ValueError if `out` is a file.
    """
    with replacing_folder(out) as making:
        shutil.copytree(embedded_checkpoint(), making, dirs_exist_ok=True)
        copy_code(making)


def quickstart(out: Path) -> Iterator[Example]:
    """Write bird, med-grit and quickstart/*.png into `out`; yields the examples in the order of the pictures.

    The model answers one question of each task about a held-out slice of MR, one of CT, and one phantom of each other
    modality.
    """
    install_checkpoint(out / "bird")
    write_sample(out / "med-grit")
    examples = answer_examples(out / "bird", out / "med-grit")
    pictures = out / "quickstart"
    pictures.mkdir(exist_ok=True)
    sheets = []
    for image_id in dict.fromkeys(example.image_id for example in examples):
        shown = [example for example in examples if example.image_id == image_id]
        sheet = contact_sheet([picture_of(example) for example in shown], columns=len(shown))
        save_png(sheet, pictures / f"{image_id}.png")
        sheets.append(sheet)
    save_png(contact_sheet(sheets, columns=1), pictures / "all.png")
    yield from examples


def answer_examples(model_folder: Path, data_folder: Path) -> list[Example]:
    """Ask the model one question of each task about one test image of each modality."""
    rows = example_rows(data_folder)
    questions = [row["messages"][0]["content"] for row in rows]
    queries = [Query(question, row["image"]) for question, row in zip(questions, rows, strict=True)]
    answers = load(model_folder).answers(queries, progress=True)
    return [
        Example(
            image_id=row["image_id"],
            task=row["task"],
            image=row["image"],
            question=read(question),
            reference=read(row["messages"][1]["content"]),
            answer=answer,
        )
        for row, question, answer in zip(rows, questions, answers, strict=True)
    ]


def example_rows(data_folder: Path) -> list[dict[str, Any]]:
    """The first test row of each task for one image of each modality, grouped by image."""
    from datasets import load_dataset

    tasks = {task: load_dataset(str(data_folder), task, split="test") for task in _TASK_NAMES}
    first_row = {task: _first_rows(dataset) for task, dataset in tasks.items()}
    return [
        tasks[task][first_row[task][image_id]]
        for image_id in _chosen_images(data_folder)
        for task in tasks
        if image_id in first_row[task]
    ]


def _chosen_images(data_folder: Path) -> list[str]:
    """One image of each modality: the one with the most objects, among real images if the modality has any."""
    from datasets import load_dataset

    chat = load_dataset(str(data_folder), "chat", split="test")
    best: dict[str, tuple[tuple[bool, int], str]] = {}
    for row in chat.select_columns(["image_id", "modality", "synthetic", "objects"]):
        rank = (not row["synthetic"], sum(item["present"] for item in row["objects"]))
        if row["modality"] not in best or rank > best[row["modality"]][0]:
            best[row["modality"]] = (rank, row["image_id"])
    return [image_id for _, image_id in best.values()]


def _first_rows(dataset: Dataset) -> dict[str, int]:
    """The number of the first row of each image."""
    places: dict[str, int] = {}
    for place, image_id in enumerate(dataset["image_id"]):
        places.setdefault(image_id, place)
    return places


def picture_of(example: Example) -> Image.Image:
    """The image with the boxes of the question, the answer and the reference, and their words below it."""
    return captioned(
        example.answer.draw(example.reference.spans),
        [
            _TASK_NAMES[example.task],
            f"Q: {example.question.text}",
            f"A: {example.answer.text}",
            f"reference: {example.reference.text}",
        ],
    )
