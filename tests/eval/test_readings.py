"""What an answer says: absent or unknown, yes or no, a number, a name."""

from __future__ import annotations

import pytest

from bird_hf.data.phantoms import PHANTOM_LABELS
from bird_hf.eval.readings import holds_name, is_about_another, number_in, says_absent, yes_or_no


@pytest.mark.parametrize(
    ("answer", "absent"),
    [
        ("There is no liver in this image.", True),
        ("I do not know the name gallstone.", True),
        ("I don't know the name gallstone.", True),
        ("I don’t see it.", True),
        ("No, there is no liver in this image.", True),
        ("The liver is not visible.", True),
        ("The liver is absent.", True),
        ("There are none.", True),
        ("NO LIVER", True),
        ("Unknown.", True),
        ("Here is the liver.", False),
        ("Each nodule is marked.", False),
        ("Yes, the liver is visible.", False),
        ("Not only the liver is marked.", False),
        ("A medium-sized nodule, toward 3 o'clock.", False),
        ("", False),
    ],
)
def test_an_answer_says_absent_or_not(answer, absent):
    assert says_absent(answer) is absent


def test_no_label_is_read_as_absent():
    labels = {label for labels in PHANTOM_LABELS.values() for label in labels}
    assert len(labels) > 30
    assert [label for label in labels if says_absent(f"Here is the {label}.")] == []


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        ("Yes, the liver is visible.", True),
        ("yes", True),
        ("Yes, there is no doubt.", True),
        ("No, there is no liver in this image.", False),
        ("no.", False),
        ("There is no liver.", False),
        ("I do not know the name gallstone.", False),
        ("Yesterday's liver.", None),
        ("Nodules are seen.", None),
        ("Here is the liver.", None),
        ("", None),
    ],
)
def test_an_answer_says_yes_no_or_neither(answer, yes):
    assert yes_or_no(answer) is yes


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("There are none.", 0),
        ("There is no polyp.", 0),
        ("There is one.", 1),
        ("There are Three polyps.", 3),
        ("12", 12),
        ("There are ten.", 10),
        ("Many.", None),
        ("It is done.", None),
        ("", None),
    ],
)
def test_the_number_of_an_answer(answer, number):
    assert number_in(answer) == number


@pytest.mark.parametrize(
    ("answer", "name", "held"),
    [
        ("There is no left lung in this image.", "left lung", True),
        ("There is no Left Lung.", "left lung", True),
        ("There is no left collarbone.", "left clavicle", True),
        ("There is no cerebellum in this image.", "unicorn", False),
        ("Here are the ribs.", "rib", False),
        ("", "rib", False),
    ],
)
def test_an_answer_holds_a_name(answer, name, held):
    assert holds_name(answer, name) is held


@pytest.mark.parametrize(
    ("answer", "another"),
    [
        ("There is no unicorn in this image.", False),
        ("I do not know the name Unicorn.", False),
        ("I do not know this name.", False),
        ("No.", False),
        ("It is absent.", False),
        ("", False),
        ("There is no cerebellum in this image.", True),
        ("I do not know the name unicycle.", True),
        ("Here is the left lung.", True),
    ],
)
def test_an_answer_is_about_another_thing_or_not(answer, another):
    assert is_about_another(answer, "unicorn") is another
