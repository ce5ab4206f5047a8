"""What the rows of a split add to predictions: cases, objects, the baseline of mean boxes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from bird_hf.data.folder.publish import image_cell, open_folder, publish
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import SINGLE_TASKS, Modality, Task
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.eval.predict import _questions_of
from bird_hf.eval.predictions import write_predictions
from bird_hf.eval.score import score_predictions
from bird_hf.eval.score_tables import table_of_scores
from bird_hf.eval.split_rows import MIDDLE, split_rows
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import read

VG = Task.VISUAL_GROUNDING


def dialogues(count):
    rng = np.random.default_rng(0)
    for number in range(count):
        image = draw_phantom(Modality.CT, number, 64)
        wanted = dict.fromkeys(SINGLE_TASKS, 4)
        yield write_dialogue(record_of(image, 0.003), rng, wanted, absent=1), image_cell(image)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    rows = list(dialogues(5))
    publish({"train": rows[:3], "test": rows[3:]}, folder, "# Five phantoms\n")
    return folder


@pytest.fixture(scope="module")
def questions(data):
    return _questions_of(open_folder(data, "vg", "test"))


def test_predictions_get_the_cases_and_labels_of_their_rows(data, questions):
    rows = split_rows([replace(each, case_id=None) for each in questions], data, VG, "test")
    published = open_folder(data, "vg", "test")
    assert [each.case_id for each in rows.predictions] == list(published["case_id"])
    for number, row in enumerate(published):
        labels, boxes = rows.asked[number]
        assert set(labels) == {item["label"] for item in row["objects"]}
        assert len(boxes) == sum(item["box"] is not None for item in row["objects"])
        assert {*boxes} <= {*rows.objects[f"{row['image_id']}.png"]}


def test_the_baseline_answers_with_the_mean_training_box(data, questions):
    rows = split_rows(questions, data, VG, "test")
    boxes: dict[str, dict[str, list[float]]] = {}
    for task in ("vg",):
        for row in open_folder(data, task, "train"):
            for item in row["objects"]:
                if item["box"]:
                    boxes.setdefault(item["label"], {})[str((row["image_id"], item["box"]))] = item["box"]
    for question, answer in zip(questions, rows.baseline(), strict=True):
        for span in read(answer.response).spans:
            seen = [*boxes.get(span.phrase, {}).values()]
            mean = Box(*np.mean(seen, axis=0)) if seen else MIDDLE
            assert [box.to_thousandths() for box in span.boxes] == [mean.to_thousandths()]
        assert tuple(span.phrase for span in read(answer.response).spans) == rows.asked[question.id][0]


def test_the_score_shows_the_baseline_and_confusion(data, questions):
    right = [replace(each, response=each.annotation) for each in questions]
    scored = score_predictions(right, "vg", "strict", split_rows(right, data, VG, "test"))
    assert scored["mean"] == 1.0 and scored["baseline"]["mean"] < 1
    assert scored["cases"]["unit"] == "case" and scored["grounding"]["laterality_known"] is True
    assert scored["grounding"]["all"]["laterality_confusion"]["score"] in (0.0, None)
    assert json.loads(json.dumps(scored)) == scored
    text = table_of_scores(scored)
    assert text.index("| mean of 1 | 1.0000 |") < text.index("| baseline |") < text.index("| ct |")
    assert "| box on the twin |" in text and "not computed" not in text


def test_a_folder_without_a_training_split_has_the_middle_as_its_baseline(tmp_path):
    publish({"test": dialogues(1)}, tmp_path / "only-test", "# One phantom\n")
    questions = _questions_of(open_folder(tmp_path / "only-test", "vg", "test"))
    rows = split_rows(questions, tmp_path / "only-test", VG, "test")
    assert not rows.mean_boxes
    boxes = {box.to_thousandths() for answer in rows.baseline() for box in read(answer.response).boxes}
    assert boxes == {MIDDLE.to_thousandths()}


@pytest.mark.parametrize("change", [{"question": "Where is the moon?"}, {"id": 999}])
def test_answers_to_other_rows_are_refused_with_the_id(data, questions, change):
    wrong = [*questions[:-1], replace(questions[-1], **change)]
    with pytest.raises(ValueError, match=r"id \d+ answers .* give --data and --split of the predictions"):
        split_rows(wrong, data, VG, "test")


def test_the_command_joins_compares_and_prints(run_bird, data, questions, tmp_path):
    def bird(*words):
        ran = run_bird(*words)
        assert ran.code == 0, ran
        return ran.out

    right, silent = tmp_path / "right.jsonl", tmp_path / "silent.jsonl"
    write_predictions(right, [replace(each, response=each.annotation) for each in questions])
    write_predictions(silent, questions)
    scored = json.loads(bird("score", silent, "--task", "vg", "--rules", "strict", "--data", data, "--json"))
    assert (scored["mean"], scored["unreadable_rate"], scored["malformed_rate"]) == (0.0, 1.0, 0.0)
    compared = json.loads(bird("score", silent, right, "--task", "vg", "--rules", "strict", "--json"))
    assert compared["difference"]["score"]["mean"]["difference"] == 1.0
    assert "| difference |" in bird("score", silent, right, "--task", "vg", "--data", data)
