"""The offline teacher: questions and answers about an image from templates.

Each function writes one turn of one task from the record alone, with clean text and spans; the boxes come from
the masks. "Left" and "right" in texts are the patient's. Images without a patient's side (endoscopy,
dermoscopy, fundus, ultrasound) are described by the clock face instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...hub.boxes import Box
from ...hub.grounding import Span
from ..draws import draw_of
from ..records import Axis, Dialogue, ImageRecord, Instance, Task, Turn
from .analysis import MODALITY_NAMES, UNKNOWN_ANSWER, analyse, capital
from .base import ABSENT_SHARE, Refusal
from .positions import is_borderline, place_of, size_of
from .style import PLAIN_STYLE, VARIED_STYLE, Style, asked, draw_foreign
from .subjects import askable_absent, boxes_of, instances_of, labels_of
from .wordings import Kind, Wordings, with_article

TEACHER = "templates"
FOREIGN_SHARE = 0.25  # of varied questions about an absent object: share of names of other modalities


def caption_of(record: ImageRecord) -> str:
    """Return one sentence about the whole image: modality, plane, region, and its largest objects."""
    info = record.info
    plane = "" if info.axis is Axis.PLANAR else f", {info.axis.value} plane"
    labels = labels_of(sorted(record.present, key=lambda item: -item.area))
    shown = f", showing the {_joined(labels[:3])}" if labels else ""
    return f"{capital(MODALITY_NAMES[info.modality])} of the {info.region}{plane}{shown}."


def ground(record: ImageRecord, label: str, rng: np.random.Generator, style: Style = PLAIN_STYLE) -> Turn:
    """VG: where is the object? One answer has all instances of the label, or says that there is none."""
    found = instances_of(record, label)
    boxes = boxes_of(found)
    if not boxes:
        return _grounding(record, label, f"There is no {label} in this image.", (), found, rng, style)
    answer = f"Here is the {label}." if len(boxes) == 1 else f"Each {label} is marked."
    spans = (_span(answer, label, boxes),)
    return _grounding(record, label, answer, spans, found, rng, style)


def ground_unknown(
    record: ImageRecord, word: str, rng: np.random.Generator, style: Style = PLAIN_STYLE
) -> Turn:
    """VG about a word that is in no label: the answer says that it is not known."""
    return _grounding(record, word, UNKNOWN_ANSWER, (), (), rng, style)


def _grounding(
    record: ImageRecord,
    name: str,
    answer: str,
    spans: tuple[Span, ...],
    found: Sequence[Instance],
    rng: np.random.Generator,
    style: Style,
) -> Turn:
    question = asked(record, Kind.GROUND, (name,), rng, style)
    ids = tuple(item.instance_id for item in found)
    return Turn(Task.VISUAL_GROUNDING, question.text, answer, (), spans, ids, question.form_id)


def ground_pair(
    record: ImageRecord, labels: tuple[str, str], rng: np.random.Generator, style: Style = PLAIN_STYLE
) -> Turn:
    """VG: two objects in one answer."""
    question = asked(record, Kind.GROUND_PAIR, labels, rng, style)
    answer = f"Here are the {labels[0]} and the {labels[1]}."
    spans, ids, position = [], [], 0
    for label in labels:
        found = instances_of(record, label)
        spans.append(_span(answer, label, boxes_of(found), position))
        position = spans[-1].end
        ids += [item.instance_id for item in found]
    return Turn(Task.VISUAL_GROUNDING, question.text, answer, (), tuple(spans), tuple(ids), question.form_id)


def classify(
    record: ImageRecord, item: Instance, rng: np.random.Generator, style: Style = PLAIN_STYLE
) -> Turn:
    """ROC: what is in this box?"""
    answer = f"This is the {item.label}."
    return _referring(record, Task.REFERRING_CLASSIFICATION, item, answer, rng, style)


def describe(
    record: ImageRecord, item: Instance, rng: np.random.Generator, style: Style = PLAIN_STYLE
) -> Turn:
    """RC: a sentence about what is in this box: size, name, place."""
    assert item.box is not None
    described = capital(with_article(f"{size_of(item.area)} {item.label}"))
    answer = f"{described}, {place_of(item.box, record.info.axis)}."
    return _referring(record, Task.REFERRING_CAPTION, item, answer, rng, style)


def _referring(
    record: ImageRecord, task: Task, item: Instance, answer: str, rng: np.random.Generator, style: Style
) -> Turn:
    """A question with the box of an instance behind the words that point to it."""
    assert item.box is not None
    question = asked(record, Kind(task.value), (), rng, style)
    ((start, end),) = question.marks
    span = Span(question.text[start:end], start, end, (item.box,))
    return Turn(task, question.text, answer, (span,), (), (item.instance_id,), question.form_id)


def write_dialogue(
    record: ImageRecord,
    rng: np.random.Generator,
    wanted: Mapping[Task, int],
    absent: int,
    pairs: int = 0,
    style: Style = PLAIN_STYLE,
    foreign: int = 0,
    unknown: int = 0,
) -> Dialogue:
    """Write a dialogue of independent turns.

    wanted: number of turns per task. absent, pairs: numbers of additional VG turns about an absent object, and about
    two objects at once. foreign, unknown: numbers of additional VG turns about a name of another modality, and about an
    unknown word. There are fewer turns if the image has fewer objects; varied dialogues do not describe objects at the
    border of two sizes or positions.
    """
    turns: list[Turn] = []
    labels = labels_of(record.present)
    order = [labels[int(place)] for place in rng.permutation(len(labels))]
    turns += [ground(record, label, rng, style) for label in order[: wanted.get(Task.VISUAL_GROUNDING, 0)]]
    missing = askable_absent(record)
    order = [missing[int(place)] for place in rng.permutation(len(missing))]
    turns += [ground(record, label, rng, style) for label in order[:absent]]
    turns += _denials(record, rng, style, foreign, unknown)
    for _ in range(pairs if len(labels) > 1 else 0):
        first, second = rng.choice(len(labels), 2, replace=False)
        turns.append(ground_pair(record, (labels[first], labels[second]), rng, style))
    present = record.present
    items = [present[int(place)] for place in rng.permutation(len(present))]
    classified = items[: wanted.get(Task.REFERRING_CLASSIFICATION, 0)]
    turns += [classify(record, item, rng, style) for item in classified]
    described = [item for item in items[::-1] if style.wordings == Wordings.PLAIN or _is_clear(record, item)]
    described = described[: wanted.get(Task.REFERRING_CAPTION, 0)]
    turns += [describe(record, item, rng, style) for item in described]
    turns += [analyse(record, rng, style) for _ in range(wanted.get(Task.IMAGE_ANALYSIS, 0))]
    return Dialogue(replace(record, caption=caption_of(record)), tuple(turns), TEACHER)


def _denials(
    record: ImageRecord, rng: np.random.Generator, style: Style, foreign: int, unknown: int
) -> Iterator[Turn]:
    """Yield VG turns about names of other modalities, and about unknown words."""
    for _ in range(foreign):
        if (name := draw_foreign(record, rng, style)) is not None:
            yield ground(record, name, rng, style)
    for place in rng.permutation(len(style.unknown_words))[:unknown] if unknown else ():
        yield ground_unknown(record, style.unknown_words[int(place)], rng, style)


def _is_clear(record: ImageRecord, item: Instance) -> bool:
    return item.box is not None and not is_borderline(item.box, item.area, record.info.axis)


def _span(text: str, phrase: str, boxes: tuple[Box, ...], after: int = 0) -> Span:
    start = text.index(phrase, after)
    return Span(phrase, start, start + len(phrase), boxes)


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', the '.join(words[:-1])} and the {words[-1]}"


# Turns per image; with those about absent objects, 4.5 to 5.5 on average (BiRD 3: 270 K on 60 K images).
TURNS = {
    Task.VISUAL_GROUNDING: 2,
    Task.REFERRING_CLASSIFICATION: 1,
    Task.REFERRING_CAPTION: 1,
    Task.IMAGE_ANALYSIS: 1,
}


# Draws of an MIA question per question wanted, before an image counts as asked out.
_MIA_DRAWS = 8


def share_turns(total: int, most: Mapping[Task, int]) -> dict[Task, int]:
    """Return numbers of turns per task that add up to `total`, in the ratio of TURNS, and no more than `most` of each.

    What one task cannot take goes to the others; there are fewer turns if no task can take more.
    """
    wanted = dict.fromkeys(TURNS, 0)
    while total and any(wanted[task] < most[task] for task in TURNS):
        for task, share in TURNS.items():
            added = min(share, most[task] - wanted[task], total)
            wanted[task] += added
            total -= added
    return wanted


def write_turns(record: ImageRecord, rng: np.random.Generator, total: int, style: Style) -> Dialogue:
    """Write up to `total` turns, no two of which ask for the same; there are fewer if the image has few objects.

    The shares of tasks and of absent objects are those of the usual number of turns, as far as the image allows.
    """
    usual = sum(TURNS.values())
    absent, missing = int(total * ABSENT_SHARE / usual + rng.random()), len(askable_absent(record))
    foreign = 0
    if style.wordings != Wordings.PLAIN:
        foreign = int(absent > 0 and (not missing or rng.random() < FOREIGN_SHARE))
    absent = min(absent - foreign, missing)
    clear = [item for item in record.present if style.wordings == Wordings.PLAIN or _is_clear(record, item)]
    most = {
        Task.VISUAL_GROUNDING: len(labels_of(record.present)),
        Task.REFERRING_CLASSIFICATION: len(record.present),
        Task.REFERRING_CAPTION: len(clear),
        Task.IMAGE_ANALYSIS: -(-total // usual),
    }
    wanted = share_turns(total - absent - foreign, most)
    analyses = wanted.pop(Task.IMAGE_ANALYSIS)
    dialogue = write_dialogue(record, rng, wanted, absent, style=style, foreign=foreign)
    found: dict[tuple[str, tuple[str, ...]], Turn] = {}
    for _ in range(_MIA_DRAWS * analyses):
        if len(found) < analyses:
            turn = analyse(record, rng, style)
            found.setdefault((turn.answer, turn.instance_ids), turn)
    return replace(dialogue, turns=(*dialogue.turns, *found.values()))


class TemplateTeacher:
    """A `Teacher` with templates. A dialogue depends on the arguments, the image id, the record and the wordings only.

    turns: most turns per image; by default about five, whatever the image shows.
    """

    name = TEACHER

    def __init__(self, seed: int, turns: int | None = None) -> None:
        self._seed, self._turns = seed, turns

    def dialogues(
        self, records: Iterable[ImageRecord], wordings: Wordings = Wordings.PLAIN
    ) -> Iterator[Dialogue | Refusal]:
        """Yield one dialogue per record. With varied wordings, some absent objects are names of other modalities."""
        for record in records:
            rng = np.random.default_rng(draw_of(self._seed, record.info.image_id))
            if self._turns is not None:
                style = PLAIN_STYLE if wordings == Wordings.PLAIN else VARIED_STYLE
                yield write_turns(record, rng, self._turns, style)
                continue
            absent = int(rng.random() < ABSENT_SHARE)
            if wordings == Wordings.PLAIN:
                yield write_dialogue(record, rng, TURNS, absent)
                continue
            foreign = int(absent and (not askable_absent(record) or rng.random() < FOREIGN_SHARE))
            yield write_dialogue(record, rng, TURNS, absent - foreign, style=VARIED_STYLE, foreign=foreign)
