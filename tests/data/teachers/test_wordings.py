"""Questions in many forms: readable for every label, exact marks, and a fixed tenth that training never sees."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bird_hf.data.embedded.cases import embedded_names
from bird_hf.data.teachers.wordings import (
    Kind,
    Surface,
    Worded,
    Wordings,
    fill,
    is_held_out,
    plain_forms,
    plural_of,
    question,
    restyled,
    synonyms_of,
    unknown_words,
    varied_forms,
    with_article,
)

LABELS = sorted({name for names in embedded_names().values() for name in names})
NAMES = {Kind.GROUND: 1, Kind.GROUND_PAIR: 2, Kind.PRESENCE: 1, Kind.COUNT: 1, Kind.SIDE: 1}
LEAST_FORMS = {Kind.GROUND: 60}
SLIPS = re.compile(
    r"  |^ | $|\b(?:the the|a a|an an|a the|the a|the this|please please|please can)\b"
    r"|\ba [aeiou]|\ban [^aeiou\W]|[{}]|[?.!]{2}|,[?.]|\bin this image in\b|\bhere here\b",
    re.IGNORECASE,
)


def names_of(kind: Kind, label: str, other: str = "liver") -> tuple[str, ...]:
    return (label, other)[: NAMES.get(kind, 0)]


class TestForms:
    @pytest.mark.parametrize("kind", Kind)
    def test_each_kind_has_many(self, kind):
        forms = varied_forms(kind)
        assert len({form.base for form in forms}) >= LEAST_FORMS.get(kind, 20)
        assert len({form.id for form in (*forms, *plain_forms(kind))}) == len(forms) + len(plain_forms(kind))
        assert sum(form.weight for form in forms) == pytest.approx(1, abs=0.05)

    @pytest.mark.parametrize("kind", [kind for kind in Kind if kind in NAMES])
    def test_each_can_be_read_with_every_label(self, kind):
        forms = [*plain_forms(kind), *varied_forms(kind)]
        for number, form in enumerate(forms):
            # Every label for every twentieth form, and every form for every twentieth label.
            for label in LABELS if number % 20 == 0 else LABELS[number % 20 :: 20]:
                if form.needs_plural and not plural_of(label):
                    continue
                asked = fill(form, names_of(kind, label))
                assert not SLIPS.search(asked.text), (form.id, asked.text)
                start, end = asked.marks[0]
                assert asked.text[start:end] in (label, plural_of(label))

    @pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in NAMES])
    def test_each_without_a_name_can_be_read(self, kind):
        for form in (*plain_forms(kind), *varied_forms(kind)):
            asked = fill(form, ())
            assert not SLIPS.search(asked.text), (form.id, asked.text)
            if kind in (Kind.CLASSIFY, Kind.DESCRIBE):
                ((start, end),) = asked.marks
                assert asked.text[start:end] == form.pointing

    def test_kinds_share_no_question(self):
        owner: dict[str, Kind] = {}
        for kind in Kind:
            for form in (*plain_forms(kind), *varied_forms(kind)):
                text = fill(form, names_of(kind, "polyp", "ulcer")).text.lower().strip("?. ")
                assert owner.setdefault(text, kind) is kind, (text, form.id)

    def test_photographs_are_not_called_scans(self):
        rng = np.random.default_rng(0)
        asked = [question(Kind.GROUND, ("polyp",), rng, scan=False).text.lower() for _ in range(600)]
        assert not any("scan" in text for text in asked)

    def test_form_without_a_plural_is_refused(self):
        form = next(form for form in varied_forms(Kind.GROUND) if form.needs_plural)
        with pytest.raises(ValueError, match="needs a plural, and 'left lung' has none"):
            fill(form, ("left lung",))


class TestHeldOut:
    @pytest.mark.parametrize("kind", Kind)
    def test_is_a_tenth_of_the_forms_of_each_kind(self, kind):
        forms, held = varied_forms(kind), varied_forms(kind, "held_out")
        assert 0.08 <= len(held) / len(forms) <= 0.12
        assert {form.id for form in held} == {form.id for form in forms if is_held_out(form.id)}
        assert len(held) + len(varied_forms(kind, "train")) == len(forms)

    def test_plain_forms_are_trained_on_however_they_are_asked(self):
        assert not any(is_held_out(form.id) for kind in Kind for form in plain_forms(kind))
        assert not is_held_out("vg/imperative/locate-the/please-first/on-this-scan")

    def test_a_base_is_held_out_with_all_politeness_and_places(self):
        for kind in Kind:
            held = {form.base for form in varied_forms(kind, "held_out")}
            assert held.isdisjoint(form.base for form in varied_forms(kind, "train"))

    @pytest.mark.parametrize("kind", Kind)
    def test_is_never_in_a_training_question(self, kind):
        names = names_of(kind, "polyp", "ulcer")
        held = {fill(form, names).text.lower().strip("?. ") for form in varied_forms(kind, "held_out")}
        rng = np.random.default_rng(1)
        for _ in range(1500):
            asked = question(kind, names, rng)
            assert not is_held_out(asked.form_id)
            assert " ".join(asked.text.lower().strip("?.! ").split()) not in held

    def test_some_known_forms_stay_on_their_side(self):
        """New forms must not move the old ones: a changed salt or id would."""
        assert is_held_out("vg/imperative/look-for-the/please-first")
        assert is_held_out("vg/telegram/where-name")
        assert is_held_out("roc/question/what-would-you-call-this/this")
        assert not is_held_out("vg/imperative/draw-a-box-around-the")
        assert not is_held_out("vg/imperative/mark-the")

    def test_held_out_questions_are_not_restyled(self):
        rng = np.random.default_rng(0)
        texts = {fill(form, ("polyp",)).text for form in varied_forms(Kind.GROUND, "held_out")}
        for _ in range(100):
            assert question(Kind.GROUND, ("polyp",), rng, part="held_out").text in texts


class TestQuestion:
    def test_plain_draws_one_template_with_one_draw(self):
        rng, alone = np.random.default_rng(5), np.random.default_rng(5)
        asked = question(Kind.GROUND, ("spleen",), rng, Wordings.PLAIN)
        form = plain_forms(Kind.GROUND)[int(alone.integers(len(plain_forms(Kind.GROUND))))]
        assert asked == fill(form, ("spleen",))
        assert rng.random() == alone.random()

    def test_varied_questions_are_plain_at_least_a_quarter_of_the_time(self):
        rng = np.random.default_rng(0)
        plain = {fill(form, ("spleen",)).text for form in plain_forms(Kind.GROUND)}
        asked = [question(Kind.GROUND, ("spleen",), rng) for _ in range(1500)]
        assert 0.25 < sum(one.text in plain for one in asked) / len(asked) < 0.6
        assert len({one.form_id for one in asked}) > 300

    @pytest.mark.parametrize("kind", [Kind.CLASSIFY, Kind.DESCRIBE])
    def test_marks_are_the_pointing_words_whatever_their_case(self, kind):
        rng = np.random.default_rng(2)
        pointing = {form.pointing for form in (*plain_forms(kind), *varied_forms(kind))}
        for _ in range(600):
            asked = question(kind, (), rng)
            ((start, end),) = asked.marks
            assert asked.text[start:end].lower() in pointing

    def test_names_are_the_label_its_synonyms_or_their_plurals(self):
        rng = np.random.default_rng(3)
        written = set()
        for _ in range(1500):
            asked = question(Kind.GROUND, ("tumor",), rng)
            ((start, end),) = asked.marks
            written.add(asked.text[start:end].lower())
        assert written == {"tumor", "tumour", "tumors", "tumours"}

    def test_spacing_and_punctuation_vary(self):
        rng = np.random.default_rng(4)
        asked = [question(Kind.GROUND, ("left lung",), rng).text for _ in range(1500)]
        assert {text.strip()[-1] for text in asked} >= {"?", ".", "!", "g"}
        assert any("  " in text for text in asked)
        assert any(text.startswith(" ") for text in asked) and any(text.endswith(" ") for text in asked)
        assert any(text.isupper() for text in asked) and any(text.islower() for text in asked)
        assert any("Left Lung" in text for text in asked)


@pytest.mark.parametrize(
    ("surface", "text"),
    [
        (Surface.NONE, "Where is the Heschl gyrus?"),
        (Surface.LOWER, "where is the heschl gyrus?"),
        (Surface.FIRST_SMALL, "where is the Heschl gyrus?"),
        (Surface.TITLE_NAME, "Where is the Heschl Gyrus?"),
        (Surface.TITLE, "Where Is The Heschl Gyrus?"),
        (Surface.CAPITALS, "WHERE IS THE HESCHL GYRUS?"),
        (Surface.NO_PUNCTUATION, "Where is the Heschl gyrus"),
        (Surface.OTHER_PUNCTUATION, "Where is the Heschl gyrus."),
    ],
)
def test_surfaces(surface, text):
    asked = Worded("Where is the Heschl gyrus?", "f", ((13, 25),))
    assert restyled(asked, surface) == Worded(text, "f", ((13, 25),))


def test_letters_with_two_capitals_keep_the_marks():
    asked = Worded("Where is the große Gefäß?", "f", ((13, 24),))
    assert restyled(asked, Surface.CAPITALS) == asked


class TestNames:
    @pytest.mark.parametrize(
        ("label", "names"),
        [
            ("tumor", ("tumour",)),
            ("tumour", ("tumor",)),
            ("left clavicle", ("left collarbone",)),
            ("hemorrhage", ("haemorrhage",)),
            ("right Heschl gyrus", ("right Heschl's gyrus", "right transverse temporal gyrus")),
            ("optic disc", ("optic nerve head", "optic disk")),
            ("liver", ()),
        ],
    )
    def test_synonyms(self, label, names):
        assert synonyms_of(label) == names

    def test_no_synonym_is_a_label_or_a_synonym_of_another(self):
        owners: dict[str, str] = {}
        for label in LABELS:
            for name in (label, *synonyms_of(label)):
                assert owners.setdefault(name, label) == label

    @pytest.mark.parametrize(
        ("name", "plural"),
        [
            ("polyp", "polyps"),
            ("color patch", "color patches"),
            ("left lung", None),
            ("vertebra", "vertebrae"),
        ],
    )
    def test_plurals(self, name, plural):
        assert plural_of(name) == plural

    def test_labels_with_a_side_have_no_plural(self):
        assert not [label for label in LABELS if re.search(r"\b(left|right)\b", label) and plural_of(label)]

    def test_articles(self):
        assert [with_article(word) for word in ("ulcer", "liver")] == ["an ulcer", "a liver"]


class TestUnknownWords:
    def test_training_and_test_words_are_many_and_different(self):
        train, test = unknown_words("train"), unknown_words("held_out")
        assert len(train) >= 100 and len(test) >= 20
        assert not {*train} & {*test}
        assert unknown_words("all") == train + test
        assert len({*unknown_words("all")}) == len(unknown_words("all"))

    def test_none_is_a_name_of_the_data_or_a_synonym(self):
        known = {name.lower() for label in LABELS for name in (label, *synonyms_of(label))}
        assert not known & {word.lower() for word in unknown_words("all")}

    def test_they_can_be_asked_for(self):
        for form in plain_forms(Kind.PRESENCE):
            for word in unknown_words("all"):
                assert not SLIPS.search(fill(form, (word,)).text)
