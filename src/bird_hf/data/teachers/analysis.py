"""MIA of the templates: questions about the whole image and answers without boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..records import Axis, ImageRecord, Modality, Task, Turn
from .positions import FACING, MIDDLE, shows_sides
from .style import PLAIN_STYLE, Style, asked, draw_foreign, draw_of_sequence
from .subjects import askable_absent, instances_of, labels_of
from .wordings import Kind, Wordings

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
# The answer about a word that is in no label. It does not repeat the word: a small model writes a known name instead.
UNKNOWN_ANSWER = "I do not know this name."
_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# Of yes/no questions: shares of unknown words and of foreign names, of these also for images without absent labels.
_UNKNOWN_SHARE, _FOREIGN_SHARE, _FOREIGN_SHARE_ALONE = 0.08, 0.08, 0.5
_COUNTS = {"none": 0.25, "one": 0.2, "many": 0.55}  # shares of the answers, where an image allows all
_MANY_SHARE = 0.3  # least share of counts, if an image shows a label several times
_YES_SHARES = (0.4, 0.7)  # of the images with present and absent labels
_MIN_WEIGHT = 0.02

_Ask = Callable[[ImageRecord, np.random.Generator, Style], Turn]


def analyse(record: ImageRecord, rng: np.random.Generator, style: Style = PLAIN_STYLE) -> Turn:
    """MIA: a question and an answer without boxes."""
    kinds: list[_Ask] = [_ask_modality, _ask_view]
    if record.present or record.absent:
        kinds += [_ask_presence, _ask_presence]
    if record.present:
        kinds.append(_ask_count)
        if shows_sides(record.info.axis):
            kinds.append(_ask_side)
    if style.presence_share and len(kinds) > 2:
        shows_many = len(record.present) > len(labels_of(record.present))
        if shows_many and rng.random() < _MANY_SHARE:
            return _ask_count(record, rng, style)
        if rng.random() < style.presence_share:
            return _ask_presence(record, rng, style)
    return kinds[int(rng.integers(len(kinds)))](record, rng, style)


def _ask_modality(record: ImageRecord, rng: np.random.Generator, style: Style) -> Turn:
    answer = f"This is {MODALITY_NAMES[record.info.modality]}."
    return _turn(record, Kind.MODALITY, (), answer, rng, style)


def _ask_view(record: ImageRecord, rng: np.random.Generator, style: Style) -> Turn:
    info = record.info
    plane = "" if info.axis is Axis.PLANAR else f" in the {info.axis.value} plane"
    answer = f"It shows {MODALITY_NAMES[info.modality]} of the {info.region}{plane}."
    return _turn(record, Kind.VIEW, (), answer, rng, style)


def _ask_presence(record: ImageRecord, rng: np.random.Generator, style: Style) -> Turn:
    if style.wordings == Wordings.PLAIN:
        absent = askable_absent(record)
        labels = (
            absent if absent and (not record.present or rng.random() < 0.5) else labels_of(record.present)
        )
        return presence_turn(record, draw_of_sequence(rng, labels), rng, style)
    if style.unknown_words and rng.random() < _UNKNOWN_SHARE:
        word = draw_of_sequence(rng, style.unknown_words)
        return _turn(record, Kind.PRESENCE, (word,), UNKNOWN_ANSWER, rng, style)
    return presence_turn(record, _balanced_label(record, rng, style), rng, style)


def _balanced_label(record: ImageRecord, rng: np.random.Generator, style: Style) -> str:
    """Draw a label for a yes/no question so that, over many images, both answers are equally frequent for each label.

    A label that a share p of the images shows has the weight 1 - p where it is present and p where it is absent.
    """
    present, absent = labels_of(record.present), askable_absent(record)
    foreign = draw_foreign(record, rng, style)
    if foreign and rng.random() < (_FOREIGN_SHARE if absent else _FOREIGN_SHARE_ALONE):
        return foreign
    rates = style.presence_rates.get(record.info.modality, {})
    if not present or not absent:
        return draw_of_sequence(rng, present or absent)
    yes, no = [1 - rates.get(label, 0.5) for label in present], [rates.get(label, 0.5) for label in absent]
    share = float(np.clip(sum(yes) / max(sum(yes) + sum(no), 1e-6), *_YES_SHARES))
    return _weighted(rng, present, yes) if rng.random() < share else _weighted(rng, absent, no)


def presence_turn(record: ImageRecord, label: str, rng: np.random.Generator, style: Style) -> Turn:
    """MIA: is the object in the image?"""
    found = instances_of(record, label)
    is_present = any(item.present for item in found)
    answer = f"Yes, the {label} is visible." if is_present else f"No, there is no {label} in this image."
    ids = tuple(item.instance_id for item in found)
    return _turn(record, Kind.PRESENCE, (label,), answer, rng, style, ids)


def _ask_count(record: ImageRecord, rng: np.random.Generator, style: Style) -> Turn:
    plain = style.wordings == Wordings.PLAIN
    label = draw_of_sequence(rng, labels_of(record.present)) if plain else _counted_label(record, rng)
    return count_turn(record, label, rng, style)


def count_turn(record: ImageRecord, label: str, rng: np.random.Generator, style: Style) -> Turn:
    """MIA: how many objects of a label are there?"""
    found = instances_of(record, label)
    count = sum(item.present for item in found)
    number = _NUMBERS[count] if count < len(_NUMBERS) else str(count)
    answer = f"There {'is' if count == 1 else 'are'} {number}."
    ids = tuple(item.instance_id for item in found)
    return _turn(record, Kind.COUNT, (label,), answer, rng, style, ids)


def _counted_label(record: ImageRecord, rng: np.random.Generator) -> str:
    """Draw a label of which there are none, one or many; many are rare, so they are asked for more often."""
    present = labels_of(record.present)
    counts = {label: len(instances_of(record, label)) for label in present}
    options = {
        "none": askable_absent(record),
        "one": [label for label in present if counts[label] == 1],
        "many": [label for label in present if counts[label] > 1],
    }
    options = {name: labels for name, labels in options.items() if labels}
    name = _weighted(rng, list(options), [_COUNTS[name] for name in options])
    return draw_of_sequence(rng, options[name])


def _ask_side(record: ImageRecord, rng: np.random.Generator, style: Style) -> Turn:
    single = [item for item in record.present if len(instances_of(record, item.label)) == 1]
    item = draw_of_sequence(rng, single or record.present)
    assert item.box is not None
    across = item.box.centre[0] - 0.5
    side = "In the middle" if abs(across) < MIDDLE else capital(FACING[across > 0])
    return _turn(record, Kind.SIDE, (item.label,), f"{side}.", rng, style, (item.instance_id,))


def capital(text: str) -> str:
    """Return a text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _turn(
    record: ImageRecord,
    kind: Kind,
    names: tuple[str, ...],
    answer: str,
    rng: np.random.Generator,
    style: Style,
    ids: tuple[str, ...] = (),
) -> Turn:
    question = asked(record, kind, names, rng, style)
    return Turn(Task.IMAGE_ANALYSIS, question.text, answer, instance_ids=ids, form=question.form_id)


def _weighted(rng: np.random.Generator, options: Sequence[str], weights: Sequence[float]) -> str:
    shares = np.maximum(weights, _MIN_WEIGHT)
    return options[int(rng.choice(len(options), p=shares / shares.sum()))]
