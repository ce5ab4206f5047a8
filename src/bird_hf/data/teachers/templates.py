"""The offline teacher: questions and answers about an image from templates.

Each function writes one turn of one task from the record alone, with clean text and spans; the boxes come from
the masks. "Left" and "right" in texts are the patient's. Images without a patient's side (endoscopy,
dermoscopy, fundus, ultrasound) are described by the clock face instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...hub.boxes import Box
from ...hub.grounding import Span
from ..draws import draw_of
from ..records import (
    Axis,
    Dialogue,
    ImageRecord,
    Instance,
    Modality,
    Task,
    Turn,
)
from ..sides import other_side
from .base import ABSENT_SHARE, Refusal

TEACHER = "templates"

# "Where is the X?" is always one of the wordings (docs/decisions.md, decision 10).
GROUNDING_QUESTIONS = (
    "Where is the {}?",
    "Where is the {} located in this image?",
    "Locate the {}.",
    "Find the {} in this image.",
    "Show me the {}.",
    "Point out the {}.",
    "Give the bounding box of the {}.",
    "Can you find the {}?",
)
PAIR_QUESTIONS = ("Where are the {} and the {}?", "Locate the {} and the {}.", "Show me the {} and the {}.")
# (the words that get the box, the question).
CLASSIFICATION_QUESTIONS = (
    ("this", "What is {}?"),
    ("this structure", "Name {}."),
    ("this region", "Which object is in {}?"),
    ("this object", "What is {} called?"),
)
CAPTION_QUESTIONS = (
    ("this region", "Describe {}."),
    ("this region", "What do you see in {}?"),
    ("this structure", "Give a short description of {}."),
)
MODALITY_QUESTIONS = ("Which imaging modality is this?", "What is the modality of this image?")
VIEW_QUESTIONS = ("What does this image show?", "Describe this image.")
PRESENCE_QUESTIONS = ("Is there a {} in this image?", "Can a {} be seen in this image?")
COUNT_QUESTIONS = ("How many objects are labelled {}?", "Count the objects labelled {}.")
SIDE_QUESTIONS = ("On which side of the patient is the {}?",)

MODALITY_NAMES = {
    Modality.CT: "a CT image",
    Modality.MR: "an MR image",
    Modality.X_RAY: "an X-ray image",
    Modality.PET: "a PET image",
    Modality.ENDOSCOPY: "an endoscopy image",
    Modality.DERMOSCOPY: "a dermoscopy image",
    Modality.FUNDUS: "a fundus photograph",
    Modality.ULTRASOUND: "an ultrasound image",
}
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# Upper bounds of the share of the image that a small, a medium-sized ... object covers.
_SIZES = ((0.01, "tiny"), (0.04, "small"), (0.15, "medium-sized"), (math.inf, "large"))
_MIDDLE = 0.08  # distance from the middle of the image, below which an object is on neither side
# (left of the picture, right of it), (top, bottom): the radiological display of docs/coordinates.md
_FACING = ("on the patient's right", "on the patient's left")
_DIRECTIONS = {
    Axis.AXIAL: (_FACING, ("anterior", "posterior")),
    Axis.CORONAL: (_FACING, ("superior", "inferior")),
    Axis.SAGITTAL: (("anterior", "posterior"), ("superior", "inferior")),
}


def caption_of(record: ImageRecord) -> str:
    """Return one sentence about the whole image: modality, plane, region, and its largest objects."""
    info = record.info
    plane = "" if info.axis is Axis.PLANAR else f", {info.axis.value} plane"
    labels = list(dict.fromkeys(item.label for item in sorted(record.present, key=lambda item: -item.area)))
    shown = f", showing the {_joined(labels[:3])}" if labels else ""
    return f"{_capital(MODALITY_NAMES[info.modality])} of the {info.region}{plane}{shown}."


def ground(record: ImageRecord, label: str, rng: np.random.Generator) -> Turn:
    """VG: where is the object? One answer has all instances of the label, or says that there is none."""
    found = _instances(record, label)
    question = _pick(rng, GROUNDING_QUESTIONS).format(label)
    ids = tuple(item.instance_id for item in found)
    boxes = _boxes(found)
    if not boxes:
        return Turn(Task.VISUAL_GROUNDING, question, f"There is no {label} in this image.", instance_ids=ids)
    answer = f"Here is the {label}." if len(boxes) == 1 else f"Each {label} is marked."
    return Turn(Task.VISUAL_GROUNDING, question, answer, (), (_span(answer, label, boxes),), ids)


def ground_pair(record: ImageRecord, labels: tuple[str, str], rng: np.random.Generator) -> Turn:
    """VG: two objects in one answer."""
    question = _pick(rng, PAIR_QUESTIONS).format(*labels)
    answer = f"Here are the {labels[0]} and the {labels[1]}."
    spans, ids, position = [], [], 0
    for label in labels:
        found = _instances(record, label)
        spans.append(_span(answer, label, _boxes(found), position))
        position = spans[-1].end
        ids += [item.instance_id for item in found]
    return Turn(Task.VISUAL_GROUNDING, question, answer, (), tuple(spans), tuple(ids))


def classify(record: ImageRecord, item: Instance, rng: np.random.Generator) -> Turn:
    """ROC: what is in this box?"""
    question, span = _pointing(_pick(rng, CLASSIFICATION_QUESTIONS), item)
    answer = f"This is the {item.label}."
    return Turn(Task.REFERRING_CLASSIFICATION, question, answer, (span,), (), (item.instance_id,))


def describe(record: ImageRecord, item: Instance, rng: np.random.Generator) -> Turn:
    """RC: a sentence about what is in this box: size, name, place."""
    question, span = _pointing(_pick(rng, CAPTION_QUESTIONS), item)
    assert item.box is not None
    size = next(word for bound, word in _SIZES if item.area < bound)
    answer = f"{_capital(_with_article(f'{size} {item.label}'))}, {place_of(item.box, record.info.axis)}."
    return Turn(Task.REFERRING_CAPTION, question, answer, (span,), (), (item.instance_id,))


def place_of(box: Box, axis: Axis) -> str:
    """Return the position of a box in words: patient directions for slices, the clock face for other images."""
    x, y = box.centre
    across, down = x - 0.5, y - 0.5
    if axis not in _DIRECTIONS:
        if math.hypot(across, down) < 2 * _MIDDLE:
            return "in the centre"
        hour = round(math.degrees(math.atan2(across, -down)) / 30) % 12 or 12
        return f"toward {hour} o'clock"
    (near_x, far_x), (near_y, far_y) = _DIRECTIONS[axis]
    words = []
    if abs(down) >= _MIDDLE:
        words.append(near_y if down < 0 else far_y)
    if abs(across) >= _MIDDLE:
        words.append(near_x if across < 0 else far_x)
    return " and ".join(words) or "in the middle"


def analyse(record: ImageRecord, rng: np.random.Generator) -> Turn:
    """MIA: a question and an answer without boxes."""
    kinds = [_ask_modality, _ask_view]
    if record.present or record.absent:
        kinds += [_ask_presence, _ask_presence]
    if record.present:
        kinds.append(_ask_count)
        if _DIRECTIONS.get(record.info.axis, (None,))[0] is _FACING:
            kinds.append(_ask_side)
    return kinds[int(rng.integers(len(kinds)))](record, rng)


def _ask_modality(record: ImageRecord, rng: np.random.Generator) -> Turn:
    answer = f"This is {MODALITY_NAMES[record.info.modality]}."
    return Turn(Task.IMAGE_ANALYSIS, _pick(rng, MODALITY_QUESTIONS), answer)


def _ask_view(record: ImageRecord, rng: np.random.Generator) -> Turn:
    info = record.info
    plane = "" if info.axis is Axis.PLANAR else f" in the {info.axis.value} plane"
    answer = f"It shows {MODALITY_NAMES[info.modality]} of the {info.region}{plane}."
    return Turn(Task.IMAGE_ANALYSIS, _pick(rng, VIEW_QUESTIONS), answer)


def _ask_presence(record: ImageRecord, rng: np.random.Generator) -> Turn:
    absent = askable_absent(record)
    labels = absent if absent and (not record.present or rng.random() < 0.5) else _labels(record.present)
    label = _pick(rng, labels or _labels(record.present) or absent)
    found = _instances(record, label)
    question = _pick(rng, PRESENCE_QUESTIONS).format(label).replace("a " + label, _with_article(label))
    answer = (
        f"Yes, the {label} is visible." if found[0].present else f"No, there is no {label} in this image."
    )
    return Turn(Task.IMAGE_ANALYSIS, question, answer, instance_ids=tuple(item.instance_id for item in found))


def _ask_count(record: ImageRecord, rng: np.random.Generator) -> Turn:
    label = _pick(rng, _labels(record.present))
    found = _instances(record, label)
    number = _NUMBERS[len(found)] if len(found) < len(_NUMBERS) else str(len(found))
    answer = f"There {'is' if len(found) == 1 else 'are'} {number}."
    ids = tuple(item.instance_id for item in found)
    return Turn(Task.IMAGE_ANALYSIS, _pick(rng, COUNT_QUESTIONS).format(label), answer, instance_ids=ids)


def _ask_side(record: ImageRecord, rng: np.random.Generator) -> Turn:
    item = _pick(
        rng, [item for item in record.present if len(_instances(record, item.label)) == 1] or record.present
    )
    assert item.box is not None
    across = item.box.centre[0] - 0.5
    side = "In the middle" if abs(across) < _MIDDLE else _capital(_FACING[across > 0])
    question = _pick(rng, SIDE_QUESTIONS).format(item.label)
    return Turn(Task.IMAGE_ANALYSIS, question, f"{side}.", instance_ids=(item.instance_id,))


def askable_absent(record: ImageRecord) -> list[str]:
    """Return the absent labels whose absence the image alone shows.

    A sagittal slice does not show its own side, so the other side of a present structure is left out.
    """
    labels = _labels(record.absent)
    if record.info.axis is not Axis.SAGITTAL:
        return labels
    here = set(_labels(record.present))
    return [label for label in labels if other_side(label) not in here]


def write_dialogue(
    record: ImageRecord, rng: np.random.Generator, wanted: Mapping[Task, int], absent: int, pairs: int = 0
) -> Dialogue:
    """Write a dialogue of independent turns.

    wanted: number of turns per task. absent, pairs: numbers of additional VG turns about an absent object, and about
    two objects at once. There are fewer turns if the image has fewer objects.
    """
    turns: list[Turn] = []
    labels = _labels(record.present)
    order = [labels[int(place)] for place in rng.permutation(len(labels))]
    turns += [ground(record, label, rng) for label in order[: wanted.get(Task.VISUAL_GROUNDING, 0)]]
    missing = askable_absent(record)
    turns += [ground(record, missing[int(place)], rng) for place in rng.permutation(len(missing))[:absent]]
    for _ in range(pairs if len(labels) > 1 else 0):
        first, second = rng.choice(len(labels), 2, replace=False)
        turns.append(ground_pair(record, (labels[first], labels[second]), rng))
    items = [record.present[int(place)] for place in rng.permutation(len(record.present))]
    turns += [classify(record, item, rng) for item in items[: wanted.get(Task.REFERRING_CLASSIFICATION, 0)]]
    turns += [describe(record, item, rng) for item in items[::-1][: wanted.get(Task.REFERRING_CAPTION, 0)]]
    turns += [analyse(record, rng) for _ in range(wanted.get(Task.IMAGE_ANALYSIS, 0))]
    return Dialogue(replace(record, caption=caption_of(record)), tuple(turns), TEACHER)


def _pointing(wording: tuple[str, str], item: Instance) -> tuple[str, Span]:
    """Return a question about an instance, and the span of its words that get the box."""
    words, template = wording
    question = template.format(words)
    assert item.box is not None
    return question, _span(question, words, (item.box,))


def _span(text: str, phrase: str, boxes: tuple[Box, ...], after: int = 0) -> Span:
    start = text.index(phrase, after)
    return Span(phrase, start, start + len(phrase), boxes)


def _instances(record: ImageRecord, label: str) -> list[Instance]:
    return [item for item in record.instances if item.label == label]


def _boxes(items: Sequence[Instance]) -> tuple[Box, ...]:
    """Return the boxes of instances in reading order; masks come in any order."""
    return tuple(sorted((item.box for item in items if item.box), key=lambda box: (box.y1, box.x1)))


def _labels(items: Sequence[Instance]) -> list[str]:
    return list(dict.fromkeys(item.label for item in items))


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', the '.join(words[:-1])} and the {words[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _with_article(words: str) -> str:
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def _pick(rng: np.random.Generator, options: Sequence):
    return options[int(rng.integers(len(options)))]


# Turns per image; with those about absent objects, 4.5 to 5.5 on average (BiRD 3: 270 K on 60 K images).
TURNS = {
    Task.VISUAL_GROUNDING: 2,
    Task.REFERRING_CLASSIFICATION: 1,
    Task.REFERRING_CAPTION: 1,
    Task.IMAGE_ANALYSIS: 1,
}


class TemplateTeacher:
    """A `Teacher` with fixed wordings. The dialogue of a record depends on the seed and the image id only."""

    name = TEACHER

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def dialogues(self, records: Iterable[ImageRecord]) -> Iterator[Dialogue | Refusal]:
        for record in records:
            rng = np.random.default_rng(draw_of(self._seed, record.info.image_id))
            yield write_dialogue(record, rng, TURNS, absent=int(rng.random() < ABSENT_SHARE))
