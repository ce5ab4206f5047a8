"""Questions the way people write them: `question` gives a plain template, or one of many forms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import cache

import numpy as np

from .forms import Form, Kind, is_held_out, plain_forms, varied_forms
from .names import Part, invented_words, plural_of, synonyms_of, unknown_words, with_article
from .surface import Surface, Worded, restyled, vary

__all__ = [
    "Form",
    "Kind",
    "Part",
    "Surface",
    "Worded",
    "Wordings",
    "fill",
    "invented_words",
    "is_held_out",
    "plain_forms",
    "plural_of",
    "question",
    "restyled",
    "synonyms_of",
    "unknown_words",
    "varied_forms",
    "with_article",
]

# Of varied questions: the share of unchanged templates, and of templates in another letter case and punctuation.
_PLAIN_SHARE, _PLAIN_FORM_SHARE = 0.25, 0.1
_SYNONYM_SHARE = 0.15  # of names with synonyms
_NO_ARTICLE_SHARE = 0.1
_PLACEHOLDER = re.compile(r"(\{\w+\})")


class Wordings(StrEnum):
    """Which questions are written: the templates, or many forms with varied case and punctuation."""

    PLAIN = "plain"
    VARIED = "varied"


def question(
    kind: Kind,
    names: Sequence[str],
    rng: np.random.Generator,
    wordings: Wordings = Wordings.VARIED,
    part: Part = "train",
    scan: bool = True,
) -> Worded:
    """Draw a question about names: none, one, or the two of a pair.

    part: the forms that varied questions are drawn from; held-out forms are not changed in case and punctuation, and
    have no synonyms. scan: whether the image may be called a scan.
    """
    if wordings == Wordings.PLAIN:
        return fill(_any_of(plain_forms(kind), rng), names)
    drawn = rng.random()
    if part != "held_out" and drawn < _PLAIN_SHARE:
        return fill(_any_of(plain_forms(kind), rng), names)
    if part != "held_out" and drawn < _PLAIN_SHARE + _PLAIN_FORM_SHARE:
        form = _any_of(plain_forms(kind), rng)
    else:
        forms, sums = _drawn_from(kind, part, scan, all(map(plural_of, names)))
        form = forms[int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))]
    if part == "held_out":
        return fill(form, names)
    written = [_written(name, rng) for name in names]
    if form.needs_plural and not all(map(plural_of, written)):
        written = list(names)
    return vary(fill(form, written, article=rng.random() >= _NO_ARTICLE_SHARE), rng)


def fill(form: Form, names: Sequence[str], article: bool = True) -> Worded:
    """A form as a question about names. article: whether "the" stands before a name.

    Raises ValueError if the form needs a plural that a name does not have.
    """
    text, marks = "", []
    for piece in _PLACEHOLDER.split(form.template):
        if not _PLACEHOLDER.fullmatch(piece):
            text += piece
            continue
        before, words = _words_of(piece[1:-1], form, names, article)
        text += before
        marks.append((len(text), len(text) + len(words)))
        text += words
    return Worded(text, form.id, tuple(marks))


def _words_of(placeholder: str, form: Form, names: Sequence[str], article: bool) -> tuple[str, str]:
    """The article of a placeholder, and its words."""
    the = "the " if article else ""
    if placeholder == "this":
        return "", form.pointing
    name = names[1] if placeholder.startswith("other") else names[0]
    if placeholder in ("the", "other"):
        return the, name
    if placeholder == "a":
        return with_article(name).removesuffix(name), name
    if "names" not in placeholder:
        return "", name
    plural = plural_of(name)
    if plural is None:
        raise ValueError(f"{form.id} needs a plural, and {name!r} has none; draw a form without one")
    return the if placeholder == "the_names" else "", plural


@cache
def _drawn_from(kind: Kind, part: Part, scan: bool, plural: bool) -> tuple[tuple[Form, ...], np.ndarray]:
    """The varied forms that fit, and the running sums of their weights."""
    forms = tuple(
        form
        for form in varied_forms(kind, part)
        if (scan or not form.says_scan) and (plural or not form.needs_plural)
    )
    return forms, np.cumsum([form.weight for form in forms])


def _written(name: str, rng: np.random.Generator) -> str:
    others = synonyms_of(name)
    return others[int(rng.integers(len(others)))] if others and rng.random() < _SYNONYM_SHARE else name


def _any_of(forms: Sequence[Form], rng: np.random.Generator) -> Form:
    return forms[int(rng.integers(len(forms)))]
