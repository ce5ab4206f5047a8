"""Whoever asks is told if the answer names something else, or if the model does not know the name."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest

from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import Modality, Task
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.data.teachers.wordings import Kind, fill, plain_forms, unknown_words, varied_forms
from bird_hf.hub.grounding import GroundedText, Span, read
from bird_hf.remarks import NameRemarks

NAMES = (
    "left lung",
    "right lung",
    "cerebellum",
    "brain tumor",
    "optic disc",
    "liver metastasis",
    "nucleus accumbens",
    "heart",
)
RIGHT = "<ref>right lung</ref><box>(1,2),(3,4)</box>"
KINDS = [kind for kind in Kind if kind not in (Kind.CLASSIFY, Kind.DESCRIBE)]  # those two have a box
OF_8 = "is not among the 8 names this model was trained on"


def remarks(question, answer="", names=NAMES):
    return NameRemarks(names).remarks(read(question), read(answer))


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("Where is the left lung?", "There is no cerebellum in this image.", "'cerebellum', not 'left lung'"),
        ("where is the LEFT  LUNG", f"Here is the {RIGHT}.", "'right lung', not 'left lung'"),
        ("Is there a brain tumour?", "No, there is no heart in this image.", "'heart', not 'brain tumor'"),
        (
            "Where are the heart and the cerebellum?",
            "A left lung.",
            "'left lung', not 'heart' and 'cerebellum'",
        ),
    ],
)
def test_an_answer_about_another_thing_has_a_remark(question, answer, expected):
    assert remarks(question, answer) == (f"the answer is about {expected}",)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Where is the left lung?", "There is no left lung in this image."),
        ("Left Lungs?", "Here is the <ref>left lung</ref><box>(1,2),(3,4)</box>."),
        ("brain-tumours please", "Here is the brain tumor."),
        ("mark the optic disks", "Here is the optic disc."),
        ("liver metastases?", "There is no liver metastasis in this image."),
        ("the nuclei accumbens", "Here is the nucleus accumbens."),
        ("Where is the heart?", "It is left of the cerebellum; the heart is here."),
        ("Where is the heart?", "On the patient's left."),
        ("What is next to the heart?", "The left lung."),  # the answer rightly names something else
        ("What is <ref>this</ref><box>(1,2),(3,4)</box>?", "This is the heart."),
        ("Is <ref>this</ref><box>(1,2),(3,4)</box> the heart?", "No, it is the cerebellum."),
        ("Which imaging modality is this?", "This is a CT image."),
        ("What does this image show?", "It shows a CT image of the chest in the axial plane."),
        ("", ""),
        ("?!", "..."),
    ],
)
def test_a_fitting_answer_has_none(question, answer):
    assert remarks(question, answer) == ()


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("Where is the unicorn?", "unicorn"),
        ("gallstones", "gallstones"),
        ("Could you draw a box around the head of the pancreas for me, please?", "head of the pancreas"),
        ("Is there a Colles' fracture in this image?", "Colles fracture"),
        ("where's the patient's right kidney", "right kidney"),
        ("Can you localise the prostate on this scan?", "prostate"),
        ("How many objects are labelled polyp?", "polyp"),
    ],
)
def test_an_unknown_name_has_a_remark(question, name):
    assert remarks(question) == (f"'{name}' {OF_8}",)


def test_each_unknown_name_of_a_list_has_a_remark():
    assert remarks("Where are the unicorn and the dragon?") == (f"'unicorn' {OF_8}", f"'dragon' {OF_8}")


def test_an_unknown_name_with_an_answer_about_something_has_two():
    assert remarks("Where is the unicorn?", "Here is the <ref>cerebellum</ref><box>(1,2),(3,4)</box>.") == (
        "the answer is about 'cerebellum', not 'unicorn'",
        f"'unicorn' {OF_8}",
    )


def test_part_of_known_names_leads_to_them():
    assert remarks("Where is the lung?") == (f"'lung' {OF_8}; 'left lung' and 'right lung' are",)
    assert remarks("tumour?") == (f"'tumour' {OF_8}; 'brain tumor' is",)


@pytest.mark.parametrize(
    "question",
    [
        "Where is the optic nerve sheath meningioma recurrence?",  # five words
        "If the unicorn were treated, would it shrink?",  # not one name
        "What is this?",
        "Describe this image.",
    ],
)
def test_what_is_not_a_name_has_no_remark(question):
    assert remarks(question) == ()


def test_without_known_names_no_name_is_called_unknown():
    assert remarks("Where is the unicorn?", names=()) == ()
    answer = "Here is the <ref>liver</ref><box>(1,2),(3,4)</box>."
    assert remarks("Where is the unicorn?", answer, names=()) == (
        "the answer is about 'liver', not 'unicorn'",
    )
    assert remarks("Where is the liver?", answer, names=()) == ()


@pytest.mark.parametrize("modality", Modality)
def test_right_answers_to_the_plain_wordings_have_no_remark(modality):
    wanted = dict.fromkeys(Task, 4)
    record = record_of(draw_phantom(modality, 3, 64))
    dialogue = write_dialogue(record, np.random.default_rng(0), wanted, absent=2, pairs=2)
    names = NameRemarks(sorted({item.label for item in record.instances}))
    assert len(dialogue.turns) > 4
    for turn in dialogue.turns:
        question, answer = (
            GroundedText(turn.question, turn.question_spans),
            GroundedText(turn.answer, turn.answer_spans),
        )
        assert names.remarks(question, answer) == (), (turn.question, turn.answer)


def questions(kind, names):
    """Every form of a kind, plain and varied, with and without articles, as a question without a box."""
    for form in (*plain_forms(kind), *varied_forms(kind, "all")):
        if not form.pointing:
            for article in (True, False):
                with contextlib.suppress(ValueError):  # the form needs a plural, and a name has none
                    yield fill(form, names, article).text


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_questions_of_every_form_about_known_names_have_no_remark(kind):
    found = [(text, remarks(text)) for text in questions(kind, ("left lung", "optic disc"))]
    assert [each for each in found if each[1]] == []
    assert len(found) > 200


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["gallstone", "hip implant", "left adrenal gland"])
def test_questions_of_every_form_about_an_unknown_name_have_its_remark(kind, name):
    for text in questions(kind, (name, "unicorn")):
        expected = [f"'{each}' {OF_8}" for each in (name, "unicorn") if each in text]
        assert sorted(remark for remark in remarks(text)) == sorted(expected), text


def test_synonyms_are_known_names():
    names = NameRemarks(["pallidum", "left clavicle", "optic disc"])
    for question in ("Where is the globus pallidus?", "left collarbone?", "optic nerve head", "optic discs"):
        assert names.remarks(read(question), read("")) == ()
    answer = read("Here is the optic disc.")
    assert names.remarks(read("Where is the optic nerve head?"), answer) == ()
    assert names.remarks(read("Where is the globus pallidus?"), answer) == (
        "the answer is about 'optic disc', not 'pallidum'",
    )


@pytest.mark.parametrize("word", unknown_words("all"))
def test_unknown_words_are_called_unknown(word):
    assert any(word in remark for remark in remarks(f"Where is the {word}?"))


@pytest.mark.parametrize(
    "text",
    [
        "left " * 50_000,
        "x" * 500_000,
        "ab " * 50_000,
        "'" * 100_000,
        "x" + " of the" * 50_000 + " x",
        "\u0301 \ud800",
    ],
)
def test_any_text_takes_linear_time(text):
    started = time.process_time()
    found = NameRemarks(NAMES).remarks(GroundedText(text), GroundedText(text, (Span(text, 0, len(text)),)))
    assert time.process_time() - started < 5
    assert all(len(remark) < 400 for remark in found)


def test_odd_names_are_no_trouble():
    assert remarks("Where is it?", "x", names=["", "?", " "]) == ()
