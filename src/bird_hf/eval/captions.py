"""The measures of referring captions (RC): SPICE, as in the paper, and scene_graph_f1, which needs no Java."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from .scene_graph import scene_graph_scores
from .spice import spice_is_there, spice_scores

RcMeasure = Literal["spice", "scene_graph_f1"]
MEASURES = get_args(RcMeasure)


def check_measure(measure: RcMeasure | str) -> None:
    """Raises ValueError, in one line, if a measure is unknown, or SPICE has no Java, toolkit or CoreNLP."""
    if measure not in MEASURES:
        raise ValueError(f"rc-measure {measure!r} is unknown; use {' or '.join(MEASURES)}")
    if measure == "spice":
        spice_is_there()


def caption_scores(
    pairs: Sequence[tuple[str, str]], measure: RcMeasure | str = "spice", strict: bool = False
) -> list[float]:
    """The score of each (reference, response) pair, 0 to 1; SPICE starts Java once.

    strict: see `scene_graph_scores`; SPICE has no such choice.
    Raises ValueError as `check_measure` does, or if the measure fails.
    """
    check_measure(measure)
    return spice_scores(pairs) if measure == "spice" else scene_graph_scores(pairs, strict)


def caption_rows(groups: Mapping[str, Sequence[float]], measure: str) -> dict[str, dict[str, float]]:
    """The mean of each group of scores, under the name of the measure."""
    return {name: caption_row(scores, measure) for name, scores in groups.items()}


def caption_row(scores: Iterable[float], measure: str) -> dict[str, float]:
    """The mean of scores, of which there is at least one, under the name of the measure."""
    values = list(scores)
    return {measure: sum(values) / len(values)}
