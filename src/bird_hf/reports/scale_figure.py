"""The data-scale curve as an SVG file: scores by the number of dialogue turns, beside the paper's."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..eval.data_scale import MEASURES, Point, Series
from ..eval.published import AVERAGE
from ..eval.tables import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK = "#7d8590"  # can be read on white and on black
_COLOURS = ("#2f81c7", "#d9822b", "#8a63c9")
_PAPER_COLOUR = "#8b949e"
_PANEL_INCHES = (2.5, 2.6)


def scale_svg(series: Sequence[Series]) -> str:
    """A panel for each task and for the average; published points are hollow, on dashed lines. The same input gives
    the same text."""
    import matplotlib
    from matplotlib.figure import Figure

    width, height = _PANEL_INCHES
    with matplotlib.rc_context({"svg.hashsalt": "bird", "font.size": 9, "text.parse_math": False}):
        figure = Figure(figsize=(width * len(MEASURES), height), layout="constrained")
        panels = figure.subplots(1, len(MEASURES), sharex=True)
        for axes, measure in zip(panels, MEASURES, strict=True):
            for number, each in enumerate(series):
                colour = _PAPER_COLOUR if each.is_published else _COLOURS[number % len(_COLOURS)]
                _draw(axes, each, measure, colour)
            _finish(axes, measure, sorted({point.turns for each in series for point in each.points}))
        handles, labels = panels[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, labelcolor=_INK)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def _draw(axes: Axes, series: Series, measure: str, colour: str) -> None:
    points = [point for point in series.points if measure in point.scores]
    turns = [point.turns for point in points]
    axes.plot(
        turns,
        [100 * point.scores[measure] for point in points],
        color=colour,
        label=series.name,
        marker="o",
        markersize=4,
        linewidth=1.4,
        linestyle="--" if series.is_published else "-",
        markerfacecolor="none" if series.is_published else colour,
    )
    known = [point for point in points if measure in point.intervals]
    if known:
        low, high = ([100 * _end(point, measure, end) for point in known] for end in (0, 1))
        axes.fill_between([point.turns for point in known], low, high, color=colour, alpha=0.18, linewidth=0)


def _end(point: Point, measure: str, end: int) -> float:
    return point.intervals[measure][end]


def _finish(axes: Axes, measure: str, ticks: Sequence[int]) -> None:
    title = "average" if measure == AVERAGE else f"{measure.upper()}, {METRICS[measure]}"
    axes.set_title(title, color=_INK, fontsize=9)
    axes.set_xscale("log")
    axes.set_ylim(0, 100)
    axes.set_xticks(ticks, [_short(tick) for tick in ticks], rotation=45)
    axes.minorticks_off()
    axes.tick_params(colors=_INK, length=0)
    axes.grid(axis="y", color=_INK, alpha=0.25, linewidth=0.6)
    axes.spines[:].set_visible(False)


def _short(turns: int) -> str:
    return f"{turns // 1000}k" if turns % 1000 == 0 else f"{turns:,}"
