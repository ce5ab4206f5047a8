"""How the templates write and choose their questions: the plain templates, or varied forms and more names to deny."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from ..phantoms import PHANTOM_LABELS
from ..records import ImageRecord, Modality
from .subjects import Vocabulary, foreign_names
from .wordings import Kind, Part, Worded, Wordings, question

_PHOTOGRAPHS = (Modality.ENDOSCOPY, Modality.DERMOSCOPY, Modality.FUNDUS)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Style:
    """How questions are written. The defaults are the plain templates.

    part: the forms that varied questions are drawn from. vocabulary: names by modality; those of other modalities are
    called absent. unknown_words: words that the answer says are not known. presence_share: of MIA, the least share of
    yes/no questions. presence_rates: modality -> label -> share of images that show it, to balance yes and no.
    """

    wordings: Wordings = Wordings.PLAIN
    part: Part = "train"
    vocabulary: Vocabulary = field(default_factory=lambda: PHANTOM_LABELS)
    unknown_words: tuple[str, ...] = ()
    presence_share: float = 0.0
    presence_rates: Mapping[Modality, Mapping[str, float]] = field(default_factory=dict)


PLAIN_STYLE = Style()
VARIED_STYLE = Style(Wordings.VARIED)


def asked(
    record: ImageRecord, kind: Kind, names: Sequence[str], rng: np.random.Generator, style: Style
) -> Worded:
    """Return a question about an image in a style."""
    scan = record.info.modality not in _PHOTOGRAPHS
    return question(kind, names, rng, style.wordings, style.part, scan)


def draw_foreign(record: ImageRecord, rng: np.random.Generator, style: Style) -> str | None:
    """Draw a name of another modality that the image certainly does not show, if any; modalities are equally likely."""
    names = foreign_names(record, style.vocabulary)
    return draw_of_sequence(rng, names[draw_of_sequence(rng, list(names))]) if names else None


def draw_of_sequence(rng: np.random.Generator, options: Sequence[_T]) -> _T:
    """Draw one of some options, all equally likely."""
    return options[int(rng.integers(len(options)))]
