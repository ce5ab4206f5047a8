"""The results of a study as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bird_hf.atomic_writes import replacing_file
from bird_hf.markdown import Markup
from bird_hf.markdown import table as markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {"vg": "VG Recall@0.5", "roc": "ROC recall", "rc": "RC SPICE", "mia": "MIA mBMR"}


def table_of(document: Mapping[str, Any]) -> str:
    """The scores by share of the images and by run, with 95 % intervals over cases, and what more images bring."""
    measures = document["measures"]
    header = ["images", "seed", *(_heading(task, measures[task]) for task in measures)]
    lines: list[list[Any]] = []
    for share in sorted(document["study"]["shares"], reverse=True):
        runs = {name: run for name, run in document["runs"].items() if run["share"] == share}
        if not runs:
            continue
        images = next(iter(runs.values()))["images"]
        mean = [_cell(row.get("shares", {}).get(str(share))) for row in measures.values()]
        lines.append([f"{_share(share)}: {images:,}", f"mean of {len(runs)}", *map(Markup, mean)])
        for name, run in sorted(runs.items(), key=lambda pair: pair[1]["seed"]):
            cells = [_cell(row.get("runs", {}).get(name)) for row in measures.values()]
            lines.append(["", str(run["seed"]), *map(Markup, cells)])
    gains = [row.get("gain") for row in measures.values()]
    if any(gains):
        lines.append(["the most minus the fewest", "mean", *(Markup(_cell(gain, "+.3f")) for gain in gains)])
    rows = [[Markup(cell) if cell == "" else cell for cell in line] for line in lines]
    return "\n\n".join([markdown_table(header, rows), *_notes(document)])


def _heading(task: str, row: Mapping[str, Any]) -> str:
    counted = f" ({row['questions']:,} questions, {row['cases']} cases)" if "cases" in row else ""
    return f"{_NAMES[task]}{counted}"


def _share(share: int) -> str:
    return "all" if share == 1 else f"1/{share}"


def _cell(row: Mapping[str, Any] | None, form: str = ".3f") -> str:
    if row is None:
        return "not scored"
    interval = row["interval"]
    return f"{row['mean']:{form}}" + (
        f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else " (no interval)"
    )


def _notes(document: Mapping[str, Any]) -> list[str]:
    """How it was run, and what was not scored."""
    study, runs = document["study"], document["runs"]
    machine = next(iter(runs.values()))["machine"] if runs else {}
    seconds = [sum(run["seconds"].values()) for run in runs.values()]
    notes = [
        f"{len(runs)} of {len(study['shares']) * len(study['seeds'])} runs, {study['steps']:,} steps each, on "
        f"{machine.get('device', 'no machine')} ({machine.get('cores')} cores); a run took "
        f"{min(seconds):.0f} to {max(seconds):.0f} seconds."
        if runs
        else "No run has finished."
    ]
    rates = {
        task: [each["unreadable_rate"] for each in row["runs"].values()]
        for task, row in document["measures"].items()
        if row.get("runs")
    }
    shown = (f"{_NAMES[task]} {min(of):.3f} to {max(of):.3f}" for task, of in rates.items())
    notes += [f"Unreadable answers of a run: {', '.join(shown)}."] if rates else []
    unscored = [
        f"{_NAMES[task]}: {row['error']}" for task, row in document["measures"].items() if "error" in row
    ]
    return [*notes, *(f"Not scored: {text}" for text in unscored)]


def figure_of(document: Mapping[str, Any]) -> Figure:
    """A panel for each measure: the mean over seeds with its interval, and every run as a point."""
    from matplotlib.figure import Figure

    measures = {task: row for task, row in document["measures"].items() if "shares" in row}
    images = {run["share"]: run["images"] for run in document["runs"].values()}
    figure = Figure(figsize=(1 + 3.4 * max(1, len(measures)), 3.4), layout="constrained")
    panels = figure.subplots(1, max(1, len(measures)), squeeze=False)[0]
    for axes, (task, row) in zip(panels, measures.items(), strict=False):
        shares = sorted((int(share) for share in row["shares"]), reverse=True)
        places = [images[share] for share in shares]
        means = [row["shares"][str(share)]["mean"] for share in shares]
        intervals = [row["shares"][str(share)]["interval"] for share in shares]
        axes.plot(places, means, color="tab:blue")
        for place, interval in zip(places, intervals, strict=True):
            if interval:
                axes.vlines(place, *interval, color="tab:blue", linewidth=2)
        points = [
            (images[document["runs"][name]["share"]], each["mean"]) for name, each in row["runs"].items()
        ]
        axes.scatter(*zip(*points, strict=True), color="tab:orange", s=14, zorder=3)
        axes.set_ylim(bottom=0)
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{place:,}" for place in places])
        axes.set_xticks([], minor=True)
        axes.set_title(_NAMES[task])
        axes.set_xlabel("training images")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def save_figure(document: Mapping[str, Any], path: Path) -> None:
    with replacing_file(path) as making:
        # Without the version of matplotlib, so that the same scores give the same file.
        figure_of(document).savefig(making, format="png", dpi=120, metadata={"Software": None})
