"""Every row of a split is answered into files, also if the run is stopped and continued."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from bird_hf import cli
from bird_hf.data.folder.publish import image_cell, open_folder, publish
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import SINGLE_TASKS, Modality
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.eval.checks import CHECKS
from bird_hf.eval.hallucination import Missing
from bird_hf.eval.predict import predict_dataset, predict_run
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

    def answer(_self, queries, _batch_size):
        if len(questions) == asked.stop_after:
            raise KeyboardInterrupt
        questions.extend((query.question, query.image.tobytes()) for query in queries)
        return [f"answer to {query.question}" for query in queries]

    def asked():
        return questions

    asked.stop_after = None
    monkeypatch.setattr(GroundingModel, "generate", answer)
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
