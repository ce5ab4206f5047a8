"""Prediction files: what is read and written, what is refused, and how a stopped run continues."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bird_hf.eval.predictions import Prediction, finished, read_predictions, write_predictions

BOXED = "<ref>liver</ref><box>(100,100),(400,300)</box>"
GOOD = Prediction(0, "ct_00--a--b--z_0001.png", "Where is the liver?", BOXED, BOXED)


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
            (replace(GOOD, image="photo_1.png").as_line(), "does not begin with a modality"),
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
        with pytest.raises(ValueError, match="is not a text file"):
            read_predictions(path, "vg")


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
