"""Which dialects read the texts of a field: each is tried, and the texts that it cannot read are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...dialects import get, names
from .number_evidence import excludes

MOST_TEXTS = 300
_ANY_SIZE = (1000, 1000)


@dataclass(frozen=True)
class AnswerText:
    """A text that may hold boxes. size_wh: of its picture; None if it is not known."""

    place: str
    text: str
    size_wh: tuple[int, int] | None


@dataclass(frozen=True)
class DialectTrial:
    """The texts that a dialect finds no box in, or something wrong; first: the first of them, and why."""

    dialect: str
    unread: int
    total: int
    first: str

    @property
    def excluded(self) -> bool:
        return excludes(self.unread, self.total)


def try_dialects(texts: Sequence[AnswerText]) -> list[DialectTrial]:
    """Reads at most 300 texts with every dialect. A picture of unknown size is taken as 1000x1000."""
    return [_try(name, texts[:MOST_TEXTS]) for name in names()] if texts else []


def _try(name: str, texts: Sequence[AnswerText]) -> DialectTrial:
    dialect = get(name)
    unread, first = 0, ""
    for each in texts:
        try:
            answer = dialect.read(each.text, image_wh=each.size_wh or _ANY_SIZE)
        except ValueError as error:  # the model takes no such picture
            why = " ".join(str(error).split())[:120]
        else:
            issues = ", ".join(dict.fromkeys(map(str, answer.issues)))
            why = issues or ("" if answer.boxes else "no box is read")
        if why:
            unread += 1
            first = first or f"{each.place}: {why}"
    return DialectTrial(name, unread, len(texts), first)
