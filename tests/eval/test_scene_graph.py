"""scene_graph_f1: propositions, synonyms, strict sides and negation, and its agreement with SPICE."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import pytest

from bird_hf.eval import propositions as propositions_module
from bird_hf.eval.propositions import load_parser, propositions
from bird_hf.eval.scene_graph import scene_graph_scores
from bird_hf.eval.wordnet import synsets_of

ROOT = Path(__file__).parents[2]


def read(text, strict=False):
    return {tuple(word.lemma for word in each) for each in next(propositions([text], strict))}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", set()),
        ("...", set()),
        ("A small liver.", {("liver",), ("liver", "small")}),
        ("The liver is large.", {("liver",), ("liver", "large")}),
        ("The optic cups are dark.", {("cup",), ("cup", "dark"), ("cup", "optic")}),
        ("A medium-sized polyp.", {("polyp",), ("polyp", "medium-sized")}),  # a hyphen keeps words together
        ("The image shows a liver.", {("image",), ("liver",), ("image", "show", "liver")}),
        ("The heart of the patient.", {("heart",), ("patient",), ("heart", "of", "patient")}),
        ("There are three nodules.", {("nodule",), ("nodule", "three")}),
        ("A polyp, toward 5 o'clock.", {("polyp",), ("polyp", "toward", "5")}),  # "o'clock" is no object
        ("A number of nodules.", {("nodule",)}),
        ("The arrow points to the liver.", {("arrow",), ("liver",), ("arrow", "point to", "liver")}),
    ],
)
def test_propositions_of_a_sentence(text, wanted):
    assert read(text) == wanted


@pytest.mark.parametrize(
    ("reference", "response", "score"),
    [
        ("A small liver.", "A small liver.", 1.0),
        ("A large liver.", "A big liver.", 1.0),  # synonyms
        ("A large lung.", "Large lungs.", 1.0),  # plural
        ("A large liver.", "A small liver.", 0.5),
        ("A liver.", "A spleen.", 0.0),
        ("A liver.", "", 0.0),
        ("", "A liver.", 0.0),
        ("", "", 0.0),
        ("A LARGE LIVER.", "a large liver", 1.0),
    ],
)
def test_scores_of_pairs(reference, response, score):
    assert scene_graph_scores([(reference, response)]) == [pytest.approx(score)]


@pytest.mark.parametrize(
    ("reference", "response", "is_lower"),
    [
        ("A small left kidney.", "A small right kidney.", True),
        ("There is a nodule.", "There is no nodule.", True),
        ("The lung is normal.", "The lung is not normal.", True),
        ("There is no nodule.", "There is no nodule.", False),
        ("A small left kidney.", "A small left kidney.", False),
    ],
)
def test_strict_scores_charge_the_wrong_side_and_what_is_denied(reference, response, is_lower):
    lenient, strict = (scene_graph_scores([(reference, response)], strict)[0] for strict in (False, True))
    assert strict < lenient if is_lower else strict == lenient == 1.0


def test_the_wrong_side_is_another_object():
    assert scene_graph_scores([("A small left kidney.", "A small right kidney.")], strict=True) == [0.0]


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ("large", "big", True),
        ("vertebrae", "vertebra", True),  # an irregular form
        ("nodules", "nodule", True),
        ("left", "right", False),
        ("liver", "spleen", False),
    ],
)
def test_synsets_are_shared_by_synonyms_and_forms(one, other, share):
    assert bool(synsets_of(one) & synsets_of(other)) == share


def test_unknown_and_hostile_words_have_no_synsets():
    assert synsets_of("qzxv") == synsets_of("") == frozenset()


def test_a_long_text_takes_seconds_at_most():
    start = time.process_time()
    assert scene_graph_scores([("A liver.", "liver " * 1_000_000)])[0] >= 0
    assert time.process_time() - start < 30


def test_without_a_model_it_says_what_to_install(monkeypatch):
    load_parser.cache_clear()
    monkeypatch.setattr(propositions_module, "MODELS", ("no_such_model",))
    with pytest.raises(ValueError, match=r"English model of spaCy \(no_such_model\); .*pip install"):
        scene_graph_scores([("a", "b")])
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ValueError, match="needs spaCy"):
        scene_graph_scores([("a", "b")])
    load_parser.cache_clear()


@pytest.mark.slow
def test_the_agreement_with_spice_is_that_of_the_card():
    spec = importlib.util.spec_from_file_location("rc_agreement", ROOT / "benchmarks" / "rc_agreement.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found = module.agreement()
    card = (ROOT / "metrics" / "scene_graph_f1" / "README.md").read_text("utf-8")
    assert f"Pearson's r by row {found.pearson:.3f}" in card
    for name, (theirs, ours) in found.means.items():
        assert f"| {name} | {theirs:.3f} | {ours:.3f} | {ours - theirs:+.3f} |" in card
