"""Scores of prediction files: the paper's on the golden files, and the strict ones by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bird_hf.data.records import Task
from bird_hf.eval.predictions import Prediction, read_predictions
from bird_hf.eval.recall import Recall
from bird_hf.eval.score import recall_rule, score_predictions

GOLDEN = Path(__file__).parents[1] / "golden" / "scores"
OFFICIAL = json.loads((GOLDEN / "official.json").read_text())
BOXED = "<ref>liver</ref><box>(100,100),(400,300)</box>"
GOOD = Prediction(0, "ct_00--a--b--z_0001.png", "Where is the liver?", BOXED, BOXED)


def name_of(prefix):
    return "x_ray" if prefix == "x" else prefix


@pytest.mark.parametrize("task", ["vg", "roc"])
def test_recalls_equal_the_originals(task):
    scored = score_predictions(read_predictions(GOLDEN / f"{task}.jsonl", task), task)
    official = {
        name_of(prefix): {"score": hits / total, "hits": hits, "total": total}
        for prefix, (hits, total) in OFFICIAL[task]["modality"].items()
        if total
    }
    assert scored["modalities"] == official
    assert scored["n_modalities"] == len(official)
    mean_of_those = sum(row["score"] for row in official.values()) / len(official)
    assert scored["mean"] == pytest.approx(mean_of_those)


@pytest.mark.slow
def test_text_scores_equal_the_originals():
    scored = score_predictions(read_predictions(GOLDEN / "mia.jsonl", "mia"), Task.IMAGE_ANALYSIS)
    for prefix, official in OFFICIAL["mia"]["modality"].items():
        row = scored["modalities"][name_of(prefix)]
        assert row["bleu_4"] == pytest.approx(official["Bleu_4"], abs=1e-6)
        assert row["meteor"] == pytest.approx(official["METEOR"], abs=1e-6)
        assert row["rouge_l"] == pytest.approx(official["ROUGE_L"], abs=1e-6)
        assert row["mbmr"] == pytest.approx((row["bleu_4"] + row["meteor"] + row["rouge_l"]) / 3)


@pytest.mark.parametrize(
    ("response", "paper", "strict"),
    [
        (BOXED, (1, 1), (1, 1)),
        (BOXED + "<box>(500,500),(900,900)</box>", (1, 1), (1, 2)),  # a false box is charged
        (
            BOXED.replace("(400,300)", "(9000,300)"),
            (0, 1),
            (0, 1),
        ),  # out of range is no box under strict rules
        ("There is no liver in this image.", (0, 1), (0, 1)),
    ],
)
def test_strict_rules_charge_what_the_papers_do_not(response, paper, strict):
    for rules, (hits, total) in (("paper", paper), ("strict", strict)):
        row = score_predictions([replace(GOOD, response=response)], Task.VISUAL_GROUNDING, rules)
        assert (row["modalities"]["ct"]["hits"], row["modalities"]["ct"]["total"]) == (hits, total)


def test_strict_rules_ask_for_absent_objects_too():
    absent = replace(GOOD, id=1, annotation="There is no liver in this image.")
    right = replace(absent, response="There is no liver in this image.")
    for answer, hits in ((absent, 1), (right, 2)):
        row = score_predictions([GOOD, answer], Task.VISUAL_GROUNDING, "strict")["modalities"]["ct"]
        assert (row["hits"], row["total"]) == (hits, 2)


class TestBadFiles:
    @pytest.mark.parametrize(
        ("file", "task", "message"),
        [
            ("roc", "vg", "no reference holds a box"),
            ("mia", "vg", "no reference holds a box"),
            ("vg", "roc", "a reference holds a box"),
            ("vg", "mia", "a reference holds a box"),
            ("roc", "mia", "every question points at a box"),
        ],
    )
    def test_an_original_file_of_another_task_is_not_scored_as_zero(self, file, task, message):
        """These files do not name their task."""
        with pytest.raises(ValueError, match=message):
            score_predictions(read_predictions(GOLDEN / f"{file}.jsonl", task), task)

    @pytest.mark.parametrize(("task", "rules"), [("chat", "paper"), ("vg", "lenient")])
    def test_what_cannot_be_scored_is_said(self, task, rules):
        with pytest.raises(ValueError, match=r"cannot be scored|are unknown"):
            score_predictions([GOOD], task, rules)


@pytest.mark.parametrize("rules", ["paper", "strict"])
def test_a_question_for_a_missing_object_counts_a_box_by_any_rules(rules):
    for kind in ("absent", "foreign"):
        assert recall_rule(kind, rules)("", BOXED) == Recall(1, 1)
        assert recall_rule(kind, rules)("", "There is no liver in this image.") == Recall(0, 1)
    with pytest.raises(ValueError, match="rules 'lenient' are unknown"):
        recall_rule("absent", "lenient")


class TestUnreadable:
    @pytest.mark.parametrize("task", ["vg", "roc"])
    @pytest.mark.parametrize("response", ["", "I cannot help with that.", "[[100, 100, 400, 300]]"])
    def test_633_unreadable_answers_score_nothing_under_strict_rules(self, task, response):
        """A fifth asks for something that is not there, which silence used to be right about."""
        annotations = {"vg": [BOXED] * 4 + ["There is no liver in this image."], "roc": ["liver"]}[task]
        silent = [
            replace(
                GOOD,
                id=number,
                annotation=annotations[number % len(annotations)],
                response=response,
                task=task,
            )
            for number in range(633)
        ]
        scored = score_predictions(silent, task, "strict")
        assert (scored["mean"], scored["unreadable_rate"]) == (0.0, 1.0)
        assert scored["outcomes"] == {"answered": 0, "said_absent": 0, "unreadable": 633}

    @pytest.mark.slow
    def test_an_unreadable_text_has_no_words_under_strict_rules(self):
        foreign = '{"bbox": [1, 2, 3, 4]} The liver is large and healthy.'
        rows = [
            replace(GOOD, id=number, annotation="The liver is large and healthy.", task="mia")
            for number in (0, 1)
        ]
        rows = [replace(each, response=foreign) for each in rows]
        assert score_predictions(rows, "mia", "strict")["mean"]["rouge_l"] == 0.0
        assert score_predictions(rows, "mia", "paper")["mean"]["rouge_l"] > 0.5


@pytest.mark.parametrize(
    ("response", "hits"),
    [
        ("The left collarbone.", 1),  # a synonym of the table
        ("left clavicle", 1),
        ("The right clavicle.", 0),
        ("The right clavicle, left of the sternum.", 0),
        ("There is no left clavicle.", 0),  # says that it is absent, and was asked about a box
    ],
)
def test_strict_rules_read_names_with_their_side(response, hits):
    answer = replace(GOOD, annotation="left clavicle", response=response, task="roc")
    assert score_predictions([answer], "roc", "strict")["modalities"]["ct"]["hits"] == hits


def test_intervals_and_cases_stand_beside_every_score():
    rows = [
        replace(GOOD, id=number, image=f"{name}_{number}.png", case_id=f"{name}{number // 2}",
                response=BOXED if number % 3 else "")
        for number, name in enumerate(["ct"] * 8 + ["mr"] * 6)
    ]  # fmt: skip
    scored = score_predictions(rows, "vg")
    assert scored["cases"] == {
        "unit": "case", "total": 7, "modalities": {"ct": 4, "mr": 3}, "answers": {"ct": 8, "mr": 6}
    }  # fmt: skip
    for name in ("ct", "mr"):
        low, high = scored["interval"]["modalities"][name]
        assert low <= scored["modalities"][name]["score"] <= high
    low, high = scored["interval"]["mean"]
    assert low <= scored["mean"] <= high
    assert scored == score_predictions(rows, "vg")


def test_questions_on_which_the_model_failed_are_counted():
    rows = [GOOD, replace(GOOD, id=1, response="", error="RuntimeError: out of memory")]
    scored = score_predictions(rows, "vg")
    assert (scored["errors"], scored["outcomes"]["unreadable"], scored["mean"]) == (1, 1, 0.5)


@pytest.mark.slow
def test_the_intervals_of_texts_are_around_their_scores():
    scored = score_predictions(read_predictions(GOLDEN / "mia.jsonl", "mia"), "mia")
    for measure, value in scored["mean"].items():
        low, high = scored["interval"]["mean"][measure]
        assert low < value < high < low + 0.2
