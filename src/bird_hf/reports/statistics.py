"""`bird data stats`: the counts of a Med-GRIT folder as tables (Markdown, JSON) and figures (PNG)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic_writes import replacing_file, write_text
from ..data.folder.statistics import (
    AREA_EDGES,
    Statistics,
    areas_of,
    as_json,
    as_markdown,
    count_folder,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BAR_INCHES = 0.35  # height of a bar
_MAX_NAME = 20  # characters


def write_statistics(folder: Path, out: Path) -> list[Path]:
    """Write stats.md, stats.json, turns.png and box_areas.png into `out`; files of these names are replaced.

    Raises ValueError if `folder` is not a Med-GRIT folder or has no rows.
    """
    counts = count_folder(folder)
    figures = {"turns.png": turns_figure(counts), "box_areas.png": areas_figure(counts)}
    texts = {
        "stats.md": as_markdown(counts),
        "stats.json": json.dumps(as_json(counts), ensure_ascii=False, indent=1) + "\n",
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(out / name, text)
    for name, figure in figures.items():
        with replacing_file(out / name) as making:
            # Without the version of matplotlib, so that the same rows give the same file.
            figure.savefig(making, format="png", dpi=120, metadata={"Software": None})
    return [out / name for name in (*texts, *figures)]


def turns_figure(counts: Statistics) -> Figure:
    """The distribution of turns by modality and task, and by image; one row per split (BiRD Fig. 3, left)."""
    from matplotlib.figure import Figure

    splits, names = counts.splits, [_short(name) for name in counts.modalities]
    height = len(splits) * (1.2 + _BAR_INCHES * len(names))
    figure = Figure(figsize=(11, height), layout="constrained")
    axes = figure.subplots(len(splits), 2, squeeze=False, width_ratios=(3, 2))
    for (by_task, by_image), split in zip(axes, splits, strict=True):
        start = [0] * len(names)
        for task in counts.tasks:
            turns = [counts.turns[split, modality, task] for modality in counts.modalities]
            by_task.barh(names, turns, left=start, label=task)
            start = [before + more for before, more in zip(start, turns, strict=True)]
        _finish(by_task, f"{split}: {sum(start):,} turns", "turns")
        by_task.invert_yaxis()
        by_task.legend(loc="lower right")
        images = {turns: n for (of, turns), n in counts.turns_of_image.items() if of == split}
        by_image.bar(list(images), list(images.values()), color="tab:grey")
        _finish(by_image, f"{split}: {sum(images.values()):,} images", "turns per image")
        by_image.set_ylabel("images")
    return figure


def areas_figure(counts: Statistics) -> Figure:
    """The distribution of box areas by modality."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    places = range(len(AREA_EDGES))
    start = [0] * len(AREA_EDGES)
    for modality in counts.modalities:
        boxes = areas_of(counts, modality)
        axes.bar(places, boxes, bottom=start, label=_short(modality))
        start = [before + more for before, more in zip(start, boxes, strict=True)]
    axes.set_xticks(places, [f"≤ {edge * 100:g} %" for edge in AREA_EDGES])
    _finish(axes, f"{sum(start):,} boxes", "area of a box (share of the image)")
    axes.set_ylabel("boxes")
    axes.legend()
    return figure


def _finish(axes: Any, title: str, x_label: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.spines[["top", "right"]].set_visible(False)


def _short(name: str) -> str:
    """A name from the data, shortened; `$` is escaped because matplotlib would read it as a formula."""
    return name[:_MAX_NAME].replace("$", r"\$")
