"""The original Med-GRIT files: their names and their entries.

    [{"id": "ct_00--...--z_0134",
      "conversations": [["Picture 1: <img>PATH</img>\\nWhere is the liver?", "<ref>Liver</ref> is at <box>..."], ...]},
     ...]

A file holds one task and one split, which its name contains (VG, RO, GC, MII; train, test). The image of an entry is
ID.png in a folder of images: the path between <img> and </img> is kept as text and never opened.

What a row has no column for (the prefix of a question, how turns are grouped into entries, other keys) is kept in
`original/` of the Med-GRIT folder, so that an export writes the same JSON again. The original format in turn has no
place for regions, captions, cases, absent objects, areas, boxes finer than thousandths, the teacher, `synthetic`, and
the order of turns of several tasks (`chat`). An export leaves them out; an import takes them from the file name or from
the text, or leaves them empty.
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
from ..folder.shards import SPLITS
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

# The prefix of a question: `Picture 1: <img>PATH</img>` and the spaces after it.
_PREFIX = re.compile(r"[^<]*+<img>[^<]*+</img>\s*+")
_CONTROL = re.compile(r"</?img>|<imgpad>|<\|(?:im_start|im_end|endoftext|extra_\d{1,3})\|>")
PLAIN_NAME = re.compile(r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]{0,239}\.json")
# Boxes without a phrase or without tags occur in original files and are imported; these cannot be read as boxes.
_MALFORMED = {Issue.NOT_FOUR_NUMBERS, Issue.OUT_OF_RANGE, Issue.INVERTED_BOX, Issue.UNCLOSED_TAG}


class EntryFault(StrEnum):
    """Why an entry is left out of an import; the command prints these names."""

    MALFORMED_ENTRY = "malformed_entry"  # no `id` with a list of [question, answer]
    BAD_NAME = "bad_name"  # an id that is not a plain file name
    UNKNOWN_MODALITY = "unknown_modality"
    CONTROL_TOKEN = "control_token"  # text that a model would read as a control token
    MALFORMED_BOX = "malformed_box"
    MISSING_IMAGE = "missing_image"
    UNREADABLE_IMAGE = "unreadable_image"
    ORIENTATION_UNKNOWN = (
        "orientation_unknown"  # the image has an EXIF orientation, boxes in thousandths have no size
    )

    @property
    def remedy(self) -> str:
        """What the user can do about it: one sentence, the column `what_to_do` of left_out.csv."""
        return _REMEDIES[self]


_REMEDIES = {
    EntryFault.MALFORMED_ENTRY: "Write the entry as {id, conversations: [[question, answer], ...]}.",
    EntryFault.BAD_NAME: "Give the entry an id that is a plain file name.",
    EntryFault.UNKNOWN_MODALITY: "Let the id begin with a modality, such as ct_00--dataset--case1--z_0001.",
    EntryFault.CONTROL_TOKEN: "Remove the control token from the text.",
    EntryFault.MALFORMED_BOX: "Correct the box: <box>(x1,y1),(x2,y2)</box> in thousandths.",
    EntryFault.MISSING_IMAGE: "Put ID.png into the folder of --images.",
    EntryFault.ORIENTATION_UNKNOWN: "Say with --orientation whether the boxes are on the stored or the upright pixels.",
    EntryFault.UNREADABLE_IMAGE: "Open the file in an image viewer; copy it again, or save it as PNG.",
}


class BrokenEntryError(ValueError):
    """Raised for an entry that cannot be imported."""

    def __init__(self, reason: EntryFault, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class OriginalFile:
    """An original file, with the task and split that its name contains."""

    path: Path
    task: Task
    split: str


@dataclass(frozen=True)
class Entry:
    """An entry of an original file. prefixes: the text before each question. rest: other keys."""

    image_id: str
    prefixes: tuple[str, ...]
    turns: tuple[tuple[str, str], ...]
    rest: Mapping[str, Any]

    def layout_line(self) -> str:
        """What rows have no column for, as a line of a file in `original/`."""
        return to_json({"id": self.image_id, "openings": self.prefixes, "rest": self.rest})


def find_files(paths: Sequence[Path], split: str | None = None) -> list[OriginalFile]:
    """The original files in `paths` (files or folders), sorted by task and split.

    split: for files whose names contain no split. Raises ValueError if a name contains no task or split, or two files
    have the same task and split.
    """
    candidates = [
        file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])
    ]
    if not candidates:
        raise ValueError(f"{', '.join(map(str, paths))}: there are no .json files")
    found: dict[tuple[Task, str], OriginalFile] = {}
    for path in candidates:
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        if not PLAIN_NAME.fullmatch(path.name):
            raise ValueError(f"{path}: original files are named NAME.json")
        file = OriginalFile(path, _task_of(path), _split_of(path, split))
        if other := found.get((file.task, file.split)):
            raise ValueError(
                f"{other.path.name} and {path.name} both hold {file.split} turns of {file.task}; import one of them"
            )
        found[file.task, file.split] = file
    return sorted(found.values(), key=lambda file: (SINGLE_TASKS.index(file.task), SPLITS.index(file.split)))


def _task_of(path: Path) -> Task:
    tasks = {_SPELLINGS[word] for word in re.findall(r"[A-Za-z]+", path.stem) if word in _SPELLINGS}
    if len(tasks) != 1:
        raise ValueError(f"{path}: its name must contain one task, one of the words {', '.join(_SPELLINGS)}")
    return tasks.pop()


def _split_of(path: Path, given: str | None) -> str:
    spellings = {"val": "validation"} | {name: name for name in SPLITS}
    found = {spellings[word] for word in re.findall(r"[a-z]+", path.stem.lower()) if word in spellings}
    if len(found) == 1:
        return found.pop()
    if given in SPLITS and not found:
        return str(given)
    raise ValueError(
        f"{path}: its name must contain one of {', '.join(SPLITS)}; give --split if it contains none"
    )


def read_entry(value: Any) -> Entry:
    """Read an entry of a file. Raises BrokenEntryError if no rows can be made from it."""
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        raise _malformed("it must be an object with a text `id` and a list `conversations`")
    _check_name(value["id"])
    pairs = value.get("conversations")
    if not isinstance(pairs, list) or not pairs:
        raise _malformed("`conversations` must be a list of [question, answer], at least one")
    prefixes, turns = [], []
    for place, pair in enumerate(pairs, start=1):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise _malformed(f"turn {place} must be [question, answer], two texts")
        prefix = match.group() if (match := _PREFIX.match(pair[0])) else ""
        turn = (pair[0][len(prefix) :], pair[1])
        _check_text(place, prefix, turn)
        prefixes.append(prefix)
        turns.append(turn)
    rest = {key: item for key, item in value.items() if key not in ("id", "conversations")}
    try:
        _check_encodable(to_json(rest))
    except ValueError as error:
        raise _malformed(str(error)) from error
    return Entry(value["id"], tuple(prefixes), tuple(turns), rest)


def _malformed(detail: str) -> BrokenEntryError:
    return BrokenEntryError(EntryFault.MALFORMED_ENTRY, detail)


def _check_name(image_id: str) -> None:
    for check, reason in ((check_plain_stem, EntryFault.BAD_NAME), (info_of, EntryFault.UNKNOWN_MODALITY)):
        try:
            check(image_id)
        except ValueError as error:
            raise BrokenEntryError(reason, str(error)) from error


def _check_text(place: int, prefix: str, turn: tuple[str, str]) -> None:
    for text in (prefix, *turn):
        _check_encodable(text)
    for text in turn:
        if token := _CONTROL.search(text):
            detail = f"turn {place} holds {token.group()!r}, which may not be in a turn"
            raise BrokenEntryError(EntryFault.CONTROL_TOKEN, detail)
        if issue := next((issue for issue in read(text).issues if issue in _MALFORMED), None):
            raise BrokenEntryError(EntryFault.MALFORMED_BOX, f"turn {place} holds a malformed box ({issue})")


def _check_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _malformed("it holds half a character (a lone surrogate)") from None


def to_json(value: Any) -> str:
    """JSON in one line. Raises ValueError for numbers that JSON does not have, such as 1e999, or very deep nesting."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None
