"""The forms of questions, built from parts: a base ("Draw a box around {the}"), politeness, a place ("on this scan").

A form has a stable id, `vg/imperative/draw-a-box-around-the/please-first/on-this-scan`. A tenth of the bases is never
trained on: which ones depends on a hash of the base's id alone, so new forms do not move others. The plain forms are
those of the templates, and are never held out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from . import bases
from .names import Part

# Salts of the hashes, chosen so that the share of held-out forms of each kind is near a tenth, in all styles.
_SALTS = {
    "vg": 12, "vg_pair": 25, "roc": 22, "rc": 232, "modality": 247, "view": 64, "presence": 50, "count": 4, "side": 7,
}  # fmt: skip
_HELD_OUT_OF = 10

# Shares of the styles among the questions, of politeness and of places; the rest is bare.
_STYLES = {"imperative": 0.35, "question": 0.35, "telegram": 0.3}
_POLITE_SHARE, _PLACE_SHARE = 0.4, 0.45
_PLACES = (" in this image", " in the image", " in this picture", " on this image", " on this scan", " here")
_THINGS = ("this image", "the image", "this picture", "the picture", "this scan")
_POINTING = ("this", "this structure", "this region", "this object", "this area", "the marked structure")
_AREAS = ("this region", "this area", "this box", "the box", "the marked region", "this part of the image")


class Kind(StrEnum):
    """What is asked."""

    GROUND = "vg"
    GROUND_PAIR = "vg_pair"
    CLASSIFY = "roc"
    DESCRIBE = "rc"
    MODALITY = "modality"
    VIEW = "view"
    PRESENCE = "presence"
    COUNT = "count"
    SIDE = "side"


@dataclass(frozen=True)
class Form:
    """A form of a question.

    template: the name is {the}, {a}, {name}, {names} (plural) or {the_names}, the second name of a pair is {other}, and
    {this} are the words that get the box. pointing: these words. weight: share among the varied forms of its kind.
    """

    id: str
    kind: Kind
    template: str
    pointing: str = ""
    weight: float = 0.0

    @property
    def base(self) -> str:
        """The id without politeness and place."""
        return "/".join(self.id.split("/")[:3])

    @property
    def needs_plural(self) -> bool:
        """Whether it can only be asked about names with a plural."""
        return "names}" in self.template

    @property
    def says_scan(self) -> bool:
        """Whether it calls the image a scan, which a photograph is not."""
        return "scan" in self.template


def is_held_out(form_id: str) -> bool:
    """Whether a form is never trained on: its base is held out in every style that has it."""
    kind, style, slug = form_id.split("/")[:3]
    if style == "plain" or f"{kind}/{style}/{slug}" in _trained_bases():
        return False
    return all(_is_chosen(f"{kind}/{each}/{slug}") for each in _styles_of(Kind(kind))[slug])


def _is_chosen(base: str) -> bool:
    """Whether the hash of a base makes it one of those that are held out."""
    salt = _SALTS[base.split("/")[0]]
    return int(hashlib.sha256(f"{salt}/{base}".encode()).hexdigest(), 16) % _HELD_OUT_OF == 0


@cache
def _styles_of(kind: Kind) -> dict[str, list[str]]:
    """The styles that have a base, by its slug."""
    styles: dict[str, list[str]] = {}
    for style in _STYLES:
        for base in bases.BASES[kind].get(style, ()):
            styles.setdefault(_slug(base), []).append(style)
    return styles


@cache
def plain_forms(kind: Kind) -> tuple[Form, ...]:
    """The forms of the templates, in their order."""
    return tuple(
        Form(f"{kind}/plain/{_slug(template.format(this=pointing, **_NAMED))}", kind, template, pointing)
        for pointing, template in bases.PLAIN[kind]
    )


@cache
def varied_forms(kind: Kind, part: Part = "all") -> tuple[Form, ...]:
    """All other forms, or those that are trained on, or those that are held out."""
    plain = {form.template.format(this=form.pointing, **_NAMED) for form in plain_forms(kind)}
    forms = {
        form.template.format(this=form.pointing, **_NAMED): form
        for style in _STYLES
        for base in bases.BASES[kind].get(style, ())
        for form in _forms_of(kind, style, base)
    }
    found = [form for text, form in forms.items() if text not in plain]
    return tuple(form for form in found if part == "all" or is_held_out(form.id) == (part == "held_out"))


_NAMED = {name: f"{{{name}}}" for name in ("the", "a", "name", "names", "the_names", "other", "other_name")}


@cache
def _trained_bases() -> frozenset[str]:
    """The bases of plain forms, which are trained on whatever their hash."""
    return frozenset(
        f"{kind}/{style}/{_slug(base.rstrip('.?'))}"
        for kind in Kind
        for _, template in bases.PLAIN[kind]
        for base in (template, *(template.replace(words, "{image}") for words in _THINGS))
        for style in _STYLES
    )


def _forms_of(kind: Kind, style: str, base: str) -> Iterator[Form]:
    share = _STYLES[style] / len(bases.BASES[kind][style])
    start = f"{kind}/{style}/{_slug(base)}"
    frames = list(_frames(base, style))
    for text, pointing, slug, weight in frames:
        yield Form(start + slug, kind, text, pointing, share * weight)


def _frames(base: str, style: str) -> Iterator[tuple[str, str, str, float]]:
    """Yields (template, pointing words, rest of the id, weight) of a base; the weights add up to 1."""
    for text, pointing, words, share in _with_words(base):
        places = (
            ("",)
            if base.endswith("!") or style == "telegram" or words or "image" in text
            else _PLACES_OR_NONE
        )
        for place in places:
            of_place = (
                1.0 if len(places) == 1 else (_PLACE_SHARE / len(_PLACES) if place else 1 - _PLACE_SHARE)
            )
            polite = list(_polite(text.rstrip("!") + place, style))
            for name, whole in polite:
                bare = 1 - _POLITE_SHARE if len(polite) > 1 else 1.0
                of_polite = _POLITE_SHARE / (len(polite) - 1) if name else bare
                slug = "".join(f"/{_slug(part)}" for part in (words, name, place) if part)
                yield whole, pointing, slug, share * of_place * of_polite


_PLACES_OR_NONE = ("", *_PLACES)


def _with_words(base: str) -> Iterator[tuple[str, str, str, float]]:
    """Yields (text, pointing words, words, share) of a base: one of each word for {this}, {area} or {image}."""
    if "{this}" in base or "{area}" in base:
        options = _AREAS if "{area}" in base else _POINTING
        for words in options:
            yield base.replace("{area}", "{this}"), words, words, 1 / len(options)
    elif "{image}" in base:
        for words in _THINGS:
            yield base.replace("{image}", words), "", words, 1 / len(_THINGS)
    else:
        yield base, "", "", 1.0


def _polite(text: str, style: str) -> Iterator[tuple[str, str]]:
    """Yields (politeness, text) with the final punctuation; the first is bare."""
    if style == "telegram":
        yield "", text
        return
    if style == "question":
        yield "", f"{text}?"
        yield "please-last", f"{text}, please?"
        return
    small = text[0].lower() + text[1:]
    yield "", f"{text}."
    yield "please-first", f"Please {small}."
    yield "please-last", f"{text}, please."
    if " me " not in f"{text} ":
        yield "for-me", f"{text} for me."
    yield "can-you", f"Can you {small}?"
    yield "could-you", f"Could you {small}?"
    yield "could-you-please", f"Could you please {small}?"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("'", "")).strip("-")
