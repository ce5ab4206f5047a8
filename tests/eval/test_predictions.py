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
            (GOOD.as_line() + GOOD.as_line(), "id 0 in lines 1 and 2"),
            (GOOD.as_line() + replace(GOOD, id=7).as_line(), r"unknown 7 \(line 2\)"),
            (GOOD.as_line() + replace(GOOD, id=1, task="roc").as_line(), r"\(line 2\); score it as roc"),
            (
                GOOD.as_line() + replace(GOOD, id=1, image="photo_1.png").as_line(),
                "line 2: image 'photo_1.png'",
            ),
            (GOOD.as_line().replace('"id": 0', '"id": NaN'), "line 1: NaN is not a JSON value"),
            (GOOD.as_line().replace('"id": 0', '"id": true'), "line 1: id must be a whole number"),
            (
                GOOD.as_line().replace("}", ', "facts": {"area": Infinity}}'),
                "line 1: Infinity is not a JSON value",
            ),
            (
                replace(GOOD, response="a" * 10_000_000).as_line(),
                "line 1: response has 10,000,000 characters",
            ),
            (replace(GOOD, image="ct_" + "a" * 10_000).as_line(), "line 1: image has 10,003 characters"),
            ("[" * 100_000 + "\n", "line 1"),
            (GOOD.as_line().replace("}", ', "case_id": 3}'), "case_id and error must be strings"),
            (
                '{"id": 0, "image": "ct_a.png", "question": "", "annotation": null, "response": ""}\n',
                "line 1: id must",
            ),
        ],
    )
    def test_one_line_says_what_is_wrong(self, tmp_path, lines, message):
        path = tmp_path / "predictions.jsonl"
        path.write_text(lines)
        with pytest.raises(ValueError, match=message) as caught:
            read_predictions(path, "vg")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500

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

    def test_a_question_on_which_the_model_failed_is_asked_again(self, tmp_path):
        path = tmp_path / "predictions.jsonl"
        failed = replace(GOOD, id=1, response="", error="OSError: truncated")
        write_predictions(path, [GOOD, failed])
        asked = [GOOD, replace(GOOD, id=1)]
        assert finished(path, asked) == {0: GOOD}
        assert finished(path, asked, keep_failed=True) == {0: GOOD, 1: failed}

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
