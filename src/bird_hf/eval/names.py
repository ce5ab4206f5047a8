"""Whether a phrase or an answer names what was asked for, as the strict rules compare names.

A name matches in any letter case, in singular and plural, in British and American spelling, and under the synonyms of
the teachers' table. Words are whole words: "liver tumor" is not "liver", and "kidney" is not "left kidney".
"""

from __future__ import annotations

import re
from functools import lru_cache

from ..data.sides import other_side
from ..data.teachers.wordings import plural_of, synonyms_of
from ..remarks import name_words
from .readings import holds_name
from .recall import name_recall

_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_CACHED = 4096  # names whose words are kept; answers repeat few names
_OTHER = {"left": "right", "right": "left"}
# Words of a phrase that say nothing about what it names; folded as `name_words` folds.
_NO_PART_OF_A_NAME = frozenset((
    "a", "all", "an", "and", "any", "area", "at", "both", "box", "here", "i", "image", "in", "is", "it",
    "located", "of", "one", "region", "scan", "see", "structure", "that", "the", "there", "these",
    "this", "those", "two", "visible",
))  # fmt: skip


def names_nothing(phrase: str) -> bool:
    """Whether a phrase holds no name: "", "it", "this region"."""
    return not _core(phrase)


def same_name(asked: str, phrase: str) -> bool:
    """Whether a phrase is another way of writing the name asked for; the order of the words does not matter."""
    return _core(phrase) in _cores(asked)


def answer_holds(name: str, answer: str) -> bool:
    """Whether an answer in words holds a name, or a synonym of it, on the right side.

    Every word of the name must be a word of the answer. If the name has a side and the answer mentions both sides, the
    name must stand there in one piece, and the name of the other side must not.
    """
    spellings = (name, *_synonyms(name))
    if not any(name_recall(each, answer).hits for each in spellings):
        return False
    if _sides(answer) == _sides(name) or not _sides(name):
        return True
    return any(holds_name(answer, each) for each in spellings) and not holds_name(answer, _swapped(name))


def twin_of(name: str) -> str | None:
    """The name of the same structure on the other side of the body; None if the name is not one of a pair."""
    other = other_side(name)
    return None if other == name else other


def _synonyms(name: str) -> tuple[str, ...]:
    """Those of the name as it is written and in lower case, as most labels are."""
    return tuple(dict.fromkeys((*synonyms_of(name), *synonyms_of(name.lower()))))


@lru_cache(maxsize=_CACHED)
def _cores(name: str) -> frozenset[frozenset[str]]:
    spellings = [name, *_synonyms(name)]
    spellings += [plural for each in spellings if (plural := plural_of(each.lower()))]
    return frozenset(filter(None, map(_core, spellings)))


@lru_cache(maxsize=_CACHED)
def _core(phrase: str) -> frozenset[str]:
    return frozenset(name_words(phrase)) - _NO_PART_OF_A_NAME


def _sides(text: str) -> set[str]:
    return {found.lower() for found in _SIDE.findall(text)}


def _swapped(name: str) -> str:
    """A name with the other side, also if it is not one of a pair (left ventricle)."""
    return _SIDE.sub(lambda match: _OTHER[match.group().lower()], name)
