"""Tables of what `bird score` prints: scores with intervals, outcomes, strict VG, and two files compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..markdown import Markup, Part, Table, rendered

_MEASURES = {
    "recall@0.25": "Recall@0.25",
    "recall@0.5": "Recall@0.5",
    "recall@0.75": "Recall@0.75",
    "mean_iou": "mean IoU",
    "f1@0.5": "F1@0.5",
    "false_boxes_per_answer": "false boxes per answer",
    "rejection_rate": "absent objects: said absent",
    "false_box_rate": "absent objects: boxed",
    "laterality_confusion": "box on the twin",
    "phrase_fidelity": "phrase names what was asked",
    "unreadable_rate": "unreadable answers",
}
_BOXES = tuple(_MEASURES)[:4]
_INTERVAL_OF_TEXTS = ("mbmr",)  # whose interval the table shows if there are several measures
_SHOWN_LABELS = 25  # more are in the JSON only
_NOTE = (
    "In the tables of modalities, labels and sizes n is the number of reference boxes, and the interval is that of "
    "Recall@0.5."
)
_COUNTED = ["n", "cases", "95 % interval"]


def table_of_scores(scored: Mapping[str, Any]) -> str:
    """The result of `score_predictions` as Markdown."""
    return "\n\n".join(map(rendered, tables_of_scores(scored)))


def tables_of_scores(scored: Mapping[str, Any]) -> list[Part]:
    """The result of `score_predictions`: the mean, a line per modality, outcomes, and strict VG."""
    names = list(next(iter(scored["modalities"].values()), {}))
    texts = isinstance(scored["mean"], dict)
    main = next((name for name in _INTERVAL_OF_TEXTS if name in names), *names[:1]) if texts else ""
    mean = scored["mean"] if texts else {"score": scored["mean"]}
    cases, intervals = scored["cases"], scored["interval"]
    whole = [Markup(f"{scored['n']:,}"), Markup(f"{cases['total']:,}")]

    def line(name: str, row: Mapping[str, Any], counts: Sequence[Markup], interval: Any) -> list[str]:
        shown = interval[main] if texts and interval else interval
        return [name, *(_number(row.get(each)) for each in names), *counts, _interval(shown)]

    lines = [line(f"mean of {scored['n_modalities']}", mean, whole, intervals["mean"])]
    if "baseline" in scored:
        guess = scored["baseline"]
        lines.append(line("baseline", {"score": guess["mean"]}, whole, guess["interval"]["mean"]))
    for modality, row in scored["modalities"].items():
        counts = [Markup(f"{cases[kind][modality]:,}") for kind in ("answers", "modalities")]
        lines.append(line(Markup(modality), row, counts, intervals["modalities"].get(modality)))
    counted = ["answers", "cases", f"95 % interval of {main}" if main else "95 % interval"]
    header = [f"{scored['task']}, {scored['rules']} rules", *map(Markup, names), *counted]
    return [Table(header, lines), _note(scored), *(_grounding(scored) if "grounding" in scored else [])]


def _note(scored: Mapping[str, Any]) -> list[str]:
    kinds = scored["outcomes"]
    unit = scored["cases"]["unit"]
    lines = [
        f"answered: {kinds['answered']:,}, said absent: {kinds['said_absent']:,}, unreadable: {kinds['unreadable']:,} "
        f"of {scored['n']:,} answers",
        f"unreadable answers: {scored['unreadable_rate']:.4f}",
        f"malformed answers: {scored['malformed_rate']:.4f}",
        f"intervals: bootstrap over {unit}s, 2,000 draws"
        + (
            ""
            if unit == "case"
            else " (the file does not name the cases; answers of one patient are not independent)"
        ),
    ]
    if scored["errors"]:
        lines.insert(1, f"questions on which the model failed: {scored['errors']:,}")
    if "baseline" in scored:
        lines.append("baseline: the mean training box of the label, else the middle of the image")
    return lines


def _grounding(scored: Mapping[str, Any]) -> list[Part]:
    found, guess = scored["grounding"], scored.get("baseline", {}).get("grounding")
    rows = found["all"]
    lines = [[_MEASURES[name], *_cells(rows[name])] for name in _present(rows)]
    if not found["laterality_known"]:
        lines.append([_MEASURES["laterality_confusion"], "not computed: give --data", *[Markup("-")] * 3])
    if guess:
        lines = [
            [*line, _number(guess[name]["score"])] for line, name in zip(lines, _present(rows), strict=True)
        ]
    parts: list[Part] = [Table(["all answers", "score", *_COUNTED, *(["baseline"] if guess else [])], lines)]
    for heading, groups in (("modality", "modalities"), ("label", "labels"), ("size of the box", "sizes")):
        lines = [[name, *_summary(row)] for name, row in found[groups].items() if row["recall@0.5"]["n"]]
        if heading == "label" and len(lines) > _SHOWN_LABELS:
            parts.append(f"{len(lines)} labels: their rows are in the JSON only")
        elif lines:
            parts.append(Table([heading, *(_MEASURES[name] for name in _BOXES), *_COUNTED], lines))
    parts.append(_NOTE)
    return parts


def _present(rows: Mapping[str, Any]) -> list[str]:
    return [name for name in _MEASURES if name in rows]


def _cells(row: Mapping[str, Any]) -> Sequence[Markup]:
    return (
        _number(row["score"]),
        Markup(f"{row['n']:,}"),
        Markup(f"{row['cases']:,}"),
        _interval(row["interval"]),
    )


def _summary(rows: Mapping[str, Any]) -> Sequence[Markup]:
    return [*(_number(rows[name]["score"]) for name in _BOXES), *_cells(rows["recall@0.5"])[1:]]


def table_of_comparison(compared: Mapping[str, Any], names: Sequence[str]) -> str:
    """The result of `compare_predictions` as Markdown; names: of the two files."""
    first, second = compared["first"], compared["second"]
    lines = []
    for measure, found in compared["difference"].items():
        label = "" if measure == "score" else f"{measure}, "
        lines.append([f"{label}mean of {len(found['modalities'])}", _mean(first, measure), _mean(second, measure),
                      *_differing(found["mean"]), Markup(first["cases"]["total"])])  # fmt: skip
        for name, row in found["modalities"].items():
            values = [_number(each["modalities"][name][measure]) for each in (first, second)]
            lines.append(
                [f"{label}{name}", *values, *_differing(row), Markup(first["cases"]["modalities"][name])]
            )
    header = [
        f"{compared['task']}, {compared['rules']} rules",
        *names,
        "difference",
        "95 % interval",
        "cases",
    ]
    rates = ", ".join(f"{each['unreadable_rate']:.4f}" for each in (first, second))
    unit = first["cases"]["unit"]
    note = (
        f"- unreadable answers: {rates}\n"
        f"- n: {first['n']:,} answers each; intervals: bootstrap over {unit}s, 2,000 draws"
    )
    return f"{Table(header, lines)}\n\n{note}"


def _differing(row: Mapping[str, Any]) -> Sequence[Markup]:
    value = row["difference"]
    return Markup("-" if value is None else f"{value:+.4f}"), _interval(row["interval"])


def _mean(scored: Mapping[str, Any], measure: str) -> Markup:
    return _number(scored["mean"][measure] if isinstance(scored["mean"], dict) else scored["mean"])


def _number(value: float | None) -> Markup:
    if value is None:
        return Markup()
    return Markup(value if isinstance(value, int) else f"{value:.4f}")


def _interval(value: Sequence[float] | None) -> Markup:
    return Markup("-" if value is None else f"{value[0]:.4f} to {value[1]:.4f}")
