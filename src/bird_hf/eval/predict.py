"""Answer the questions of a Med-GRIT split into prediction files. A stopped run continues where it was."""

from __future__ import annotations

import glob
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from ..answering import AskedModel, Decoding, StoppedError
from ..asking import ModelChoice, open_model
from ..checkpoint.load import find_checkpoint
from ..data.folder.publish import open_folder
from ..data.records import SINGLE_TASKS, Task
from ..progress import progress_bar
from ..questions import Query
from .checks import CHECKS, Check, checks_of_rows, task_of_check
from .hallucination import missing_objects
from .llava_med import FolderImages, read_llava_med
from .outcomes import asks_for_box
from .predictions import LLAVA_MED, Prediction, finished, write_predictions
from .run import Run, begin_run, prediction_file, weights_sha256
from .split_images import MissingPixelsError, SplitImages

if TYPE_CHECKING:
    from datasets import Dataset

_WINDOW = 16  # batches whose questions are ordered by length
_SHOWN = 5  # ids that a message lists
_ERROR_CHARS = 300
_GREEDY = Decoding()
_log = logging.getLogger(__name__)
_IMAGE_COLUMNS = [
    "image_id", "image_wh", "modality", "region", "axis", "dataset", "case_id", "task", "objects", "synthetic",
    "teacher",
]  # fmt: skip


class _Images(Protocol):
    """Images by file name."""

    def __getitem__(self, name: str) -> Image.Image: ...


def load_for_prediction(
    model: Path | str | ModelChoice, dtype: str | None = None, load_in_4bit: bool = False
) -> AskedModel:
    """Open a model; a checkpoint on the GPU of this process, else on the CPU.

    Raises ValueError as `open_model` does, or if weights in 4 bits are wanted and bitsandbytes is not installed.
    """
    choice = _choice(model, dtype, load_in_4bit)
    if choice.is_endpoint or choice.device is not None:
        return open_model(choice)
    import torch

    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else None
    return open_model(replace(choice, device=device))


def predict_dataset(
    model: AskedModel, dataset: Dataset, out: Path, batch_size: int = 32, decoding: Decoding = _GREEDY
) -> int:
    """Answer every single-turn row of a dataset into a prediction file; returns the number of new answers.

    Answers are appended as they come, so a stopped run continues. Raises ValueError if `out` holds answers to other
    questions, if the model has no way to be asked any of them, or if it fails on every question.
    """
    questions = _questions_of(dataset)
    if questions and not any(model.asks(_query(each)) for each in questions):
        raise ValueError(f"{model.dialect_name} has no way to ask questions of the task {questions[0].task}")
    return _answer(model, questions, SplitImages([dataset]), out, batch_size, decoding)


def predict_llava_med(
    model: AskedModel,
    questions: Path,
    images: Path,
    out: Path,
    batch_size: int = 32,
    limit: int | None = None,
    decoding: Decoding = _GREEDY,
) -> int:
    """Answer LLaVA-Med's questions (llava_med.py) into a prediction file; returns the number of new answers.

    images: the folder of their images. Raises ValueError as `read_llava_med` and `predict_dataset` do.
    """
    asked = read_llava_med(questions)[:limit]
    return _answer(model, asked, FolderImages(images), out, batch_size, decoding)


def predict_run(
    model: Path | str | ModelChoice,
    data: Path,
    out: Path,
    split: str = "test",
    batch_size: int = 32,
    limit: int | None = None,
    dtype: str | None = None,
    load_in_4bit: bool = False,
    decoding: Decoding = _GREEDY,
) -> dict[str, int]:
    """Answer a whole split into a folder: every task, the fixed questions about missing objects, and the checks.

    limit: of the questions of each kind. Returns the number of questions by kind; a stopped run continues. Questions
    that the model has no way to be asked are left out, with a warning. Raises ValueError if `data` has no tasks, or if
    `out` holds the answers of another model or to other questions.
    """
    questions, images = _questions_of_split(data, split, limit)
    choice = _choice(model, dtype, load_in_4bit)
    opened = load_for_prediction(choice)
    questions = {kind: _askable(opened, kind, asked) for kind, asked in questions.items()}
    questions = {kind: asked for kind, asked in questions.items() if asked}
    counts = {kind: len(asked) for kind, asked in questions.items()}
    begin_run(out, _run_of(choice, opened, Run("", "", data.resolve().name, split, counts), decoding))
    for kind, asked in questions.items():
        _answer(opened, asked, images, prediction_file(out, kind), batch_size, decoding)
    return counts


def _questions_of_split(
    data: Path, split: str, limit: int | None
) -> tuple[dict[str, list[Prediction]], SplitImages]:
    """All questions about a split by kind, and its images."""
    # A published folder keeps each task in data/TASK; a folder with another layout must have all tasks.
    names = [task for task in SINGLE_TASKS if (data / "data" / task).is_dir()] or SINGLE_TASKS
    tasks = {task: open_folder(data, task, split) for task in names}
    questions = {task.value: _questions_of(dataset) for task, dataset in tasks.items()}
    rows = [row for each in tasks.values() for row in each.select_columns(_IMAGE_COLUMNS)]
    questions |= {kind.value: asked for kind, asked in missing_objects(rows).items() if asked}
    questions[CHECKS] = checks_of_rows(rows)
    cases = {f"{row['image_id']}.png": row["case_id"] or None for row in rows}
    found = {
        kind: [replace(each, case_id=cases[each.image]) for each in asked[:limit]]
        for kind, asked in questions.items()
    }
    return found, SplitImages(tasks.values())


def _choice(model: Path | str | ModelChoice, dtype: str | None, load_in_4bit: bool) -> ModelChoice:
    if isinstance(model, ModelChoice):
        return model
    return ModelChoice(os.fspath(model), dtype=dtype, load_in_4bit=load_in_4bit)


def _run_of(choice: ModelChoice, model: AskedModel, run: Run, decoding: Decoding) -> Run:
    """The run of a model: its name, its weights if they are here, and how it is asked."""
    dialect = "" if model.dialect_name == "bird" else model.dialect_name
    sampling = "" if decoding.is_greedy else f"{decoding.n} at temperature {decoding.temperature:g}"
    run = replace(run, dialect=dialect, sampling=sampling)
    if choice.is_endpoint:
        return replace(run, model=model.name)
    folder = find_checkpoint(choice.model)
    return replace(run, model=Path(choice.model).resolve().name, weights_sha256=weights_sha256(folder))


def _askable(model: AskedModel, kind: str, asked: Sequence[Prediction]) -> list[Prediction]:
    kept = [each for each in asked if model.asks(_query(each))]
    if len(kept) < len(asked):
        _log.warning(
            "%s: %s of %s questions are left out, which %s has no way to ask",
            kind, len(asked) - len(kept), len(asked), model.dialect_name,
        )  # fmt: skip
    return [replace(each, id=number) for number, each in enumerate(kept)]


def _query(asked: Prediction, image: Image.Image | None = None) -> Query:
    return Query(asked.question, image, task=_task_of(asked), names=asked.names)


def _task_of(asked: Prediction) -> str:
    """The task of a question of any kind; empty if it is not known."""
    if asked.task == CHECKS:
        return task_of_check(Check(str((asked.facts or {})["check"])))
    if asked.task == LLAVA_MED:  # questions about the whole image
        return Task.IMAGE_ANALYSIS.value
    return Task.VISUAL_GROUNDING.value if asks_for_box(asked.task) else asked.task


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
    columns = ["image_id", "messages", "task", "synthetic", "case_id", "objects"]
    questions = [
        Prediction(number, f"{row['image_id']}.png", row["messages"][0]["content"], row["messages"][1]["content"],
                   "", row["task"], row["synthetic"], None, row["case_id"] or None, names=_names_of(row))
        for number, row in enumerate(dataset.select_columns(columns))
    ]  # fmt: skip
    for question in questions:
        assert question.modality  # raises ValueError now, not after all questions are answered
    return questions


def _names_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The objects that a vg row asks for; no names for other tasks."""
    is_vg = row["task"] == Task.VISUAL_GROUNDING
    return tuple(dict.fromkeys(item["label"] for item in row["objects"])) if is_vg else ()


def _answer(
    model: AskedModel,
    questions: Sequence[Prediction],
    images: _Images,
    out: Path,
    batch_size: int,
    decoding: Decoding,
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
        _check_samples(out, done, decoding)
        left = _batches([each for each in questions if each.id not in done], batch_size)
        rank, number = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        wait()  # the first process may not write before the others have read
        part = out if number == 1 else out.with_name(f"{out.name}.part-{rank}")
        answer = partial(_answer_batch, model, images=images, decoding=decoding)
        _answer_share(answer, left[rank::number], part, (len(done), len(questions)))
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


def _check_samples(out: Path, done: Mapping[int, Prediction], decoding: Decoding) -> None:
    """Raises ValueError if a file holds another number of answers to each question."""
    for each in done.values():
        number = len(each.samples or (each.response,))
        if number != decoding.n:
            raise ValueError(
                f"{out} holds {number} answers to a question, and --n is {decoding.n}; "
                "remove it, or choose another --out"
            )


def _answer_share(
    answer: Callable[[Sequence[Prediction]], list[Prediction]],
    batches: Sequence[Sequence[Prediction]],
    part: Path,
    progress: tuple[int, int],
) -> None:
    with (
        part.open("a", encoding="utf-8") as file,
        progress_bar(total=progress[1], initial=progress[0], desc=part.name.split(".")[0]) as bar,
    ):
        for batch in batches:
            for each in answer(batch):
                file.write(each.as_line())
            file.flush()
            bar.update(len(batch))


def _answer_batch(
    model: AskedModel, batch: Sequence[Prediction], images: _Images, decoding: Decoding
) -> list[Prediction]:
    """The answers of a batch. If it fails, its questions are asked one by one, and those that fail hold the error."""
    try:
        opened = {name: images[name] for name in {each.image for each in batch}}
        queries = [_query(each, opened[each.image]) for each in batch]
        refused = [model.refusal(query) for query in queries]
        asked = [query for query, reason in zip(queries, refused, strict=True) if not reason]
        said = iter(model.sample(asked, decoding, len(asked)) if asked else ())
        return [
            replace(each, error=reason[:_ERROR_CHARS])
            if reason
            else _answered(model, each, query, next(said))
            for each, query, reason in zip(batch, queries, refused, strict=True)
        ]
    except (MissingPixelsError, StoppedError):
        raise
    except Exception as error:  # an image or a question can make any layer fail
        if len(batch) > 1:
            return [answer for each in batch for answer in _answer_batch(model, [each], images, decoding)]
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return [replace(batch[0], error=reason[:_ERROR_CHARS])]


def _answered(model: AskedModel, asked: Prediction, query: Query, said: Sequence[str]) -> Prediction:
    answers = [_fields(model, text, query) for text in said]
    return replace(asked, **answers[0], samples=answers if len(answers) > 1 else None)


def _fields(model: AskedModel, text: str, query: Query) -> dict[str, Any]:
    """What a prediction holds of an answer; `raw` and `issues` only if the response is not what was said."""
    response = model.bird_text(text, query)
    if response == text:
        return {"response": response}
    issues = [str(issue) for issue in model.read(text, query).issues]
    return {"response": response, "raw": text, **({"issues": issues} if issues else {})}


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
