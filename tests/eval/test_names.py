"""Names as the strict rules compare them."""

from __future__ import annotations

import pytest

from bird_hf.eval.names import answer_holds, names_nothing, same_name, twin_of


@pytest.mark.parametrize(
    ("asked", "phrase", "same"),
    [
        ("liver", "liver", True),
        ("liver", "Liver", True),
        ("liver", "the liver", True),
        ("liver", "this liver region", True),
        ("polyp", "polyps", True),  # plural
        ("polyp", "two polyps", True),
        ("tumor", "tumour", True),  # British spelling
        ("left clavicle", "left collarbone", True),  # synonym of a word
        ("caudate", "caudate nucleus", True),
        ("head of the pancreas", "pancreas head", True),  # order
        ("liver", "spleen", False),
        ("liver", "liver tumor", False),  # whole words, all of them
        ("left kidney", "kidney", False),
        ("kidney", "left kidney", False),
        ("left kidney", "right kidney", False),  # side
        ("left kidney", "left and right kidney", False),
        ("rib", "tribal", False),
        ("liver", "", False),
        ("liver", "it", False),
    ],
)
def test_a_phrase_names_what_was_asked(asked, phrase, same):
    assert same_name(asked, phrase) is same


@pytest.mark.parametrize(
    ("phrase", "nothing"), [("", True), ("it", True), ("this region", True), ("The", True), ("liver", False)]
)
def test_a_phrase_can_name_nothing(phrase, nothing):
    assert names_nothing(phrase) is nothing


@pytest.mark.parametrize(
    ("name", "answer", "held"),
    [
        ("liver", "This is the liver.", True),
        ("Liver", "LIVER", True),
        ("rib", "a tribal mask", False),
        ("left clavicle", "the left collarbone", True),
        ("left kidney", "The kidney, on the left.", True),
        ("left kidney", "The right kidney.", False),
        ("left kidney", "The kidney.", False),
        ("left kidney", "The right kidney, left of the liver.", False),  # the word is there, the side is not
        ("left kidney", "The left kidney, right below the spleen.", True),
        ("left kidney", "The left kidney or the right kidney.", False),  # both are no answer
        ("left ventricle", "right ventricle, beside the left atrium", False),  # no pair, but not the same
        ("liver", "left lobe of the liver", True),
        ("liver", "", False),
    ],
)
def test_an_answer_holds_a_name_on_the_right_side(name, answer, held):
    assert answer_holds(name, answer) is held


@pytest.mark.parametrize(
    ("name", "twin"),
    [("left kidney", "right kidney"), ("liver", None), ("left ventricle", None), ("Right Lung", "Left Lung")],
)
def test_the_twin_of_a_name(name, twin):
    assert twin_of(name) == twin
