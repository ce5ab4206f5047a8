"""LLaVA-Med's questions: what a line becomes, answers from its own script, scores, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from bird_hf.eval.llava_med import (
    FolderImages,
    llava_med_table,
    read_llava_med,
    score_llava_med,
    with_answers,
)
from bird_hf.eval.predictions import LLAVA_MED, read_predictions, write_predictions
from bird_hf.reports.run_report import write_report

DOMAINS = ("chest_xray", "mri", "histology", "gross", "ct_scan")


def line(number: int, **changed) -> dict:
    """A question in the form of llava_med_eval_qa50_qa.jsonl; two questions are about one figure."""
    figure = f"1806389{number // 2}_F3"
    row = {
        "question_id": number,
        "image": f"{figure}.jpg",
        "pair_id": figure,
        "text": f"What is shown in part {number}?\n<image>",
        "gpt4_answer": f"The image shows a thin layer of cells around cyst number {number}.",
        "fig_caption": "A cyst.",
        "in_text_mention": [{"tokens": "( Fig. 3 )", "entities": []}],
        "domain": {name: name == DOMAINS[number % 5] for name in DOMAINS},
        "type": "conversation" if number % 2 else "detailed_description",
        "fig_label": "Fig. 3",
    }
    return {name: value for name, value in {**row, **changed}.items() if value is not None}


def write_lines(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "qa.jsonl", map(line, range(6)))


def test_a_line_becomes_a_question_without_its_image_token(file):
    questions = read_llava_med(file)
    assert len(questions) == 6
    first = questions[1]
    assert (first.id, first.task, first.image) == (1, LLAVA_MED, "18063890_F3.jpg")
    assert first.question == "What is shown in part 1?"
    assert first.annotation.endswith("cyst number 1.") and first.response == ""
    assert first.facts == {"question_id": 1, "domain": "mri", "type": "conversation"}
    assert [each.case_id for each in questions][:3] == ["18063890_F3", "18063890_F3", "18063891_F3"]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ({"histology": True, "gross": True}, "histology"),  # as LLaVA-Med's own summary counts it
        ({"ct_scan": True, "chest_xray": True}, "chest_xray"),
        ({"mri": False}, ""),
        ({"mri": "yes"}, ""),
        ({}, ""),
        (None, ""),  # the key is missing
    ],
)
def test_the_first_true_domain_counts(tmp_path, domain, expected):
    (question,) = read_llava_med(write_lines(tmp_path / "qa.jsonl", [line(0, domain=domain)]))
    assert question.facts["domain"] == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (line(0, gpt4_answer=None), "lacks gpt4_answer"),
        (line(0, question_id="0"), "question_id must be a whole number"),
        (line(0, question_id=True), "question_id must be a whole number"),
        (line(0, text=["What?"]), "must be strings"),
        (line(0, image="../../etc/passwd"), "is not a plain file name"),
        (line(0, image="/etc/passwd"), "is not a plain file name"),
        (line(0, image=".hidden"), "is not a plain file name"),
        (line(0, text="x" * 10_000_000), "text has 10,000,000 characters"),
        (line(0, type="x" * 1000), "type has 1,000 characters"),
        (line(0, pair_id=7), "pair_id must be a string"),
        (line(0, domain=["mri"]), "domain must be an object"),
        ([1], "not a JSON object"),
    ],
)
def test_another_line_is_refused_by_its_number(tmp_path, row, message):
    path = write_lines(tmp_path / "qa.jsonl", [line(5), row])
    with pytest.raises(ValueError, match="line 2: ") as refused:
        read_llava_med(path)
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ('{"question_id": NaN}', "line 1: NaN is not a JSON value"),
        ("{", "line 1: "),
        (json.dumps(line(3)) + "\n" + json.dumps(line(3)), "line 2: question_id 3 occurs twice"),
    ],
)
def test_another_file_is_refused(tmp_path, text, message):
    (tmp_path / "qa.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_llava_med(tmp_path / "qa.jsonl")
    with pytest.raises(ValueError, match="no such file; it is llava_med_eval_qa50_qa"):
        read_llava_med(tmp_path / "other.jsonl")


def test_answers_of_llava_meds_own_script_are_joined_by_question(file, tmp_path):
    rows = [{"question_id": n, "prompt": "?", "text": f"a{n}", "model_id": "m"} for n in (5, 3, 4, 0, 1, 2)]
    questions = read_llava_med(file)
    answered = with_answers(questions, write_lines(tmp_path / "answers.jsonl", rows))
    assert [each.response for each in answered] == ["a0", "a1", "a2", "a3", "a4", "a5"]
    for bad, message in (
        (rows[:5], "has no answers to 1 questions .question_id 2"),
        ([*rows, rows[0]], "line 7: question_id 5 is answered twice"),
        ([{"question_id": 9, "text": "a"}], "line 1: question_id 9 is not one of the questions"),
        ([{"question_id": 1}], "line 1: an answer has question_id"),
    ):
        with pytest.raises(ValueError, match=message):
            with_answers(questions, write_lines(tmp_path / "answers.jsonl", bad))


def test_images_are_plain_files_of_their_folder(tmp_path):
    outside = tmp_path / "outside.jpg"
    Image.new("RGB", (20, 10)).save(outside)
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (20, 10)).save(folder / "a.jpg")
    (folder / "link.jpg").symlink_to(outside)
    images = FolderImages(folder)
    assert images["a.jpg"].size == (20, 10)
    with pytest.raises(ValueError, match="a link to a file outside"):
        images["link.jpg"]
    with pytest.raises(ValueError, match="cannot be opened"):
        images["b.jpg"]
    with pytest.raises(ValueError, match="no such folder"):
        FolderImages(tmp_path / "none")


@pytest.mark.slow
def test_answers_are_scored_as_one_set_by_domain_and_by_type(file, tmp_path):
    questions = read_llava_med(file)
    answers = [
        {"question_id": each.id, "text": each.annotation if each.id else "A cat."} for each in questions
    ]
    answered = with_answers(questions, write_lines(tmp_path / "answers.jsonl", answers))
    scored = score_llava_med(answered)
    assert (scored["all"]["n"], scored["all"]["cases"]) == (6, 3)
    low, high = scored["all"]["interval"]
    assert low <= scored["all"]["mbmr"] <= high
    assert scored["domains"]["mri"]["mbmr"] > 0.9 and scored["domains"]["mri"]["interval"] is None
    assert scored["domains"]["chest_xray"]["n"] == 2
    means = [row["mbmr"] for row in scored["domains"].values()]
    assert scored["domain_mean"] == pytest.approx(sum(means) / 5)
    assert scored["types"]["conversation"]["mbmr"] > scored["types"]["detailed_description"]["mbmr"]
    assert "| mean of the domains | - | - | - |" in str(llava_med_table(scored))

    run = tmp_path / "run"
    run.mkdir()
    write_predictions(run / "llava_med.jsonl", answered)
    assert read_predictions(run / "llava_med.jsonl", LLAVA_MED) == answered
    report, text = write_report([run])
    assert report["llava_med"] == scored
    assert f"| run | LLaVa-Med-qa0.2k | - | - | - | {100 * scored['all']['mbmr']:.2f} | - | 6 |" in text
    assert "| LLaVa-Med | LLaVa-Med-qa0.2k, published | - | - | - | 20.04 | - | - |" in text
