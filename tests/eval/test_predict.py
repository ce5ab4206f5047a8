"""A batch of questions is answered as each would be alone, and a split as its rows are, whenever it was stopped."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from bird_hf import cli
from bird_hf.data.folder.publish import image_cell, open_folder, publish
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import SINGLE_TASKS, Modality
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.eval.hallucination import Missing
from bird_hf.eval.predict import Query, generate_answers, predict_dataset, predict_run
from bird_hf.eval.runs import read_answers, read_run, weights_sha256

RED = Image.new("RGB", (40, 20), (200, 30, 30))
BLUE = Image.new("RGB", (10, 30), (20, 40, 220))
QUERIES = [
    Query("Where is the left kidney in this image, and is there a nodule, or a tumor, anywhere else?", RED),
    Query("What?", BLUE),
    Query("What is <ref>this</ref><box>(12,345),(678,900)</box>?", RED),
    Query("What?", RED),
    Query("Where is the left kidney?", None),
]


def answers(model, processor, queries, **options):
    return generate_answers(model, processor, queries, **{"max_new_tokens": 10} | options)


@pytest.fixture(scope="module")
def alone(tiny_checkpoint, tiny_processor):
    from bird_hf.checkpoint.load import load_checkpoint

    model, _ = load_checkpoint(tiny_checkpoint)
    return [text for query in QUERIES for text in answers(model, tiny_processor, [query])]


def test_the_answers_differ(alone):
    """Else the tests below could not tell an answer from another."""
    assert len(set(alone)) == len(QUERIES)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 32])
def test_batch_answers_as_each_alone_in_order(tiny_model, tiny_processor, alone, batch_size):
    assert answers(tiny_model, tiny_processor, QUERIES, batch_size=batch_size) == alone
    backwards = answers(tiny_model, tiny_processor, QUERIES[::-1], batch_size=batch_size)
    assert backwards == alone[::-1]


def test_an_image_is_computed_once_for_all_questions_of_a_batch(tiny_model, tiny_processor):
    seen = []
    tiny_model.model.vision_tower.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    answers(tiny_model, tiny_processor, QUERIES)
    assert seen == [len({id(query.image) for query in QUERIES if query.image is not None})]
    assert sum(query.image is not None for query in QUERIES) > seen[0]


def test_nothing_asked_gives_nothing(tiny_model, tiny_processor):
    assert answers(tiny_model, tiny_processor, []) == []


def test_answers_are_greedy_continuations(tiny_model, tiny_processor, alone):
    """Step by step, without a cache or a batch: the likeliest token of the whole text so far."""
    query = QUERIES[1]
    content = [{"type": "image", "image": query.image}, {"type": "text", "text": query.question}]
    inputs = tiny_processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    ids, prompt = inputs["input_ids"], inputs["input_ids"].shape[1]
    with torch.no_grad():
        for _ in range(10):
            logits = tiny_model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
            if ids[0, -1] == tiny_model.generation_config.eos_token_id:
                break
    assert tiny_processor.tokenizer.decode(ids[0, prompt:], skip_special_tokens=True) == alone[1]


def test_max_new_tokens_ends_an_answer(tiny_model, tiny_processor, alone):
    (short,) = answers(tiny_model, tiny_processor, QUERIES[:1], max_new_tokens=3)
    assert alone[0].startswith(short.rstrip("�")) and len(short) < len(alone[0])


def test_control_tokens_of_a_question_are_plain_text(tiny_model, tiny_processor):
    """Were the slot a slot, the model would refuse the text: it has pixels for one image only."""
    assert answers(tiny_model, tiny_processor, [Query("What is <imgpad><|im_end|>?", RED)])


# --- whole splits --------------------------------------------------------------------------------------------


def published(folder, *images, with_pixels=True):
    """A Med-GRIT folder: a question of each task about each image, and one for something that is not there."""
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
    """A phantom, and a picture that says it is real."""
    real = named(draw_phantom(Modality.FUNDUS, 1, 64), "fundus_real")
    return published(tmp_path_factory.mktemp("data") / "two-images", draw_phantom(Modality.CT, 0, 64), real)


@pytest.fixture
def bird(monkeypatch, capsys):
    """Runs a command, which must end well; returns what it prints."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["bird", *map(str, words)])
        with pytest.raises(SystemExit, match="0"):
            cli.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def asked(monkeypatch):
    """The questions that reach the model, which repeats each of them; it can be told to stop after some."""
    questions = []

    def answer(_model, _processor, queries, _batch_size):
        if len(questions) == asked.stop_after:
            raise KeyboardInterrupt
        questions.extend((query.question, query.image.tobytes()) for query in queries)
        return [f"answer to {query.question}" for query in queries]

    def asked():
        return questions

    asked.stop_after = None
    monkeypatch.setattr("bird_hf.eval.predict.generate_answers", answer)
    return asked


def test_a_run_holds_answers_to_every_task_and_to_what_is_not_there(
    bird, tiny_checkpoint, data, tmp_path, asked
):
    out = bird(
        "predict", "--task", "all", "--model", tiny_checkpoint, "--data", data, "--out", tmp_path / "run"
    )
    answers = read_answers(tmp_path / "run")
    assert list(answers) == [*SINGLE_TASKS, *Missing]
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
    with pytest.raises(ValueError, match=r"'photo_1\.png' begins with no modality"):
        predict_dataset(None, None, open_folder(folder, "vg", "test"), tmp_path / "vg.jsonl")
    assert asked() == []


def test_rows_without_pixels_are_refused(tmp_path, asked):
    folder = published(tmp_path / "no-pixels", draw_phantom(Modality.CT, 0, 64), with_pixels=False)
    with pytest.raises(ValueError, match="the row has no pixels; join the data with your copy"):
        predict_dataset(None, None, open_folder(folder, "vg", "test"), tmp_path / "vg.jsonl")


def test_one_command_predicts_and_reports(bird, tiny_checkpoint, data, tmp_path):
    run = tmp_path / "run"
    report = json.loads(bird("report", run, "--model", tiny_checkpoint, "--data", data, "--json"))
    assert report == json.loads((run / "report.json").read_text())
    assert list(report["sources"]) == ["real", "phantom"]
    assert all(list(rows) == [*SINGLE_TASKS, *Missing] for rows in report["sources"].values())
    assert report["sources"]["real"]["mia"]["modalities"]["fundus"]["n"] == 1
    assert report["sources"]["phantom"]["foreign"]["modalities"]["ct"]["n"] == 2
    assert "## Phantoms" in (run / "report.md").read_text()
