"""The original Med-GRIT files: what their names and their entries say.

    [{"id": "ct_00--...--z_0134",
      "conversations": [["Picture 1: <img>PATH</img>\\nWhere is the liver?", "<ref>Liver</ref> is at <box>..."], ...]},
     ...]

A file holds one task and one split; its name says which (VG, RO, GC, MII; train, test). The image of an entry is
ID.png in a folder of images: what stands between <img> and </img> is kept as text and never opened.

What rows have no place for (the words before a question, the turns of an entry, further keys) is kept in the
folder's `original/`, so that an export gives back the same JSON. The original form itself has no place for a
region, a caption, a case, absent objects, areas, boxes finer than thousandths, the teacher, `synthetic`, or turns of
several tasks in order (`chat`): an export leaves them out, and an import has them from the file name, from the words,
or not at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ...hub.grounding import Issue, read
from ..records import SINGLE_TASKS, Task
from .file_names import check_plain_stem, info_of

WORD_OF = {
    Task.VISUAL_GROUNDING: "VG",
    Task.REFERRING_CLASSIFICATION: "RO",
    Task.REFERRING_CAPTION: "GC",
    Task.IMAGE_ANALYSIS: "MII",
}
_SPELLINGS = {word: task for task, word in WORD_OF.items()}
_SPELLINGS |= {"ROC": Task.REFERRING_CLASSIFICATION, "RC": Task.REFERRING_CAPTION, "MIA": Task.IMAGE_ANALYSIS}
_SPLITS = ("train", "validation", "test")

# The words before a question: `Picture 1: <img>PATH</img>` and what follows up to the question.
_OPENING = re.compile(r"[^<]*+<img>[^<]*+</img>\s*+")
_CONTROL = re.compile(r"</?img>|<imgpad>|<\|(?:im_start|im_end|endoftext|extra_\d{1,3})\|>")
PLAIN_NAME = re.compile(r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]{0,239}\.json")


# A box without a phrase, or without tags, is a box that some original files have; these are none.
_NO_BOX = {Issue.NOT_FOUR_NUMBERS, Issue.OUT_OF_RANGE, Issue.INVERTED_BOX, Issue.UNCLOSED_TAG}


class Broken(StrEnum):
    """Why an entry is left out of an import; the names stand in what the command prints."""

    MALFORMED_ENTRY = "malformed_entry"  # no `id` with a list of [question, answer]
    BAD_NAME = "bad_name"  # an id that is no plain file name
    UNKNOWN_MODALITY = "unknown_modality"
    CONTROL_TOKEN = "control_token"  # words that a model would take for control
    MALFORMED_BOX = "malformed_box"
    MISSING_IMAGE = "missing_image"
    UNREADABLE_IMAGE = "unreadable_image"


class BrokenEntryError(ValueError):
    """An entry that is left out, and why."""

    def __init__(self, reason: Broken, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Source:
    """An original file, and what its name says of it."""

    path: Path
    task: Task
    split: str


@dataclass(frozen=True)
class Entry:
    """An entry of an original file: what comes before each question, the turns, and other keys."""

    image_id: str
    openings: tuple[str, ...]
    turns: tuple[tuple[str, str], ...]
    rest: Mapping[str, Any]

    def line(self) -> str:
        """What rows have no place for, as a line of `original/`."""
        return to_json({"id": self.image_id, "openings": self.openings, "rest": self.rest})


def find_sources(paths: Sequence[Path], split: str | None = None) -> list[Source]:
    """The original files among `paths`, in the order of tasks and splits.

    Raises ValueError where a name says no task or split, or two files hold the same.
    """
    files = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    if not files:
        raise ValueError(f"{', '.join(map(str, paths))}: no .json files there")
    found: dict[tuple[Task, str], Source] = {}
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        if not PLAIN_NAME.fullmatch(path.name):
            raise ValueError(f"{path}: original files are named NAME.json")
        source = Source(path, _task_of(path), _split_of(path, split))
        if other := found.get((source.task, source.split)):
            raise ValueError(
                f"{other.path.name} and {path.name} both hold {source.split} turns of {source.task}; import one of them"
            )
        found[source.task, source.split] = source
    return sorted(found.values(), key=lambda each: (SINGLE_TASKS.index(each.task), _SPLITS.index(each.split)))


def _task_of(path: Path) -> Task:
    tasks = {_SPELLINGS[word] for word in re.findall(r"[A-Za-z]+", path.stem) if word in _SPELLINGS}
    if len(tasks) != 1:
        raise ValueError(f"{path}: its name must say one task, one of the words {', '.join(_SPELLINGS)}")
    return tasks.pop()


def _split_of(path: Path, given: str | None) -> str:
    words = {"val": "validation"} | {name: name for name in _SPLITS}
    said = {words[word] for word in re.findall(r"[a-z]+", path.stem.lower()) if word in words}
    if len(said) == 1:
        return said.pop()
    if given in _SPLITS and not said:
        return str(given)
    raise ValueError(
        f"{path}: its name must say one of {', '.join(_SPLITS)}; give --split where it says none"
    )


def read_entry(value: Any) -> Entry:
    """An entry as it stands in a file; raises BrokenEntryError where rows cannot be made of it."""
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        raise _malformed("it must be an object with a text `id` and a list `conversations`")
    _check_name(value["id"])
    pairs = value.get("conversations")
    if not isinstance(pairs, list) or not pairs:
        raise _malformed("`conversations` must be a list of [question, answer], at least one")
    openings, turns = [], []
    for place, pair in enumerate(pairs, start=1):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise _malformed(f"turn {place} must be [question, answer], two texts")
        opening = match.group() if (match := _OPENING.match(pair[0])) else ""
        turn = (pair[0][len(opening) :], pair[1])
        _check_words(place, opening, turn)
        openings.append(opening)
        turns.append(turn)
    rest = {key: item for key, item in value.items() if key not in ("id", "conversations")}
    try:
        _check_encodable(to_json(rest))
    except ValueError as error:
        raise _malformed(str(error)) from error
    return Entry(value["id"], tuple(openings), tuple(turns), rest)


def _malformed(detail: str) -> BrokenEntryError:
    return BrokenEntryError(Broken.MALFORMED_ENTRY, detail)


def _check_name(image_id: str) -> None:
    for check, reason in ((check_plain_stem, Broken.BAD_NAME), (info_of, Broken.UNKNOWN_MODALITY)):
        try:
            check(image_id)
        except ValueError as error:
            raise BrokenEntryError(reason, str(error)) from error


def _check_words(place: int, opening: str, turn: tuple[str, str]) -> None:
    for text in (opening, *turn):
        _check_encodable(text)
    for text in turn:
        if token := _CONTROL.search(text):
            detail = f"turn {place} holds {token.group()!r}, which is no text of a turn"
            raise BrokenEntryError(Broken.CONTROL_TOKEN, detail)
        if issue := next((issue for issue in read(text).issues if issue in _NO_BOX), None):
            raise BrokenEntryError(Broken.MALFORMED_BOX, f"turn {place} holds a malformed box ({issue})")


def _check_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _malformed("it holds half of a character (a lone surrogate)") from None


def to_json(value: Any) -> str:
    """One line; raises ValueError for numbers beyond those of JSON, such as 1e999, and for very deep nesting."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None
