"""Answer the questions of a Med-GRIT split into prediction files. A stopped run continues where it was."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from ..checkpoint.load import find_checkpoint
from ..data.folder.publish import open_folder
from ..data.records import SINGLE_TASKS
from ..inference import GroundingModel, load
from ..progress import progress_bar
from ..questions import Query
from .checks import CHECKS, checks_of_rows
from .hallucination import missing_objects
from .llava_med import FolderImages, read_llava_med
from .predictions import Prediction, finished, write_predictions
from .run import Run, begin_run, prediction_file, weights_sha256
from .split_images import MissingPixelsError, SplitImages

if TYPE_CHECKING:
    from datasets import Dataset

_WINDOW = 16  # batches whose questions are ordered by length
_SHOWN = 5  # ids that a message lists
_ERROR_CHARS = 300
_IMAGE_COLUMNS = [
    "image_id", "image_wh", "modality", "region", "axis", "dataset", "case_id", "task", "objects", "synthetic",
    "teacher",
]  # fmt: skip


class _Images(Protocol):
    """Images by file name."""

    def __getitem__(self, name: str) -> Image.Image: ...


def load_for_prediction(
    checkpoint: Path, dtype: str | None = None, load_in_4bit: bool = False
) -> GroundingModel:
    """Load a checkpoint on the GPU of this process, else on the CPU.

    Raises ValueError as `bird_hf.load` does, or if weights in 4 bits are wanted and bitsandbytes is not installed.
    """
    import torch

    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else None
    if not load_in_4bit:
        return load(checkpoint, device, dtype)
    if find_spec("bitsandbytes") is None:
        raise ValueError(
            "--load-in-4bit needs bitsandbytes, which is not installed; pip install bitsandbytes"
        )
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype or "float32")
    return load(checkpoint, dtype=dtype, quantization_config=config, device_map={"": device or "cpu"})


def predict_dataset(model: GroundingModel, dataset: Dataset, out: Path, batch_size: int = 32) -> int:
    """Answer every single-turn row of a dataset into a prediction file; returns the number of new answers.

    Answers are appended as they come, so a stopped run continues. Raises ValueError if `out` holds answers to other
    questions, or if the model fails on every question.
    """
    return _answer(model, _questions_of(dataset), SplitImages([dataset]), out, batch_size)


def predict_llava_med(
    model: GroundingModel,
    questions: Path,
    images: Path,
    out: Path,
    batch_size: int = 32,
    limit: int | None = None,
) -> int:
    """Answer LLaVA-Med's questions (llava_med.py) into a prediction file; returns the number of new answers.

    images: the folder of their images. Raises ValueError as `read_llava_med` and `predict_dataset` do.
    """
    return _answer(model, read_llava_med(questions)[:limit], FolderImages(images), out, batch_size)


def predict_run(
    checkpoint: Path,
    data: Path,
    out: Path,
    split: str = "test",
    batch_size: int = 32,
    limit: int | None = None,
    dtype: str | None = None,
    load_in_4bit: bool = False,
) -> dict[str, int]:
    """Answer a whole split into a folder: every task, the fixed questions about missing objects, and the checks.

    limit: of the questions of each kind. Returns the number of questions by kind; a stopped run continues. Raises
    ValueError if `data` has no tasks, or if `out` holds the answers of another model or to other questions.
    """
    # A published folder keeps each task in data/TASK; a folder with another layout must have all tasks.
    names = [task for task in SINGLE_TASKS if (data / "data" / task).is_dir()] or SINGLE_TASKS
    tasks = {task: open_folder(data, task, split) for task in names}
    questions = {task.value: _questions_of(dataset) for task, dataset in tasks.items()}
    rows = [row for each in tasks.values() for row in each.select_columns(_IMAGE_COLUMNS)]
    questions |= {kind.value: asked for kind, asked in missing_objects(rows).items() if asked}
    questions[CHECKS] = checks_of_rows(rows)
    cases = {f"{row['image_id']}.png": row["case_id"] or None for row in rows}
    questions = {
        kind: [replace(each, case_id=cases[each.image]) for each in asked[:limit]]
        for kind, asked in questions.items()
    }
    counts = {kind: len(asked) for kind, asked in questions.items()}
    folder = find_checkpoint(checkpoint)
    model = load_for_prediction(folder, dtype, load_in_4bit)
    begin_run(out, Run(checkpoint.resolve().name, weights_sha256(folder), data.resolve().name, split, counts))
    images = SplitImages(tasks.values())
    for kind, asked in questions.items():
        _answer(model, asked, images, prediction_file(out, kind), batch_size)
    return counts


def is_main_process() -> bool:
    """Whether this is the only process, or the first of those that `accelerate launch` started."""
    return int(os.environ.get("RANK", "0")) == 0


def failed(out: Path) -> str:
    """Words about the questions of a prediction file on which the model failed; empty if there are none."""
    lines = (json.loads(line) for line in out.read_text(encoding="utf-8").split("\n") if line)
    rows = [row["id"] for row in lines if row.get("error")]
    if not rows:
        return ""
    shown = ", ".join(map(str, rows[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")
    return f"; the model failed on {len(rows)} (id {shown}), whose lines hold the error; run it again to ask them again"


def _questions_of(dataset: Dataset) -> list[Prediction]:
    """The rows of a single-turn dataset as predictions with an empty response."""
    columns = ["image_id", "messages", "task", "synthetic", "case_id"]
    questions = [
        Prediction(number, f"{row['image_id']}.png", row["messages"][0]["content"], row["messages"][1]["content"],
                   "", row["task"], row["synthetic"], None, row["case_id"] or None)
        for number, row in enumerate(dataset.select_columns(columns))
    ]  # fmt: skip
    for question in questions:
        assert question.modality  # raises ValueError now, not after all questions are answered
    return questions


def _answer(
    model: GroundingModel, questions: Sequence[Prediction], images: _Images, out: Path, batch_size: int
) -> int:
    """Answer what `out` does not hold yet; several processes answer a share each, and the first joins their files."""
    with _processes() as wait:
        if is_main_process():
            # Without a truncated last line, and with what the processes of a stopped run have written.
            write_predictions(out, _done(out, questions).values())
            for part in _parts(out):
                part.unlink()
        wait()
        done = finished(out, questions)
        left = _batches([each for each in questions if each.id not in done], batch_size)
        rank, number = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        wait()  # the first process may not write before the others have read
        part = out if number == 1 else out.with_name(f"{out.name}.part-{rank}")
        _answer_share(model, left[rank::number], images, part, (len(done), len(questions)))
        wait()
        if is_main_process():
            everything = _done(out, questions, keep_failed=True)
            write_predictions(out, everything.values())
            for each in _parts(out):
                each.unlink()
        wait()
    answered = finished(out, questions)
    if questions and not answered:
        raise ValueError(f"the model failed on every question; {out} holds the errors")
    return sum(map(len, left))


def _answer_share(
    model: GroundingModel,
    batches: Sequence[Sequence[Prediction]],
    images: _Images,
    part: Path,
    progress: tuple[int, int],
) -> None:
    with (
        part.open("a", encoding="utf-8") as file,
        progress_bar(total=progress[1], initial=progress[0], desc=part.name.split(".")[0]) as bar,
    ):
        for batch in batches:
            for each in _answer_batch(model, batch, images):
                file.write(each.as_line())
            file.flush()
            bar.update(len(batch))


def _answer_batch(model: GroundingModel, batch: Sequence[Prediction], images: _Images) -> list[Prediction]:
    """The answers of a batch. If it fails, its questions are asked one by one, and those that fail hold the error."""
    try:
        opened = {name: images[name] for name in {each.image for each in batch}}
        queries = [Query(each.question, opened[each.image]) for each in batch]
        responses = model.generate(queries, len(batch))
    except MissingPixelsError:
        raise
    except Exception as error:  # an image or a question can make any layer fail
        if len(batch) > 1:
            return [answer for each in batch for answer in _answer_batch(model, [each], images)]
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return [replace(batch[0], error=reason[:_ERROR_CHARS])]
    return [replace(each, response=response) for each, response in zip(batch, responses, strict=True)]


def _batches(questions: Sequence[Prediction], batch_size: int) -> list[list[Prediction]]:
    """Questions of similar length together, so that little is padded; images stay close to each other."""
    batches = []
    window = batch_size * _WINDOW
    for start in range(0, len(questions), window):
        near = sorted(questions[start : start + window], key=lambda each: len(each.question))
        batches += [near[place : place + batch_size] for place in range(0, len(near), batch_size)]
    return batches


def _done(out: Path, questions: Sequence[Prediction], keep_failed: bool = False) -> dict[int, Prediction]:
    """The answers in `out` and in the files of single processes, by id."""
    done: dict[int, Prediction] = {}
    for path in (out, *_parts(out)):
        done |= finished(path, questions, keep_failed)
    return done


def _parts(out: Path) -> list[Path]:
    return sorted(out.parent.glob(f"{glob.escape(out.name)}.part-*"))


@contextmanager
def _processes() -> Iterator[Callable[[], None]]:
    """Gives a function that waits for the other processes; with one process it does nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield lambda: None
        return
    import torch
    from accelerate import PartialState

    yield PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone
