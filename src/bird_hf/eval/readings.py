"""What an answer in free words says: whether an object is absent, yes or no, a number, a name.

All functions take the text of an answer without tags, and compare English words.
"""

from __future__ import annotations

import re
from functools import cache

from ..data.teachers.wordings import synonyms_of
from ..remarks import names_something

_DENIAL = re.compile(
    r"\b(?:no|not(?! only)|none|nothing|nowhere|without|absent|absence|cannot|unknown|lacks?)\b|n['’]t\b",
    re.IGNORECASE,
)
_YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
_NUMBERS = {
    "no": 0, "none": 0, "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12,
}  # fmt: skip
_NUMBER = re.compile(rf"\b(?:\d{{1,9}}|{'|'.join(_NUMBERS)})\b", re.IGNORECASE)


def says_absent(answer: str) -> bool:
    """Whether an answer says that the object is not in the image, or that its name is not known."""
    return bool(_DENIAL.search(answer))


def yes_or_no(answer: str) -> bool | None:
    """Whether an answer says yes: by its first word, else no if it says that the object is absent; None if neither."""
    if found := _YES_OR_NO.match(answer):
        return found[1].lower() == "yes"
    return False if says_absent(answer) else None


def number_in(answer: str) -> int | None:
    """The first number of an answer, in digits or in words up to twelve; None if there is none."""
    found = _NUMBER.search(answer)
    if found is None:
        return None
    word = found[0].lower()
    return _NUMBERS[word] if word in _NUMBERS else int(word)


def is_about_another(answer: str, name: str) -> bool:
    """Whether an answer names something, but neither a name nor one of its synonyms."""
    return not holds_name(answer, name) and names_something(_DENIAL.sub(" ", answer))


def holds_name(answer: str, name: str) -> bool:
    """Whether an answer holds a name or one of its synonyms as whole words, in any letter case."""
    return bool(_name_pattern(name).search(answer))


@cache
def _name_pattern(name: str) -> re.Pattern[str]:
    names = "|".join(map(re.escape, (name, *synonyms_of(name))))
    return re.compile(rf"(?<!\w)(?:{names})(?!\w)", re.IGNORECASE)
