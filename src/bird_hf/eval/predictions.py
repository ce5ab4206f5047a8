"""Prediction files: JSON lines, one answer per line, as the original scripts write and read them.

    {"id": 0, "image": "ct_00--...png", "question": "...", "annotation": "...", "response": "..."}

`id` is the number of the row in the predicted split, from 0; `annotation` is the reference. Files of `bird predict`
also hold the `task`, whether the image is `synthetic`, the `case_id`, and the `error` of a question that failed.

The response is in BiRD's grammar whatever model was asked. `raw` is what a model of another family said, and `issues`
what could not be read of it: the response then ends in `<box></box>`, which is unreadable. With several answers to a
question, `samples` has them all, and the response is the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ..atomic_writes import write_text
from ..data.records import Modality

Item = TypeVar("Item")

LLAVA_MED = (
    "llava_med"  # the task of answers to LLaVA-Med's questions (llava_med.py), whose images name no modality
)
_SHOWN = 5  # ids that an error lists
_MAX_CHARS = 1_000_000  # of a text in a prediction file
_MAX_IMAGE_CHARS = 1000
_TEXTS = ("image", "question", "annotation", "response")
_ANSWERED = ("response", "error", "raw", "issues", "samples")  # what an answer adds to its question


@dataclass(frozen=True)
class Prediction:
    """One answer of a model, with the question and the reference.

    Files of the original scripts have no task and no source: their `task` is empty and their `synthetic` None.
    facts: of checks (checks.py), what is needed to score the answer, as JSON values.
    case_id: the case (patient) of the image, over which intervals are computed.
    error: why there is no answer, if the model failed on the question; the response is then empty.
    raw: what the model said, if the response is not that. issues: what could not be read of it (`Issue`).
    samples: all answers to the question, each with its response and what else the first one has.
    names: the objects that a vg question asks for; they are not written.
    """

    id: int
    image: str
    question: str
    annotation: str
    response: str
    task: str = ""
    synthetic: bool | None = None
    facts: Mapping[str, Any] | None = None
    case_id: str | None = None
    error: str | None = None
    raw: str | None = None
    issues: Sequence[str] | None = None
    samples: Sequence[Mapping[str, Any]] | None = None
    names: tuple[str, ...] = field(default=(), compare=False)

    @property
    def modality(self) -> Modality:
        """The prefix of the image's name, up to the first underscore; `x` is X-ray.

        Raises ValueError for an unknown prefix.
        """
        prefix = self.image.split("_")[0]
        try:
            return Modality.from_first_word(prefix)
        except ValueError:
            known = ", ".join(Modality)
            raise ValueError(
                f"image {self.image!r} does not begin with a modality; known are {known}"
            ) from None

    def as_line(self) -> str:
        """One line of a prediction file, with its line feed."""
        known = {name: value for name, value in asdict(self).items() if value is not None and name != "names"}
        return json.dumps(known, ensure_ascii=False) + "\n"


def read_predictions(path: Path, task: str) -> list[Prediction]:
    """All answers of a file, in the order of their ids.

    Raises ValueError, in one line, if the file is missing, empty, broken or of another task, if ids are missing or
    occur twice, or if the name of an image does not begin with a modality.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; `bird predict` writes one")
    numbered = list(_read_lines(path))
    if not numbered:
        raise ValueError(f"{path} is empty; there is nothing to score")
    _check_ids(path, [(number, each.id) for number, each in numbered])
    for number, each in numbered:
        if each.task not in ("", task):
            raise ValueError(
                f"{path} answers task {each.task!r}, not {task!r} (line {number}); score it as {each.task}"
            )
    return sorted((each for _, each in numbered), key=lambda prediction: prediction.id)


def named_task(path: Path) -> str:
    """The task that the first line of a prediction file names; "" if it names none or cannot be read."""
    try:
        _, first = next(_read_lines(path))
    except (StopIteration, ValueError):
        return ""
    return first.task


def finished(path: Path, expected: Sequence[Prediction], keep_failed: bool = False) -> dict[int, Prediction]:
    """The answers that an interrupted run has already written, by id.

    A truncated last line is left out, and so are questions on which the model failed (unless keep_failed): they are
    asked again.
    expected: every question of the run, by id. Raises ValueError if the file answers other questions, or one twice.
    """
    if not path.is_file():
        return {}
    done: dict[int, Prediction] = {}
    for _, prediction in _read_lines(path, last_may_be_cut=True):
        known = 0 <= prediction.id < len(expected) and expected[prediction.id]
        if not known or (known.image, known.question) != (prediction.image, prediction.question):
            raise ValueError(
                f"{path} holds answers to other questions (id {prediction.id}); remove it, or choose another --out"
            )
        if prediction.id in done:
            raise ValueError(f"{path} answers id {prediction.id} twice; remove one of the two lines")
        done[prediction.id] = replace(known, **{name: getattr(prediction, name) for name in _ANSWERED})
    return {number: each for number, each in done.items() if keep_failed or each.error is None}


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write a prediction file, in the order of ids, replacing an existing one atomically."""
    ordered = sorted(predictions, key=lambda prediction: prediction.id)
    write_text(path, "".join(prediction.as_line() for prediction in ordered))


def _read_lines(path: Path, last_may_be_cut: bool = False) -> Iterator[tuple[int, Prediction]]:
    """The predictions of a file with the numbers of their lines, from 1."""
    lines = numbered_lines(path)
    for number, line in lines:
        try:
            prediction = _prediction(read_json(line))
        except (ValueError, TypeError, RecursionError) as error:
            if last_may_be_cut and number == lines[-1][0]:
                return
            raise ValueError(f"{path}, line {number}: {error}") from error
        yield number, prediction


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a file of JSON lines that are not empty, with their numbers from 1.

    Raises ValueError if it is not UTF-8.
    """
    # Not splitlines: it also splits at characters that an answer may hold.
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file ({error}); it must be JSON lines in UTF-8") from error
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def read_json(line: str) -> Any:
    """The JSON value of a line. Raises ValueError if it is none; NaN and infinity are none."""
    return json.loads(line, parse_constant=_refuse_constant)


def check_length(name: str, text: str, limit: int = _MAX_CHARS) -> None:
    """Raises ValueError if a text is longer than the limit."""
    if len(text) > limit:
        raise ValueError(f"{name} has {len(text):,} characters; the limit is {limit:,}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _prediction(row: Any) -> Prediction:
    if not isinstance(row, dict):
        raise ValueError("not a JSON object; each line is one prediction")
    if lacking := [name for name in ("id", *_TEXTS) if name not in row]:
        raise ValueError(f"lacks {', '.join(lacking)}; each line has id, {', '.join(_TEXTS)}")
    if type(row["id"]) is not int or not all(isinstance(row[name], str) for name in _TEXTS):
        raise ValueError(
            "id must be a whole number; image, question, annotation and response must be strings"
        )
    for name in _TEXTS:
        check_length(name, row[name], _MAX_IMAGE_CHARS if name == "image" else _MAX_CHARS)
    if row.get("synthetic") not in (None, True, False):
        raise ValueError("synthetic must be true or false")
    if not isinstance(row.get("facts"), dict | None):
        raise ValueError("facts must be a JSON object")
    if not all(isinstance(row.get(name), str | None) for name in ("case_id", "error")):
        raise ValueError("case_id and error must be strings")
    if not isinstance(row.get("raw"), str | None):
        raise ValueError("raw must be a string")
    if not all(_is_list_of(row.get(name), kind) for name, kind in (("issues", str), ("samples", dict))):
        raise ValueError("issues must be a list of strings, and samples one of JSON objects")
    prediction = Prediction(
        id=row["id"],
        task=str(row.get("task", "")),
        synthetic=row.get("synthetic"),
        facts=row.get("facts"),
        case_id=row.get("case_id"),
        error=row.get("error"),
        raw=row.get("raw"),
        issues=row.get("issues"),
        samples=row.get("samples"),
        **{name: row[name] for name in _TEXTS},
    )
    if prediction.task != LLAVA_MED:
        assert prediction.modality  # raises ValueError if the name of the image has none
    return prediction


def _is_list_of(value: Any, kind: type) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(each, kind) for each in value))


def _check_ids(path: Path, numbered: Sequence[tuple[int, int]]) -> None:
    """numbered: (line, id) of each answer. The ids must be 0 to their number - 1."""
    lines: dict[int, list[int]] = {}
    for line, each in numbered:
        lines.setdefault(each, []).append(line)
    if twice := sorted(each for each, places in lines.items() if len(places) > 1):
        places = " and ".join(map(str, lines[twice[0]][:2]))
        raise ValueError(
            f"{path} has {len(twice)} ids twice ({_some(twice)}; id {twice[0]} in lines {places}); "
            "each question has one answer"
        )
    if unknown := sorted(each for each in lines if each < 0 or each >= len(lines)):
        lacking = sorted(set(range(len(lines))) - lines.keys())
        raise ValueError(
            f"{path} has {len(lines)} answers but not the ids 0 to {len(lines) - 1}: missing {_some(lacking)}, "
            f"unknown {_some(unknown)} (line {lines[unknown[0]][0]}); finish it with `bird predict`"
        )


def _some(ids: Sequence[int]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(str(each) for each in ids[:_SHOWN]) + more


def by_modality(items: Sequence[Item], modalities: Iterable[str]) -> dict[str, list[Item]]:
    """Items grouped by modality, in the order of the paper's tables; `x`, a prefix of the original, is X-ray.

    Raises ValueError if a modality is unknown, or there is not one for each item.
    """
    names = list(modalities)
    if len(names) != len(items):
        raise ValueError(f"{len(names)} modalities for {len(items)} answers; give one for each answer")
    groups: dict[str, list[Item]] = {modality.value: [] for modality in Modality}
    for number, (item, name) in enumerate(zip(items, names, strict=True)):
        try:
            groups[Modality.from_first_word(name)].append(item)
        except ValueError:
            raise ValueError(
                f"modality {name!r} (row {number}) is unknown; use {', '.join(groups)}"
            ) from None
    return {name: group for name, group in groups.items() if group}
