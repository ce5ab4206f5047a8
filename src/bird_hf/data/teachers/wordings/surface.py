"""Letter case, punctuation and spacing of a question, the way people type. Marked words keep their place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np


class Surface(StrEnum):
    """A change of a question that keeps its words."""

    NONE = "none"
    LOWER = "lower"  # where is the left lung?
    FIRST_SMALL = "first_small"  # where is the Heschl gyrus?
    TITLE_NAME = "title_name"  # Where is the Left Lung?
    TITLE = "title"  # Where Is The Left Lung?
    CAPITALS = "capitals"  # WHERE IS THE LEFT LUNG?
    NO_PUNCTUATION = "no_punctuation"  # Where is the left lung
    OTHER_PUNCTUATION = "other_punctuation"  # Where is the left lung.


# Shares of the letter cases and of the ends of questions; TITLE_NAME is only for questions with a name.
_CASES = {
    Surface.NONE: 0.5, Surface.LOWER: 0.2, Surface.FIRST_SMALL: 0.1, Surface.TITLE_NAME: 0.1, Surface.TITLE: 0.05,
    Surface.CAPITALS: 0.05,
}  # fmt: skip
_ENDS = {Surface.NONE: 0.6, Surface.NO_PUNCTUATION: 0.25, Surface.OTHER_PUNCTUATION: 0.15}
_DOUBLED, _LEADING, _TRAILING = 0.04, 0.02, 0.03  # shares of questions with a space too many
_OTHER = {"?": ".!", ".": "?!"}


@dataclass(frozen=True)
class Worded:
    """A question. marks: (start, end) of each name, or of the words that get the box."""

    text: str
    form_id: str
    marks: tuple[tuple[int, int], ...] = ()


def vary(worded: Worded, rng: np.random.Generator) -> Worded:
    """A question in a random letter case, with random final punctuation and sometimes a space too many."""
    for shares in (_CASES, _ENDS):
        options = list(shares)
        choice = options[int(rng.choice(len(options), p=list(shares.values())))]
        worded = restyled(worded, choice, int(rng.integers(2)))
    return _spaced(worded, rng)


def restyled(worded: Worded, surface: Surface, option: int = 0) -> Worded:
    """A question with one change. option: which of two other final marks OTHER_PUNCTUATION sets."""
    text = worded.text
    if surface is Surface.LOWER:
        changed = text.lower()
    elif surface is Surface.CAPITALS:
        changed = text.upper()
    elif surface is Surface.FIRST_SMALL:
        changed = text[:1].lower() + text[1:]
    elif surface is Surface.TITLE:
        changed = _title(text)
    elif surface is Surface.TITLE_NAME:
        changed = text
        for start, end in worded.marks:
            changed = changed[:start] + _title(changed[start:end]) + changed[end:]
    elif surface is Surface.NO_PUNCTUATION:
        return replace(worded, text=text.rstrip("?.!")) if text[-1:] in _OTHER else worded
    elif surface is Surface.OTHER_PUNCTUATION:
        ends = text[-1:] in _OTHER
        return replace(worded, text=(text[:-1] if ends else text) + _OTHER.get(text[-1:], "?.")[option])
    else:
        return worded
    return replace(worded, text=changed) if len(changed) == len(text) else worded  # "ß" has two capitals


def _title(text: str) -> str:
    return "".join(
        letter.upper() if place == 0 or text[place - 1] == " " else letter
        for place, letter in enumerate(text)
    )


def _spaced(worded: Worded, rng: np.random.Generator) -> Worded:
    doubled, leading, trailing = rng.random(3) < (_DOUBLED, _LEADING, _TRAILING)
    if doubled:
        places = [
            place
            for place, letter in enumerate(worded.text)
            if letter == " " and not any(start <= place < end for start, end in worded.marks)
        ]
        if places:
            worded = _insert_space(worded, places[int(rng.integers(len(places)))])
    if leading:
        worded = _insert_space(worded, 0)
    return replace(worded, text=f"{worded.text} ") if trailing else worded


def _insert_space(worded: Worded, at: int) -> Worded:
    marks = tuple((start + (start >= at), end + (start >= at)) for start, end in worded.marks)
    return Worded(f"{worded.text[:at]} {worded.text[at:]}", worded.form_id, marks)
