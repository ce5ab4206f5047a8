"""Prediction files, and the scores of the original scripts on the golden ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bird_hf.data.records import Task
from bird_hf.eval.predictions import Prediction, finished, read_predictions, write_predictions
from bird_hf.eval.report import as_table, score_predictions

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


def test_a_table_has_a_line_a_modality():
    table = as_table(score_predictions([GOOD], Task.VISUAL_GROUNDING))
    assert "| ct | 1.0000 | 1 | 1 |" in table
    assert "| mean of 1 | 1.0000 |" in table


@pytest.mark.parametrize("synthetic", [None, True, False])
def test_a_line_says_whether_an_image_is_synthetic_where_that_is_known(tmp_path, synthetic):
    prediction = replace(GOOD, synthetic=synthetic)
    assert ("synthetic" in json.loads(prediction.as_line())) == (synthetic is not None)
    write_predictions(tmp_path / "vg.jsonl", [prediction])
    assert read_predictions(tmp_path / "vg.jsonl", "vg") == [prediction]


class TestBadFiles:
    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ("", "is empty"),
            ("nonsense\n", "line 1"),
            ("[1]\n", "not a JSON object"),
            ('{"id": 0}\n', "lacks image"),
            (GOOD.as_line() * 2, "ids twice"),
            (replace(GOOD, id=1).as_line(), "missing 0, unknown 1"),
            (replace(GOOD, image="photo_1.png").as_line(), "begins with no modality"),
            (replace(GOOD, task="roc").as_line(), "answers task 'roc', not 'vg'"),
            (GOOD.as_line().replace("}", ', "synthetic": "yes"}'), "line 1: synthetic must be true or false"),
        ],
    )
    def test_one_line_says_what_is_wrong(self, tmp_path, lines, message):
        path = tmp_path / "predictions.jsonl"
        path.write_text(lines)
        with pytest.raises(ValueError, match=message) as caught:
            read_predictions(path, "vg")
        assert "\n" not in str(caught.value)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(ValueError, match="no such file"):
            read_predictions(tmp_path / "none.jsonl", "vg")

    def test_a_file_that_is_no_text_is_named(self, tmp_path):
        path = tmp_path / "predictions.jsonl"
        path.write_bytes(b"\x80\x81")
        with pytest.raises(ValueError, match="is no text"):
            read_predictions(path, "vg")

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
        """These files do not say their task."""
        with pytest.raises(ValueError, match=message):
            score_predictions(read_predictions(GOLDEN / f"{file}.jsonl", task), task)

    @pytest.mark.parametrize(("task", "rules"), [("rc", "paper"), ("chat", "paper"), ("vg", "lenient")])
    def test_what_cannot_be_scored_is_said(self, task, rules):
        with pytest.raises(ValueError, match=r"cannot be scored|are unknown"):
            score_predictions([GOOD], task, rules)


class TestResume:
    def test_any_character_of_an_answer_comes_back(self, tmp_path):
        path = tmp_path / "predictions.jsonl"
        odd = replace(GOOD, response="one\u2028two\x85three\nfour \u00b5")
        write_predictions(path, [odd])
        assert read_predictions(path, "vg") == [odd]

    def test_finished_answers_are_kept_and_a_cut_line_is_not(self, tmp_path):
        path = tmp_path / "predictions.jsonl"
        path.write_text(GOOD.as_line() + replace(GOOD, id=1).as_line()[:40])
        assert finished(path, [GOOD, replace(GOOD, id=1)]) == {0: GOOD}

    def test_an_answer_stands_beside_todays_reference(self, tmp_path):
        path = tmp_path / "predictions.jsonl"
        write_predictions(path, [replace(GOOD, annotation="an older reference", response="mine")])
        today = replace(GOOD, response="", synthetic=True)
        assert finished(path, [today]) == {0: replace(today, response="mine")}

    def test_two_answers_to_a_question_are_refused(self, tmp_path):
        path = tmp_path / "predictions.jsonl"
        path.write_text(GOOD.as_line() * 2)
        with pytest.raises(ValueError, match="answers id 0 twice"):
            finished(path, [GOOD])

    @pytest.mark.parametrize("number", [-1, 1])
    def test_an_id_that_the_data_does_not_have_is_refused(self, tmp_path, number):
        path = tmp_path / "predictions.jsonl"
        write_predictions(path, [replace(GOOD, id=number)])
        with pytest.raises(ValueError, match=f"other questions \\(id {number}\\)"):
            finished(path, [GOOD])

    def test_answers_to_other_questions_are_refused(self, tmp_path):
        path = tmp_path / "predictions.jsonl"
        write_predictions(path, [GOOD])
        with pytest.raises(ValueError, match="other questions"):
            finished(path, [replace(GOOD, question="Where is the heart?")])
