"""Two prediction files on the same questions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bird_hf.eval.compare import compare_predictions
from bird_hf.eval.predictions import Prediction
from bird_hf.eval.score_tables import table_of_comparison

BOXED = "<ref>liver</ref><box>(100,100),(400,300)</box>"


def answers(*right, cases=None, modality="ct"):
    return [
        Prediction(number, f"{modality}_{number}.png", "Where is the liver?", BOXED, BOXED if each else "", "vg",
                   case_id=cases and cases[number])
        for number, each in enumerate(right)
    ]  # fmt: skip


@pytest.mark.parametrize("rules", ["paper", "strict"])
def test_a_file_against_itself_differs_by_nothing(rules):
    file = answers(1, 0, 1, 1, 0, 1)
    found = compare_predictions(file, file, "vg", rules)["difference"]["score"]
    assert found["mean"] == {"difference": 0.0, "interval": [0.0, 0.0]}
    assert found["modalities"] == {"ct": {"difference": 0.0, "interval": [0.0, 0.0]}}


def test_the_difference_is_the_second_minus_the_first():
    first, second = answers(1, 0, 0, 0), answers(1, 1, 1, 0)
    found = compare_predictions(first, second, "vg")["difference"]["score"]["mean"]
    assert found["difference"] == pytest.approx(0.5)
    assert compare_predictions(second, first, "vg")["difference"]["score"]["mean"]["difference"] == -0.5


def test_what_is_hard_for_both_does_not_widen_the_interval():
    """Both fail on the same half; the second is right on one more of 40."""
    first = answers(*[1, 0] * 20)
    second = answers(*[1, 0] * 19, 1, 1)
    compared = compare_predictions(first, second, "vg")
    low, high = compared["difference"]["score"]["mean"]["interval"]
    alone = compared["first"]["interval"]["mean"]
    assert low >= 0 and high - low < (alone[1] - alone[0]) / 2


def test_if_one_file_has_no_cases_both_are_drawn_by_image():
    known = answers(1, 0, 1, cases=["a", "a", "b"])
    compared = compare_predictions(known, answers(1, 0, 1), "vg")
    assert compared["first"]["cases"]["unit"] == compared["second"]["cases"]["unit"] == "image"
    assert compared["difference"]["score"]["mean"]["interval"] == [0.0, 0.0]


def test_its_table_has_n_cases_and_interval():
    text = table_of_comparison(
        compare_predictions(answers(1, 0), answers(1, 1), "vg"), ["a.jsonl", "b.jsonl"]
    )
    assert "| mean of 1 | 0.5000 | 1.0000 | +0.5000 |" in text
    assert "n: 2 answers each" in text and "unreadable answers: 0.5000, 0.0000" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file[:-1], "answer 3 and 2 questions"),
        (lambda file: [*file[:2], replace(file[2], question="Where?")], "differ at id 2: question"),
        (lambda file: [*file[:2], replace(file[2], image="ct_9.png")], "differ at id 2: image"),
        (lambda file: [*file[:2], replace(file[2], annotation="x")], "differ at id 2: annotation"),
    ],
)
def test_other_questions_are_refused_in_one_line(change, message):
    file = answers(1, 0, 1)
    with pytest.raises(ValueError, match=message) as caught:
        compare_predictions(file, change(file), "vg")
    assert "\n" not in str(caught.value)
