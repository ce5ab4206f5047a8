"""Every row of a split is answered into files, also if the run is stopped and continued."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bird_hf import cli
from bird_hf.data.folder.publish import image_cell, open_folder, publish
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import SINGLE_TASKS, Modality
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.eval.checks import CHECKS
from bird_hf.eval.hallucination import Missing
from bird_hf.eval.predict import failed, load_for_prediction, predict_dataset, predict_run
from bird_hf.eval.predictions import read_predictions
from bird_hf.eval.run import read_answers, read_run, weights_sha256
from bird_hf.inference import GroundingModel


def published(folder, *images, with_pixels=True):
    """A Med-GRIT folder: a question of each task about each image, and one about an absent object."""
    rng = np.random.default_rng(0)
    wanted = dict.fromkeys(SINGLE_TASKS, 1)
    dialogues = [write_dialogue(record_of(image, 0.003), rng, wanted, absent=1) for image in images]
    cells = [image_cell(image) if with_pixels else None for image in images]
    publish({"test": zip(dialogues, cells, strict=True)}, folder, "# Two images\n")
    return folder


def named(image, image_id):
    return replace(image, info=replace(image.info, image_id=image_id, synthetic=False))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A phantom, and a picture that is marked as real."""
    real = named(draw_phantom(Modality.FUNDUS, 1, 64), "fundus_real")
    return published(tmp_path_factory.mktemp("data") / "two-images", draw_phantom(Modality.CT, 0, 64), real)


@pytest.fixture
def bird(monkeypatch, capsys):
    """Runs a command, which must succeed; returns its output."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["bird", *map(str, words)])
        with pytest.raises(SystemExit, match="0"):
            cli.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def asked(monkeypatch):
    """The questions that reach the model, which repeats them; `stop_after` interrupts it."""
    questions = []

    def answer(_self, queries, *_):
        if len(questions) == asked.stop_after:
            raise KeyboardInterrupt
        questions.extend((query.question, query.image.tobytes()) for query in queries)
        return [(f"answer to {query.question}",) for query in queries]

    def asked():
        return questions

    asked.stop_after = None
    monkeypatch.setattr(GroundingModel, "sample", answer)
    return asked


def test_a_run_holds_answers_to_every_task_and_to_what_is_not_there(
    bird, tiny_checkpoint, data, tmp_path, asked
):
    out = bird(
        "predict", "--task", "all", "--model", tiny_checkpoint, "--data", data, "--out", tmp_path / "run"
    )
    answers = read_answers(tmp_path / "run")
    assert list(answers) == [*SINGLE_TASKS, *Missing, CHECKS]
    counts = [f"{len(found)} {kind}" for kind, found in answers.items()]
    assert out == f"{tmp_path / 'run'}: answers to {', '.join(counts)}\n"
    assert len(asked()) == sum(map(len, answers.values()))
    for found in answers.values():
        for each in found:
            assert each.response == f"answer to {each.question}"
            assert each.synthetic is (each.image != "fundus_real.png")
    run = read_run(tmp_path / "run")
    assert (run.model, run.data, run.split) == ("bird", "two-images", "test")
    assert run.weights_sha256 == weights_sha256(tiny_checkpoint)


def test_each_question_goes_with_its_own_image(tiny_checkpoint, data, tmp_path, asked):
    predict_run(tiny_checkpoint, data, tmp_path / "run")
    pixels = {f"{row['image_id']}.png": row["image"].tobytes() for row in open_folder(data, "vg", "test")}
    expected = [
        (each.question, pixels[each.image])
        for found in read_answers(tmp_path / "run").values()
        for each in found
    ]
    assert sorted(asked()) == sorted(expected)


def test_a_stopped_run_goes_on_where_it_was(tiny_checkpoint, data, tmp_path, asked):
    asked.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        predict_run(tiny_checkpoint, data, tmp_path / "run", batch_size=1)
    asked.stop_after = None
    counts = predict_run(tiny_checkpoint, data, tmp_path / "run", batch_size=1)
    assert len(asked()) == sum(counts.values())
    predict_run(tiny_checkpoint, data, tmp_path / "run")
    assert len(asked()) == sum(counts.values())


def test_names_that_tell_no_modality_are_refused_before_anything_is_asked(tmp_path, asked):
    folder = published(tmp_path / "no-modality", named(draw_phantom(Modality.CT, 0, 64), "photo_1"))
    with pytest.raises(ValueError, match=r"'photo_1\.png' does not begin with a modality"):
        predict_dataset(GroundingModel(None, None), open_folder(folder, "vg", "test"), tmp_path / "vg.jsonl")
    assert asked() == []


def test_rows_without_pixels_are_refused(tmp_path, asked):
    folder = published(tmp_path / "no-pixels", draw_phantom(Modality.CT, 0, 64), with_pixels=False)
    with pytest.raises(ValueError, match="the row has no pixels; join the data with your copy"):
        predict_dataset(GroundingModel(None, None), open_folder(folder, "vg", "test"), tmp_path / "vg.jsonl")


class TestFailures:
    @pytest.fixture
    def failing(self, monkeypatch):
        """A model that fails on any batch with a question about one image, and repeats other questions."""

        def answer(_self, queries, *_):
            if any(query.image.size == failing.size for query in queries):
                raise RuntimeError("CUDA out of memory\nin layer 3")
            return [(query.question,) for query in queries]

        def failing(size):
            failing.size = size

        failing.size = None
        monkeypatch.setattr(GroundingModel, "sample", answer)
        return failing

    @pytest.fixture
    def rows(self, tmp_path):
        images = [draw_phantom(Modality.CT, 0, 64), draw_phantom(Modality.CT, 1, 80)]
        return open_folder(published(tmp_path / "two", *images), "vg", "test")

    def test_a_question_that_fails_costs_its_row_and_is_asked_again(self, rows, tmp_path, failing):
        out, sizes = tmp_path / "vg.jsonl", [image.size for image in rows["image"]]
        failing(sizes[0])
        predict_dataset(GroundingModel(None, None), rows, out)
        answers = read_predictions(out, "vg")
        assert [each.error is not None for each in answers] == [size == sizes[0] for size in sizes]
        assert {each.error for each in answers if each.error} == {
            "RuntimeError: CUDA out of memory in layer 3"
        }
        assert all(each.response == ("" if each.error else each.question) for each in answers)
        assert f"the model failed on {sizes.count(sizes[0])} (id 0" in failed(out)
        failing(None)
        assert predict_dataset(GroundingModel(None, None), rows, out) == sizes.count(sizes[0])
        assert all(each.error is None and each.response for each in read_predictions(out, "vg"))
        assert failed(out) == ""

    def test_a_model_that_fails_on_everything_is_an_error(self, tmp_path, failing):
        image = draw_phantom(Modality.CT, 0, 64)
        rows = open_folder(published(tmp_path / "one", image), "vg", "test")
        failing(rows[0]["image"].size)
        with pytest.raises(ValueError, match="the model failed on every question"):
            predict_dataset(GroundingModel(None, None), rows, tmp_path / "vg.jsonl")


def test_a_limit_takes_the_first_questions_of_each_kind(bird, tiny_checkpoint, data, tmp_path, asked):
    counts = predict_run(tiny_checkpoint, data, tmp_path / "run", limit=1)
    assert set(counts.values()) == {1} and len(asked()) == len(counts)
    out = tmp_path / "vg.jsonl"
    bird("predict", "--task", "vg", "--model", tiny_checkpoint, "--data", data, "--out", out, "--limit", 2)
    assert [each.id for each in read_predictions(out, "vg")] == [0, 1]


def test_answers_name_the_case_of_their_image(tiny_checkpoint, data, tmp_path, asked):
    predict_run(tiny_checkpoint, data, tmp_path / "run")
    cases = {f"{row['image_id']}.png": row["case_id"] for row in open_folder(data, "vg", "test")}
    for found in read_answers(tmp_path / "run").values():
        assert all(each.case_id == cases[each.image] for each in found)


def test_what_single_processes_of_a_stopped_run_wrote_is_kept(tiny_checkpoint, data, tmp_path, asked):
    predict_run(tiny_checkpoint, data, tmp_path / "run")
    path = tmp_path / "run" / "vg.jsonl"
    whole, number = path.read_text(), len(asked())
    lines = whole.splitlines(keepends=True)
    path.write_text("")
    (tmp_path / "run" / "vg.jsonl.part-0").write_text("".join(lines[1:]))
    (tmp_path / "run" / "vg.jsonl.part-1").write_text(lines[0][:30])  # stopped while it wrote
    predict_run(tiny_checkpoint, data, tmp_path / "run")
    assert path.read_text() == whole and len(asked()) == number + 1
    assert not [*path.parent.glob("*.part-*")]


def test_without_bitsandbytes_4_bits_are_refused_in_one_line(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr("bird_hf.asking.choice.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs bitsandbytes, which is not installed"):
        load_for_prediction(tiny_checkpoint, load_in_4bit=True)


@pytest.mark.slow
def test_two_processes_write_the_file_of_one(bird, forked_python, tiny_checkpoint, data, tmp_path):
    """The same batches go to the processes in turn, so every answer is computed as by one process."""
    words = ["--task", "vg", "--model", tiny_checkpoint, "--data", data, "--batch-size", 1, "--out"]
    bird("predict", *words, tmp_path / "one.jsonl")
    launch = [
        forked_python,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29617",
    ]
    command = [*launch, "-m", "bird_hf.cli", "predict", *words, tmp_path / "two.jsonl"]
    environment = os.environ | {"PYTHON_EXEC": str(forked_python)}  # with which torchrun starts processes
    ran = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=280, check=False, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("answers") == 1  # one process reports
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert not [*tmp_path.glob("*.part-*")]


@pytest.mark.slow
def test_one_command_predicts_and_reports(bird, tiny_checkpoint, data, tmp_path):
    run = tmp_path / "run"
    report = json.loads(bird("report", run, "--model", tiny_checkpoint, "--data", data, "--json"))
    assert report == json.loads((run / "report.json").read_text())
    assert list(report["sources"]) == ["real", "phantom"]
    assert all(list(rows) == [*SINGLE_TASKS, *Missing] for rows in report["sources"].values())
    assert report["sources"]["real"]["mia"]["modalities"]["fundus"]["n"] == 1
    assert report["sources"]["phantom"]["foreign"]["modalities"]["ct"]["n"] == 2
    assert report["checks"]["VG, CAPITALS"]["all"]["n"] > 0
    text = (run / "report.md").read_text()
    assert (
        text.index("## Phantoms") < text.index("## Checks beyond the paper") < text.index("| VG, CAPITALS |")
    )


class TestLlavaMed:
    """LLaVA-Med's questions (llava_med.py), whose images lie in a folder."""

    @pytest.fixture
    def words(self, tmp_path, tiny_checkpoint):
        figures = [f"1{number}_F1.jpg" for number in range(2)]
        (tmp_path / "images").mkdir()
        Image.new("RGB", (32, 24), "white").save(tmp_path / "images" / figures[0])  # the other is missing
        rows = [
            {
                "question_id": number,
                "image": name,
                "text": "What is shown?\n<image>",
                "gpt4_answer": "A cell.",
            }
            for number, name in enumerate(figures)
        ]
        (tmp_path / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return ["predict", "--model", tiny_checkpoint, "--task", "llava_med", "--data", tmp_path / "qa.jsonl"]

    def test_a_missing_image_costs_its_row_only(self, bird, words, tmp_path):
        out = tmp_path / "llava_med.jsonl"
        said = bird(*words, "--images", tmp_path / "images", "--out", out)
        assert "2 new answers; the model failed on 1 (id 1)" in said
        first, second = read_predictions(out, "llava_med")
        assert first.error is None and first.question == "What is shown?"
        assert "cannot be opened" in second.error and second.facts["question_id"] == 1

    def test_images_go_with_these_questions_only(self, run_bird, words, tmp_path):
        out = ["--out", tmp_path / "out.jsonl"]
        assert "--task llava_med needs --images" in run_bird(*words, *out).err
        words[words.index("llava_med")] = "vg"
        assert "other tasks have none" in run_bird(*words, *out, "--images", tmp_path / "images").err
