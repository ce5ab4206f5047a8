"""Questions beyond the paper's tables: other wordings, names not in the image, yes or no, counts, descriptions.

The questions about an image depend on its id and its objects only, so every model gets the same ones. They are paired:
each VG check asks for the same objects in another wording. Each question is a `Prediction` of the task `checks`, and
its `facts` hold what is needed to score the answer (scores: check_scores.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np

from ..data.draws import draw_of
from ..data.records import Axis, ImageInfo, ImageRecord, Instance, Modality, Task, Turn
from ..data.teachers.analysis import count_turn, presence_turn
from ..data.teachers.positions import is_borderline
from ..data.teachers.style import PLAIN_STYLE, Style, draw_foreign
from ..data.teachers.subjects import Vocabulary, askable_absent, instances_of, labels_of
from ..data.teachers.templates import TEACHER, classify, describe, ground, ground_unknown
from ..data.teachers.wordings import Surface, Worded, Wordings, restyled, unknown_words
from ..hub.boxes import Box
from .predictions import Prediction

CHECKS = "checks"  # the task of these questions, and the name of their prediction file
_SEED = 16
# Questions per image, fewer if it has fewer objects.
_GROUNDED, _CLASSIFIED, _DESCRIBED, _MISSING, _YES, _NO = 2, 1, 1, 2, 2, 2

_T = TypeVar("_T")
_Pairs = Iterator[tuple[Turn, dict[str, Any]]]


class Check(StrEnum):
    """What a question checks."""

    VG_PLAIN = "vg_plain"
    VG_LOWER = "vg_lower"
    VG_TITLE_NAME = "vg_title_name"
    VG_CAPITALS = "vg_capitals"
    VG_NO_PUNCTUATION = "vg_no_punctuation"
    VG_UNSEEN = "vg_unseen"
    ROC_PLAIN = "roc_plain"
    ROC_UNSEEN = "roc_unseen"
    FOREIGN = "foreign_name"
    UNKNOWN = "unknown_word"
    PRESENCE = "presence"
    COUNT = "count"
    DESCRIPTION = "description"


_SURFACES = {
    Check.VG_LOWER: Surface.LOWER,
    Check.VG_TITLE_NAME: Surface.TITLE_NAME,
    Check.VG_CAPITALS: Surface.CAPITALS,
    Check.VG_NO_PUNCTUATION: Surface.NO_PUNCTUATION,
}


_TASKS = {
    Check.ROC_PLAIN: Task.REFERRING_CLASSIFICATION,
    Check.ROC_UNSEEN: Task.REFERRING_CLASSIFICATION,
    Check.PRESENCE: Task.IMAGE_ANALYSIS,
    Check.COUNT: Task.IMAGE_ANALYSIS,
    Check.DESCRIPTION: Task.REFERRING_CAPTION,
}


def task_of_check(check: Check) -> str:
    """The task that the questions of a check are of."""
    return _TASKS.get(check, Task.VISUAL_GROUNDING).value


def check_questions(
    records: Iterable[ImageRecord], vocabulary: Vocabulary, counts: bool = True
) -> list[Prediction]:
    """The questions about images, without answers, image by image.

    vocabulary: names by modality, from which those of other modalities are drawn. counts: whether the records hold
    every object of their labels, so that objects can be counted.
    """
    return [
        Prediction(number, f"{record.info.image_id}.png", *turn.tagged(), "", CHECKS, record.info.synthetic, facts,
                   names=(facts["name"],) if "name" in facts else ())
        for number, (record, turn, facts) in enumerate(
            (record, turn, facts)
            for record in records
            for turn, facts in _turns(record, vocabulary, counts)
        )
    ]  # fmt: skip


def _turns(record: ImageRecord, vocabulary: Vocabulary, counts: bool) -> _Pairs:
    rng = np.random.default_rng(draw_of(_SEED, record.info.image_id))
    unseen = Style(Wordings.VARIED, part="held_out", vocabulary=vocabulary)
    for label in _some(rng, labels_of(record.present), _GROUNDED):
        yield from _wordings(record, label, rng, unseen)
    if record.allows_classification:
        for item in _some(rng, record.present, _CLASSIFIED):
            yield classify(record, item, rng), {"check": Check.ROC_PLAIN.value}
            yield classify(record, item, rng, unseen), {"check": Check.ROC_UNSEEN.value}
    yield from _missing(record, rng, unseen)
    yield from _yes_or_no(record, rng)
    if counts:
        yield from _counts(record, rng)
    clear = [
        item
        for item in record.present
        if item.box and not is_borderline(item.box, item.area, record.info.axis)
    ]
    for item in _some(rng, clear, _DESCRIBED):
        assert item.box is not None
        facts = {"check": Check.DESCRIPTION.value, "box": list(item.box.xyxy), "area": item.area,
                 "axis": record.info.axis.value}  # fmt: skip
        yield describe(record, item, rng), facts


def _wordings(record: ImageRecord, label: str, rng: np.random.Generator, unseen: Style) -> _Pairs:
    """One object asked for with a template, the same template in other letter cases, and a form that is held out."""
    turn = ground(record, label, rng)
    yield turn, {"check": Check.VG_PLAIN.value}
    start = turn.question.index(label)
    worded = Worded(turn.question, turn.form, ((start, start + len(label)),))
    for check, surface in _SURFACES.items():
        yield replace(turn, question=restyled(worded, surface).text), {"check": check.value}
    yield ground(record, label, rng, unseen), {"check": Check.VG_UNSEEN.value}


def _missing(record: ImageRecord, rng: np.random.Generator, style: Style) -> _Pairs:
    drawn = {name for _ in range(_MISSING) if (name := draw_foreign(record, rng, style))}
    for name in sorted(drawn):
        yield ground(record, name, rng), {"check": Check.FOREIGN.value, "name": name}
    for word in _some(rng, unknown_words("held_out"), _MISSING):
        yield ground_unknown(record, word, rng), {"check": Check.UNKNOWN.value, "name": word}


def _yes_or_no(record: ImageRecord, rng: np.random.Generator) -> _Pairs:
    for labels, number, is_present in (
        (labels_of(record.present), _YES, True),
        (askable_absent(record), _NO, False),
    ):
        for label in _some(rng, labels, number):
            facts = {"check": Check.PRESENCE.value, "present": is_present}
            yield presence_turn(record, label, rng, PLAIN_STYLE), facts


def _counts(record: ImageRecord, rng: np.random.Generator) -> _Pairs:
    """One label each of which there are none, one, and several."""
    numbers = {label: len(instances_of(record, label)) for label in labels_of(record.present)}
    once = [label for label, number in numbers.items() if number == 1]
    several = [label for label, number in numbers.items() if number > 1]
    for labels in (askable_absent(record), once, several):
        for label in _some(rng, labels, 1):
            facts = {"check": Check.COUNT.value, "count": numbers.get(label, 0)}
            yield count_turn(record, label, rng, PLAIN_STYLE), facts


def _some(rng: np.random.Generator, options: Sequence[_T], number: int) -> list[_T]:
    return [options[int(place)] for place in rng.permutation(len(options))[:number]]


def checks_of_rows(rows: Iterable[Mapping[str, Any]]) -> list[Prediction]:
    """The questions about the images of published rows, in the order of the images.

    rows: the rows of all tasks; rows may share an image. The names of other modalities are those of the rows. Objects
    are only counted if all rows of an image are from templates, which mention every object of a label.
    """
    by_image: dict[str, list[Mapping[str, Any]]] = {}
    vocabulary: dict[Modality, dict[str, None]] = {}
    for row in rows:
        by_image.setdefault(row["image_id"], []).append(row)
        names = vocabulary.setdefault(Modality(row["modality"]), {})
        names |= dict.fromkeys(item["label"] for item in row["objects"] if item["present"])
    known = {modality: tuple(sorted(names)) for modality, names in vocabulary.items()}
    found: list[Prediction] = []
    for of_image in by_image.values():
        counts = all(row["teacher"] == TEACHER for row in of_image)
        asked = check_questions([_record_of(of_image)], known, counts)
        found += [replace(each, id=len(found) + number) for number, each in enumerate(asked)]
    return found


def _record_of(rows: Sequence[Mapping[str, Any]]) -> ImageRecord:
    """The record of an image from its rows. Labels of which only single objects are mentioned are left out."""
    row = rows[0]
    items = {
        (item["label"], *(item["box"] or ())): Instance(
            item["instance_id"], item["label"], Box(*item["box"]) if item["box"] else None, item["area"]
        )
        for each in rows
        for item in each["objects"]
    }
    whole = {item["label"] for each in rows if each["task"] in _WHOLE for item in each["objects"]}
    info = ImageInfo(row["image_id"], Modality(row["modality"]), "", row["region"], Axis(row["axis"]), None,
                     row["dataset"], row["case_id"], row["synthetic"])  # fmt: skip
    chosen = tuple(item for item in items.values() if item.label in whole)
    return ImageRecord(info, tuple(row["image_wh"]), chosen)


_WHOLE = ("vg", "mia")  # tasks whose rows mention all objects of a label
