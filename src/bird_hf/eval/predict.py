"""Questions in, answers out: batched greedy generation."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from tqdm import tqdm

from ..checkpoint.load import load_checkpoint
from ..data.folder.publish import open_folder
from ..data.records import SINGLE_TASKS
from .hallucination import missing_objects
from .predictions import Prediction, finished, write_predictions
from .runs import Run, begin_run, prediction_file, weights_sha256

if TYPE_CHECKING:
    from datasets import Dataset

    from ..hub.modeling_bird import BirdForConditionalGeneration
    from ..hub.processing_bird import BirdProcessor

MAX_NEW_TOKENS = 128  # two boxes and a long name take about 70
_ABOUT_IMAGES = ["image_id", "modality", "objects", "synthetic"]


@dataclass(frozen=True)
class Query:
    """A tagged question about an image; None for a question without one."""

    question: str
    image: Image.Image | None


@torch.inference_mode()
def generate_answers(
    model: BirdForConditionalGeneration,
    processor: BirdProcessor,
    queries: Sequence[Query],
    batch_size: int = 32,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: bool = False,
) -> list[str]:
    """The model's tagged answers, in the order of the queries. Greedy; batches are padded on the left.

    An image object that several queries of a batch share is computed once for them.
    Questions are user text: <ref> and <box> in them are read as tags, any other control token is plain text.
    """
    # Questions of like length go together, so that little is padding.
    order = sorted(range(len(queries)), key=lambda index: len(queries[index].question))
    answers = [""] * len(queries)
    with tqdm(total=len(queries), desc="answering", unit="question", disable=not progress) as bar:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            texts = _generate(model, processor, [queries[index] for index in batch], max_new_tokens)
            for index, text in zip(batch, texts, strict=True):
                answers[index] = text
            bar.update(len(batch))
    return answers


def _generate(
    model: BirdForConditionalGeneration,
    processor: BirdProcessor,
    queries: Sequence[Query],
    max_new_tokens: int,
) -> list[str]:
    inputs = processor.apply_chat_template(
        [_conversation(query) for query in queries],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"padding": True, "padding_side": "left"},
    ).to(model.device)
    _compute_images_once(model, inputs, [query.image for query in queries if query.image is not None])
    output = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
    return processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def _compute_images_once(
    model: BirdForConditionalGeneration, inputs: MutableMapping[str, Any], images: Sequence[Image.Image]
) -> None:
    """Where a batch asks about one image object several times, put its features in the place of the pixels."""
    first: dict[int, int] = {}
    for place, image in enumerate(images):
        first.setdefault(id(image), place)
    if len(first) < len(images):
        pixels = inputs.pop("pixel_values")[list(first.values())]
        seen: Any = model.get_image_features(pixels)
        features = dict(zip(first, seen.pooler_output, strict=True))
        inputs["image_features"] = [features[id(image)] for image in images]


def _conversation(query: Query) -> list[dict]:
    content: list[dict] = [{"type": "text", "text": query.question}]
    if query.image is not None:
        content.insert(0, {"type": "image", "image": query.image})
    return [{"role": "user", "content": content}]


def predict_dataset(
    model: BirdForConditionalGeneration,
    processor: BirdProcessor,
    dataset: Dataset,
    out: Path,
    batch_size: int = 32,
) -> int:
    """Answer every single-turn row of a dataset into a prediction file; returns how many were new.

    Answers are appended as they come, so a stopped run goes on where it was. Raises ValueError where `out` holds
    answers to other questions.
    """
    questions = _questions_of(dataset)
    return _answer(model, processor, questions, _Images([dataset]), out, batch_size)


def predict_run(
    checkpoint: Path, data: Path, out: Path, split: str = "test", batch_size: int = 32
) -> dict[str, int]:
    """Answer a whole split, every task of it and the fixed questions for objects that are not there, into a folder.

    Returns the number of questions by kind; a stopped run goes on. Raises ValueError where `data` has no tasks, or
    `out` holds the answers of another model or to other questions.
    """
    # data/TASK is where a published folder keeps a task; a folder laid out in another way must have all.
    names = [task for task in SINGLE_TASKS if (data / "data" / task).is_dir()] or SINGLE_TASKS
    tasks = {task: open_folder(data, task, split) for task in names}
    questions = {task.value: _questions_of(dataset) for task, dataset in tasks.items()}
    rows = (row for each in tasks.values() for row in each.select_columns(_ABOUT_IMAGES))
    questions |= {kind.value: asked for kind, asked in missing_objects(rows).items() if asked}
    counts = {kind: len(asked) for kind, asked in questions.items()}
    model, processor = load_checkpoint(checkpoint)
    begin_run(
        out,
        Run(checkpoint.resolve().name, weights_sha256(checkpoint), data.resolve().name, split, counts),
    )
    images = _Images(tasks.values())
    for kind, asked in questions.items():
        _answer(model, processor, asked, images, prediction_file(out, kind), batch_size)
    return counts


class _Images:
    """The images of datasets by file name; each is opened when it is asked for."""

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
    """The rows of a single-turn dataset as predictions that wait for their response."""
    columns = ["image_id", "messages", "task", "synthetic"]
    questions = [
        Prediction(number, f"{row['image_id']}.png", row["messages"][0]["content"], row["messages"][1]["content"],
                   "", row["task"], row["synthetic"])
        for number, row in enumerate(dataset.select_columns(columns))
    ]  # fmt: skip
    for question in questions:
        assert question.modality  # or it raises: now, not when all is answered
    return questions


def _answer(
    model: BirdForConditionalGeneration,
    processor: BirdProcessor,
    questions: Sequence[Prediction],
    images: _Images,
    out: Path,
    batch_size: int,
) -> int:
    done = finished(out, questions)
    write_predictions(out, done.values())  # without a line that was cut off
    left = [each for each in questions if each.id not in done]
    with (
        out.open("a", encoding="utf-8") as file,
        tqdm(total=len(questions), initial=len(done), desc=out.stem) as bar,
    ):
        for start in range(0, len(left), batch_size):
            batch = left[start : start + batch_size]
            opened = {name: images[name] for name in {each.image for each in batch}}
            queries = [Query(each.question, opened[each.image]) for each in batch]
            answers = generate_answers(model, processor, queries, batch_size)
            for each, answer in zip(batch, answers, strict=True):
                done[each.id] = replace(each, response=answer)
                file.write(done[each.id].as_line())
            file.flush()
            bar.update(len(batch))
    write_predictions(out, done.values())
    return len(left)
