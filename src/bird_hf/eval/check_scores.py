"""Scores and tables of the checks (checks.py): one row per check, over all images, real images and phantoms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..data.records import Axis, Task
from ..data.teachers.positions import describes
from ..hub.boxes import Box
from ..hub.grounding import read
from ..markdown import Table
from . import recall
from .checks import Check
from .paper_rules import clean_response
from .predictions import Prediction, by_modality
from .readings import is_about_another, number_in, says_absent, yes_or_no
from .recall import Recall
from .score import recall_rule

_SOURCES: Mapping[str, tuple[bool | None, ...]] = {
    "all": (True, False, None),
    "real": (False,),
    "phantom": (True,),
}
_HEADINGS = {"all": "all images", "real": "real images", "phantom": "phantoms"}
_MANY = 3  # true counts from here on are one row
_WORDINGS = {
    Check.VG_PLAIN: "VG Recall@0.5, templates",
    Check.VG_LOWER: "VG, lower case",
    Check.VG_TITLE_NAME: "VG, Name In Capitals",
    Check.VG_CAPITALS: "VG, CAPITALS",
    Check.VG_NO_PUNCTUATION: "VG, no punctuation",
    Check.VG_UNSEEN: "VG, wordings never seen",
    Check.ROC_PLAIN: "ROC recall, templates",
    Check.ROC_UNSEEN: "ROC, wordings never seen",
}
_NAMES = {Check.FOREIGN: "names of other modalities", Check.UNKNOWN: "unknown words"}
CHECKS_NOTE = (
    "The VG rows ask for the same objects in different wordings; those never seen are kept out of training. Unknown "
    "words are not in the training data. An answer about another thing names something, but not what was asked for. "
    "Yes/no: the mean of the accuracies where yes is right and where no is right. Percent; the number of reference "
    "boxes (VG), of modalities (mean of yes/no) or of questions is in brackets."
)
_Rows = dict[str, Recall]


def score_checks(predictions: Sequence[Prediction], rules: str = "paper") -> dict[str, Any]:
    """The scores of answered checks: {row: {source: {"score", "n"}}}; a score is None if nothing was asked for.

    n is the number of reference boxes for VG, of modalities for the mean of yes/no questions, and of questions
    otherwise. rules: of the rows of VG and ROC.
    """
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for source, kinds in _SOURCES.items():
        chosen = [each for each in predictions if each.synthetic in kinds]
        for name, cell in _cells(chosen, rules).items():
            rows.setdefault(name, {})[source] = cell
    return rows


def _cells(predictions: Sequence[Prediction], rules: str) -> dict[str, dict[str, Any]]:
    of_check = {check: [each for each in predictions if _check(each) is check] for check in Check}
    rows: _Rows = {}
    for check, label in _WORDINGS.items():
        task = Task.VISUAL_GROUNDING if check.startswith("vg") else Task.REFERRING_CLASSIFICATION
        rule = recall_rule(task, rules)
        rows[label] = recall.total(rule(each.annotation, each.response) for each in of_check[check])
    for check, label in _NAMES.items():
        rows |= _missing_names(of_check[check], label)
    cells = {name: {"score": row.score, "n": row.total} for name, row in rows.items()}
    cells |= _presence(of_check[Check.PRESENCE])
    rest = _counts(of_check[Check.COUNT]) | _descriptions(of_check[Check.DESCRIPTION])
    cells |= {name: {"score": row.score, "n": row.total} for name, row in rest.items()}
    return {name: cell for name, cell in cells.items() if cell["n"]}


def _missing_names(asked: Sequence[Prediction], label: str) -> _Rows:
    """Boxed; said absent or unknown, without a box; and about another thing, with or without a box."""
    boxed, absent, another = [], [], []
    for each in asked:
        answer = read(clean_response(each.response))
        boxed.append(bool(answer.boxes))
        absent.append(not answer.boxes and says_absent(answer.text))
        another.append(is_about_another(answer.text, _facts(each)["name"]))
    return {
        f"{label}: boxed": _share(boxed),
        f"{label}: said absent or unknown": _share(absent),
        f"{label}: answer about another thing": _share(another),
    }


def _presence(asked: Sequence[Prediction]) -> dict[str, dict[str, Any]]:
    """Balanced accuracy by modality: the mean of the shares of right answers where yes is right, and where no is."""
    cells: dict[str, dict[str, Any]] = {}
    scores = []
    for modality, group in by_modality(asked, [each.modality for each in asked]).items():
        right: dict[bool, list[bool]] = {True: [], False: []}
        for each in group:
            truth = _facts(each)["present"]
            right[truth].append(yes_or_no(_text(each)) is truth)
        if right[True] and right[False]:
            scores.append(sum(_mean(values) for values in right.values()) / len(right))
            cells[f"yes/no, balanced: {modality}"] = {"score": scores[-1], "n": len(group)}
    mean = {"score": _mean(scores) if scores else None, "n": len(scores)}
    return {"yes/no, balanced: mean of the modalities": mean, **cells}


def _counts(asked: Sequence[Prediction]) -> _Rows:
    right: dict[str, list[bool]] = {}
    for each in asked:
        truth = _facts(each)["count"]
        name = str(truth) if truth < _MANY else f"{_MANY} or more"
        right.setdefault(name, []).append(number_in(_text(each)) == truth)
    whole = [value for values in right.values() for value in values]
    rows = {f"counts, exact: {name} in the image": _share(right[name]) for name in sorted(right)}
    return {"counts, exact": _share(whole), **rows}


def _descriptions(asked: Sequence[Prediction]) -> _Rows:
    right: dict[str, list[bool]] = {"size": [], "side": [], "direction": [], "clock": []}
    for each in asked:
        facts = _facts(each)
        found = describes(_text(each), Box(*facts["box"]), facts["area"], Axis(facts["axis"]))
        for kind, value in found.items():
            right[kind].append(value)
    return {f"RC, {kind} right": _share(values) for kind, values in right.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _share(values: Iterable[bool]) -> Recall:
    values = list(values)
    return Recall(sum(values), len(values))


def _check(prediction: Prediction) -> Check:
    """Raises ValueError if the answer is to no known check."""
    try:
        return Check(_facts(prediction)["check"])
    except (ValueError, KeyError):
        raise ValueError(
            f"answer {prediction.id} is to no known check; predict again with this version"
        ) from None


def _facts(prediction: Prediction) -> Mapping[str, Any]:
    return prediction.facts or {}


def _text(prediction: Prediction) -> str:
    return read(clean_response(prediction.response)).text


def table_of_checks(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The result of `score_checks` as a Markdown table."""
    return str(checks_table(rows))


def checks_table(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """The result of `score_checks` in percent, with n in brackets."""
    sources = [source for source in _SOURCES if any(source in row for row in rows.values())]
    lines = [[name, *(_cell(row.get(source)) for source in sources)] for name, row in rows.items()]
    return Table(["check", *(_HEADINGS[source] for source in sources)], lines)


def _cell(cell: Mapping[str, Any] | None) -> str:
    return "-" if cell is None or cell["score"] is None else f"{100 * cell['score']:.1f} ({cell['n']})"
