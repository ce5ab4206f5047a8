"""How tables show fractions: in percent, with the number of answers and an interval."""

from __future__ import annotations

from collections.abc import Sequence

from ..markdown import Cell

BELOW = "95 % interval; cases"  # the first cell of the lines below scores


def percent(value: float | None) -> str:
    """A fraction in percent with two digits; "-" if there is none."""
    return "-" if value is None else f"{100 * value:.2f}"


def interval_text(interval: Sequence[float] | None) -> str:
    """An interval of fractions in percent; empty if there is none."""
    return "" if interval is None else f"{percent(interval[0])}–{percent(interval[1])}"


def below_text(interval: Sequence[float] | None, cases: int | None) -> str:
    """What stands below a score: its interval and the number of cases."""
    number = "" if cases is None else f"{cases:,} case{'' if cases == 1 else 's'}"
    parts = [interval_text(interval), number]
    return "; ".join(part for part in parts if part)


def score_cell(
    score: float | None, n: int, interval: Sequence[float] | None = None, cases: int | None = None
) -> Cell:
    """A score with its n, and its interval and number of cases below."""
    text = "no score yet" if score is None else percent(score)
    return Cell(text, f"{n:,}", below_text(interval, cases))
