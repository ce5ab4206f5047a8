"""Prediction files: JSON lines, one answer per line, as the original scripts write and read them.

    {"id": 0, "image": "ct_00--...png", "question": "...", "annotation": "...", "response": "..."}

`id` is the number of the row in the predicted split, from 0; `annotation` is the reference. Files of `bird predict`
also hold the `task`, and whether the image is `synthetic`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..atomic_writes import write_text
from ..data.records import Modality

_SHOWN = 5  # ids that an error lists


@dataclass(frozen=True)
class Prediction:
    """One answer of a model, with the question and the reference.

    Files of the original scripts have no task and no source: their `task` is empty and their `synthetic` None.
    facts: of checks (checks.py), what is needed to score the answer, as JSON values.
    """

    id: int
    image: str
    question: str
    annotation: str
    response: str
    task: str = ""
    synthetic: bool | None = None
    facts: Mapping[str, Any] | None = None

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
        known = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps(known, ensure_ascii=False) + "\n"


def read_predictions(path: Path, task: str) -> list[Prediction]:
    """All answers of a file, in the order of their ids.

    Raises ValueError, in one line, if the file is missing, empty, broken or of another task, if ids are missing or
    occur twice, or if the name of an image does not begin with a modality.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; `bird predict` writes one")
    predictions = list(_read_lines(path))
    if not predictions:
        raise ValueError(f"{path} is empty; there is nothing to score")
    _check_ids(path, [prediction.id for prediction in predictions])
    if other := next((each.task for each in predictions if each.task not in ("", task)), None):
        raise ValueError(f"{path} answers task {other!r}, not {task!r}; score it as {other}")
    return sorted(predictions, key=lambda prediction: prediction.id)


def finished(path: Path, expected: Sequence[Prediction]) -> dict[int, Prediction]:
    """The answers that an interrupted run has already written, by id; a truncated last line is left out.

    expected: every question of the run, by id. Raises ValueError if the file answers other questions, or one twice.
    """
    if not path.is_file():
        return {}
    done: dict[int, Prediction] = {}
    for prediction in _read_lines(path, last_may_be_cut=True):
        known = 0 <= prediction.id < len(expected) and expected[prediction.id]
        if not known or (known.image, known.question) != (prediction.image, prediction.question):
            raise ValueError(
                f"{path} holds answers to other questions (id {prediction.id}); remove it, or choose another --out"
            )
        if prediction.id in done:
            raise ValueError(f"{path} answers id {prediction.id} twice; remove one of the two lines")
        done[prediction.id] = replace(known, response=prediction.response)
    return done


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write a prediction file, in the order of ids, replacing an existing one atomically."""
    ordered = sorted(predictions, key=lambda prediction: prediction.id)
    write_text(path, "".join(prediction.as_line() for prediction in ordered))


def _read_lines(path: Path, last_may_be_cut: bool = False) -> Iterator[Prediction]:
    # Not splitlines: it also splits at characters that an answer may hold.
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not a text file ({error}); a prediction file is JSON lines in UTF-8"
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield _prediction(json.loads(line))
        except (ValueError, TypeError) as error:
            if last_may_be_cut and number == len(lines):
                return
            raise ValueError(f"{path}, line {number}: {error}") from error


def _prediction(row: Any) -> Prediction:
    if not isinstance(row, dict):
        raise ValueError("not a JSON object; each line is one prediction")
    texts = ("image", "question", "annotation", "response")
    if lacking := [name for name in ("id", *texts) if name not in row]:
        raise ValueError(f"lacks {', '.join(lacking)}; each line has id, {', '.join(texts)}")
    if not isinstance(row["id"], int) or not all(isinstance(row[name], str) for name in texts):
        raise ValueError(
            "id must be a whole number; image, question, annotation and response must be strings"
        )
    if row.get("synthetic") not in (None, True, False):
        raise ValueError("synthetic must be true or false")
    if not isinstance(row.get("facts"), dict | None):
        raise ValueError("facts must be a JSON object")
    prediction = Prediction(
        id=row["id"],
        task=str(row.get("task", "")),
        synthetic=row.get("synthetic"),
        facts=row.get("facts"),
        **{name: row[name] for name in texts},
    )
    assert prediction.modality  # raises ValueError if the name of the image has none
    return prediction


def _check_ids(path: Path, ids: Sequence[int]) -> None:
    seen = set(ids)
    if twice := sorted(each for each, count in Counter(ids).items() if count > 1):
        raise ValueError(f"{path} has {len(twice)} ids twice ({_some(twice)}); each question has one answer")
    if unknown := sorted(each for each in seen if each < 0 or each >= len(seen)):
        lacking = sorted(set(range(len(seen))) - seen)
        raise ValueError(
            f"{path} has {len(ids)} answers but not the ids 0 to {len(ids) - 1}: missing {_some(lacking)}, "
            f"unknown {_some(unknown)}; finish it with `bird predict`"
        )


def _some(ids: Sequence[int]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(str(each) for each in ids[:_SHOWN]) + more
