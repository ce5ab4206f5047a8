"""Whether a written answer fulfils the checks of a general question."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_READ_CHARS = 2000
_EDGES = " \t\r\n.!?;:,'\"`*"


def is_right(answer: str, checks: Mapping[str, Any]) -> bool:
    """Whether an answer without tags fulfils all checks of `assets/probe/questions.yaml`. Never raises."""
    text = answer[:_READ_CHARS].strip()
    return bool(text) and all(_CHECKS[name](text, wanted) for name, wanted in checks.items())


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(_EDGES)


def _holds(text: str, phrase: str) -> bool:
    """As whole words: 12 is not in 112, nor in 12.5."""
    wanted = re.escape(" ".join(phrase.casefold().split()))
    return re.search(rf"(?<![\w.]){wanted}(?!\w|[.,]\d)", " ".join(text.casefold().split())) is not None


def _contains(text: str, phrases: list[str]) -> bool:
    return any(_holds(text, phrase) for phrase in phrases)


def _without(text: str, phrases: list[str]) -> bool:
    return not _contains(text, phrases)


def _exact(text: str, accepted: list[str]) -> bool:
    return _plain(text) in {_plain(each) for each in accepted}


def _words(text: str, count: int) -> bool:
    return len(text.split()) == count


def _lines(text: str, count: int) -> bool:
    return len([line for line in text.splitlines() if line.strip()]) == count


def _keys(text: str, names: list[str]) -> bool:
    bare = re.sub(r"^```(?:json)?\s*|\s*```$", "", text)
    try:
        found = json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() == set(names)


def _upper(text: str, wanted: bool) -> bool:
    return (text == text.upper()) is wanted


def _starts(text: str, word: str) -> bool:
    return re.match(rf"\W*{re.escape(word)}\b", text, re.IGNORECASE) is not None


_CHECKS: dict[str, Callable[[str, Any], bool]] = {
    "contains": _contains,
    "exact": _exact,
    "words": _words,
    "lines": _lines,
    "keys": _keys,
    "upper": _upper,
    "starts": _starts,
    "without": _without,
}
CHECKS = tuple(_CHECKS)
