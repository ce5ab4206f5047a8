"""The demo's callbacks: what each component of the page shows, and its error messages."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
import yaml
from PIL import Image

from bird_hf import demo
from bird_hf.data.embedded.sample_set import sample_phantoms
from bird_hf.data.folder.publish import image_cell, open_folder, publish
from bird_hf.data.records import SINGLE_TASKS, Task
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.demo import (
    Callbacks,
    ExampleImage,
    build_page,
    launch,
    read_examples,
)
from bird_hf.hub.boxes import Box
from bird_hf.inference import Answer, GroundingModel, tagged_question

ROOT = Path(__file__).parents[1]
WH = (200, 80)
KIDNEY = "The <ref>left kidney</ref><box>(100,250),(500,1000)</box> is here."
EXAMPLE = ExampleImage(
    "ct, phantom",
    Image.new("RGB", (40, 30)),
    {
        Task.VISUAL_GROUNDING: ("Locate the tumor.", ""),
        Task.REFERRING_CLASSIFICATION: ("Name this structure.", "1,2,30,20"),
    },
)


def click(*index: int) -> Any:
    """The event that gradio passes for a click on an image (x, y), or on the n-th example."""
    return SimpleNamespace(index=list(index) if len(index) > 1 else index[0])


def words(message: str) -> str:
    """The text of a message, which must be one line."""
    found = re.fullmatch(r'<div role="alert">([^<>\n]+)</div>', message)
    assert found, message
    return found[1]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The queries that reach the model, which answers KIDNEY."""
    queries: list[Any] = []

    def generate(_self: Any, given: list[Any], *_: Any) -> list[str]:
        queries.extend(given)
        return [KIDNEY]

    monkeypatch.setattr(GroundingModel, "generate", generate)
    return queries


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch, picture: str) -> Any:
    """The page's reply if the model answers `raw`."""

    def reply(raw: str) -> demo.Reply:
        monkeypatch.setattr(GroundingModel, "generate", lambda *_: [raw])
        return callbacks().ask(picture, "vg", "Where?", "")

    return reply


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "picture.png"
    Image.new("L", WH, 90).save(path)
    return str(path)


def callbacks() -> Callbacks:
    return Callbacks(GroundingModel(None, SimpleNamespace(known_names=())), [EXAMPLE])


# --- asking --------------------------------------------------------------------------------------------------


def test_an_answer_comes_in_words_in_pixels_and_on_the_image(asked: list[Any], picture: str) -> None:
    reply = callbacks().ask(picture, "vg", " Where is the left kidney? ", "")
    assert (reply.text, reply.boxes, reply.message) == (
        "The left kidney is here.",
        "left kidney: 20,20,100,80",
        "",
    )
    shown, boxes = reply.shown
    assert shown.size == (512, 205)
    assert boxes == [((51, 51, 256, 205), "left kidney")]
    assert (asked[0].question, asked[0].image.size) == ("Where is the left kidney?", WH)


@pytest.mark.parametrize("task", ["roc", "rc"])
def test_a_region_is_asked_about_in_pixels_and_shown(asked: list[Any], picture: str, task: str) -> None:
    reply = callbacks().ask(picture, task, "What is this?", " 20,8,100,80 ")
    assert asked[0].question == "What is <ref>this</ref><box>(100,100),(500,1000)</box>?"
    assert [name for _, name in reply.shown[1]] == ["your box", "left kidney"]


@pytest.mark.parametrize(
    ("raw", "text", "boxes", "message"),
    [
        ("There is no liver.", "There is no liver.", "No box in this answer.", ""),
        ("", "(The model gave no words.)", "No box in this answer.", ""),
        ("<box>(0,0),(500,500)</box>", "(The model gave no words.)", "(no phrase): 0,0,100,40", "orphan_box"),
        ("A <box>(1,2)</box>", "A", "No box in this answer.", "not_four_numbers"),
        (
            "<ref>a</ref><box>(0,0),(500,500)</box><box>(0,0),(1000,500)</box>",
            "a",
            "a: 0,0,100,40\na: 0,0,200,40",
            "",
        ),
    ],
)
def test_what_an_answer_lacks_is_said(answered: Any, raw: str, text: str, boxes: str, message: str) -> None:
    reply = answered(raw)
    assert (reply.text, reply.boxes) == (text, boxes)
    assert len(reply.shown[1]) == raw.count("</box>") - raw.count("(1,2)")
    if message:
        assert words(reply.message) == f"Malformed answer: {message}."
    else:
        assert reply.message == ""


@pytest.mark.parametrize(
    ("task", "question", "box", "complaint"),
    [
        ("vg", "  ", "", "the question is empty"),
        ("vg", "x" * 501, "", "the question has 501 characters; ask in up to 500"),
        ("roc", "What is this?", "", "give its box x1,y1,x2,y2 in pixels"),
        ("rc", "Describe this.", "  ", "give its box x1,y1,x2,y2 in pixels"),
        ("roc", "What is this?", "12,34", "&#x27;12,34&#x27; is not four numbers"),
        ("roc", "What is this?", "<b>,1,2,3", "&lt;b&gt;"),
        ("roc", "What is this?", "0,0,201,80", "pixels of a 200x80 image"),
        ("mia", "Is this a cyst?", "9,9,9,20", "x1=9.0 and x2=9.0"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(
    asked: list[Any], picture: str, task: str, question: str, box: str, complaint: str
) -> None:
    reply = callbacks().ask(picture, task, question, box)
    assert complaint in words(reply.message)
    assert (reply.text, reply.boxes, reply.shown, asked) == ("", "", None, [])


def test_without_an_image_it_asks_for_one(asked: list[Any]) -> None:
    assert words(callbacks().ask(None, "vg", "Where?", "").message).startswith("there is no image; choose")
    assert asked == []


def test_the_model_is_asked(tiny_model: Any, tiny_processor: Any, picture: str) -> None:
    asking = Callbacks(GroundingModel(tiny_model, tiny_processor), [])
    reply = asking.ask(picture, "roc", "What is this?", "1,1,99,70")
    assert reply == asking.ask(picture, "roc", "What is this?", "1,1,99,70")
    assert reply.text and reply.boxes


# --- images --------------------------------------------------------------------------------------------------


def test_an_upload_is_read_and_the_last_answer_goes(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.arange(640, dtype=np.uint16).reshape(20, 32) * 100).save(path)
    upload, chosen, box, image, *reply = callbacks().receive(path.read_bytes())
    assert (upload, chosen, box, tuple(reply)) == (None, None, "", demo.Reply())
    assert (image.mode, image.size) == ("RGB", (32, 20))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"a text file that is named .png", "not a readable image; give a PNG"),
        (b"", "not a readable image"),
        ((ROOT / "docs/pictures/coordinates.png").read_bytes()[:5000], "damaged or truncated"),
    ],
)
def test_what_is_no_image_is_said_in_one_line(content: bytes, complaint: str) -> None:
    *_, box, image, message, text, boxes, shown = callbacks().receive(content)
    assert complaint in words(message)
    assert (box, image, text, boxes, shown) == ("", None, "", "", None)


def test_an_example_brings_its_question() -> None:
    chosen, task, question, box, image, *reply = callbacks().choose(click(0))
    assert (chosen, task, question, box) == (0, "vg", "Locate the tumor.", "")
    assert image is EXAMPLE.image and tuple(reply) == demo.Reply()


def test_a_task_brings_the_examples_question_or_its_own() -> None:
    page = callbacks()
    assert page.pick("roc", 0) == ("Name this structure.", "1,2,30,20")
    assert page.pick("mia", 0) == page.pick("mia", None) == ("Which imaging modality is this?", "")
    assert {page.pick(task.value, None)[1] for task in SINGLE_TASKS} == {""}


def test_two_clicks_are_the_corners_of_a_box(picture: str) -> None:
    page = callbacks()
    task, question, box, message, *_, shown = page.mark(
        click(150, 60), picture, "vg", "Where is the liver?", ""
    )
    assert (task, question, box, shown) == ("roc", "What is this?", "150,60", None)
    assert words(message) == "First corner (150, 60). Click the opposite corner."
    task, question, box, message, *_, shown = page.mark(click(20, 10), picture, "rc", "Describe it.", box)
    assert (task, question, box, message) == ("rc", "Describe it.", "20,10,151,61", "")
    assert shown[1] == [((51, 25, 387, 157), "your box")]
    *_, message, _, _, _ = page.mark(click(1, 2), picture, task, question, box)
    assert "First corner (1, 2)" in words(message)


@pytest.mark.parametrize(
    ("first", "clicked", "box"),
    [
        ("190,70", (200, 80), "190,70,200,80"),
        ("5,5", (5, 5), "5,5,6,6"),
        ("300,10", (20, 60), "20,10,200,61"),
        ("200,80", (200, 80), ""),
    ],
)
def test_a_clicked_box_stays_in_the_image(
    picture: str, first: str, clicked: tuple[int, int], box: str
) -> None:
    _, _, marked, message, *_ = callbacks().mark(click(*clicked), picture, "roc", "What is this?", first)
    assert marked == box
    assert box or "pixels of a 200x80 image" in words(message)


@pytest.mark.parametrize(
    ("wh", "shown_wh"), [((40, 20), (512, 256)), ((600, 300), (600, 300)), ((9, 4096), (2, 1024))]
)
def test_pictures_are_shown_at_a_bounded_size(wh: tuple[int, int], shown_wh: tuple[int, int]) -> None:
    image, boxes = demo.annotated(Image.new("RGB", wh), [("all", Box(0, 0, 1, 1))])
    assert image.size == shown_wh
    assert boxes == [((0, 0, *shown_wh), "all")]


# --- examples, page, command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Med-GRIT folder with a phantom of each modality."""
    rng, out = np.random.default_rng(0), tmp_path_factory.mktemp("demo") / "med-grit"
    wanted = dict.fromkeys(SINGLE_TASKS, 1)
    rows = [
        (write_dialogue(record, rng, wanted, 0), image_cell(image))
        for image, record in sample_phantoms("test", 1)
    ]
    publish({"test": rows}, out, "", shards=1)
    return out


def test_examples_are_the_datas_own_images_and_questions(data: Path) -> None:
    examples = read_examples(data)
    assert len(examples) == 8
    assert {example.caption for example in examples} >= {"ct, phantom", "x-ray, phantom"}
    for task in SINGLE_TASKS:
        rows = {row["messages"][0]["content"] for row in open_folder(data, task, "test")}
        shown = [example.questions[task] for example in examples]
        boxes = [
            Box.from_pixels([float(part) for part in box.split(",")], example.image.size) if box else None
            for (_, box), example in zip(shown, examples, strict=True)
        ]
        assert {tagged_question(text, box) for (text, _), box in zip(shown, boxes, strict=True)} == rows
        assert all(boxes) == (task in demo._REGION_TASKS)


def test_a_folder_without_data_or_checkpoint_is_named(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ValueError, match="nothing is not a Med-GRIT folder"):
        demo.run_demo(tmp_path, tmp_path / "nothing")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        demo.run_demo(tmp_path, data)


def test_a_page_reports_nothing_and_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Any] = []
    for call in ("version_check", "_do_analytics_request"):  # all that gradio sends goes through these
        monkeypatch.setattr(f"gradio.analytics.{call}", lambda *a, **k: reports.append((a, k)))
    page = build_page(callbacks())
    try:
        launch(page, "127.0.0.1", prevent_thread_lock=True, quiet=True)
        config = page.get_config_file()
        assert not page.share and not config["analytics_enabled"] and not config["run_history"]
        assert page.max_file_size == demo.MAX_UPLOAD_MB * 1024 * 1024
        notice = [
            each["props"]["value"]
            for each in config["components"]
            if each["props"].get("elem_id") == "notice"
        ]
        assert notice == ["For research only. Not for clinical use."]
        assert not any(stylesheet for stylesheet in config["stylesheets"] if "http" in stylesheet)
    finally:
        page.close()
    assert reports == []


def test_a_taken_port_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot be served on 127.0.0.1, port {port} .*another --port"):
            launch(build_page(callbacks()), "127.0.0.1", port, prevent_thread_lock=True)


# --- the Space -----------------------------------------------------------------------------------------------


def test_the_space_asks_for_what_the_package_needs() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = {*project["dependencies"], *extras["data"], *extras["space"]}
    lines = (ROOT / "space" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = {line for line in lines if not line.startswith("#")}
    assert listed == {each for each in needed if not each.startswith("gradio")}


def test_the_spaces_card_names_the_tested_gradio() -> None:
    card = yaml.safe_load((ROOT / "space" / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert card["sdk"] == "gradio"
    assert f"gradio=={card['sdk_version']}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert (ROOT / "space" / card["app_file"]).is_file()
    assert len(card["short_description"]) <= 60  # the hub refuses longer ones


@pytest.fixture
def own_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_files_of_uploads_are_readable_by_their_owner_only(own_umask, monkeypatch):
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    demo.keep_uploads_private()
    monkeypatch.setenv("GRADIO_TEMP_DIR", os.environ["GRADIO_TEMP_DIR"])  # removed after the test
    picture = gr.Image(format="png")
    cached = Path(picture.postprocess(np.zeros((9, 9, 3), np.uint8)).path)
    assert cached.is_relative_to(os.environ["GRADIO_TEMP_DIR"])
    assert cached.stat().st_mode & 0o777 == 0o600
    for folder in cached.relative_to(os.environ["GRADIO_TEMP_DIR"]).parents:
        assert Path(os.environ["GRADIO_TEMP_DIR"], folder).stat().st_mode & 0o777 == 0o700


def test_the_page_shows_remarks():
    answer = Answer.from_raw(
        "Here it is.", EXAMPLE.image, remarks=("the answer is about 'liver', not 'unicorn'",)
    )
    assert (
        "The answer is about &#x27;liver&#x27;, not &#x27;unicorn&#x27;."
        in demo.reply_of(answer, EXAMPLE.image).message
    )
