"""The demo's callbacks: what each event of the page changes, and the messages about wrong input."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bird_hf.data.records import SINGLE_TASKS
from bird_hf.demo.answers import no_answer
from bird_hf.demo.callbacks import Callbacks
from bird_hf.inference import GroundingModel

from .page_content import (
    EXAMPLE,
    NO_ANSWER,
    WH,
    boxes_of,
    callbacks,
    found_in,
    model_that_knows,
    plain,
    text_of,
    words,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def select(index: int) -> Any:
    """The event that gradio passes for a click on the n-th example."""
    return SimpleNamespace(index=index)


def drawn(box: str) -> Any:
    """The event that the picture sends if a box is drawn, or cleared."""
    return SimpleNamespace(box=box)


def test_an_answer_comes_in_words_in_pixels_and_on_the_image(asked: list[Any], stored: str) -> None:
    picture, message, answer = callbacks().ask(stored, None, "vg", " Where is the left kidney? ", "")
    assert (text_of(answer), boxes_of(answer), message) == (
        "The left kidney is here.",
        ["left kidney: 20,20,100,80"],
        "",
    )
    assert picture["image"]["path"] == stored
    assert (picture["width"], picture["height"], picture["asked"]) == (*WH, "")
    assert found_in(picture) == [([20, 20, 100, 80], "left kidney")]
    assert (asked[0].question, asked[0].image.size) == ("Where is the left kidney?", WH)


@pytest.mark.parametrize("task", ["roc", "rc"])
def test_a_region_is_asked_about_in_pixels_and_shown(asked: list[Any], stored: str, task: str) -> None:
    picture, _, _ = callbacks().ask(stored, None, task, "What is this?", " 20,8,100,80 ")
    assert asked[0].question == "What is <ref>this</ref><box>(100,100),(500,1000)</box>?"
    assert picture["asked"] == "20,8,100,80"
    assert [phrase for _, phrase in found_in(picture)] == ["left kidney"]


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
    asked: list[Any], stored: str, task: str, question: str, box: str, complaint: str
) -> None:
    picture, message, answer = callbacks().ask(stored, None, task, question, box)
    assert complaint in words(message)
    assert (answer, picture["outlines"], asked) == (no_answer().answer, [], [])


def test_without_an_image_it_asks_for_one(asked: list[Any]) -> None:
    picture, message, answer = callbacks().ask(None, None, "vg", "Where?", "")
    assert words(message).startswith("there is no image; choose")
    assert (picture, answer, asked) == (None, no_answer().answer, [])


def test_the_model_is_asked(tiny_model: Any, tiny_processor: Any, stored: str) -> None:
    asking = Callbacks(GroundingModel(tiny_model, tiny_processor), [])
    reply = asking.ask(stored, None, "roc", "What is this?", "1,1,99,70")
    assert reply == asking.ask(stored, None, "roc", "What is this?", "1,1,99,70")
    assert text_of(reply[2]) and boxes_of(reply[2])


@pytest.mark.parametrize(
    ("chosen", "task", "question", "box", "reference"),
    [
        (0, "vg", " Locate the tumor. ", "", [[0, 0, 100, 40]]),
        (0, "vg", "Where is the tumor?", "", []),
        (0, "vg", "Locate the tumor.", "1,2,3,4", []),
        (0, "mia", "Locate the tumor.", "", []),
        (None, "vg", "Locate the tumor.", "", []),
    ],
)
def test_the_reference_is_shown_for_an_examples_own_question(
    asked: list[Any],
    stored: str,
    chosen: int | None,
    task: str,
    question: str,
    box: str,
    reference: list[Any],
) -> None:
    picture, _, answer = callbacks().ask(stored, chosen, task, question, box)
    assert [mark["xyxy"] for mark in picture["outlines"] if mark["kind"] == "reference"] == reference
    assert ("A tumor." in plain(answer)) == bool(reference)
    assert len(found_in(picture)) == len(asked) == 1


def test_remarks_on_the_answer_are_shown(asked: list[Any], stored: str) -> None:
    page = Callbacks(model_that_knows("left kidney", "liver"), [])
    _, message, answer = page.ask(stored, None, "vg", "Where is the liver?", "")
    assert words(message) == "The answer is about &#x27;left kidney&#x27;, not &#x27;liver&#x27;."
    _, message, _ = page.ask(stored, None, "vg", "Where is the <b>unicorn</b>?", "")
    assert "<b>" not in message and "is not among the 2 names this model was trained on." in message
    assert text_of(answer) == "The left kidney is here."


def test_an_upload_is_read_and_the_last_answer_goes(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.arange(640, dtype=np.uint16).reshape(20, 32) * 100).save(path)
    file, chosen, box, image, *reply, upload = callbacks().receive(str(path))
    assert (file, chosen, box, tuple(reply)) == (None, None, "", NO_ANSWER)
    assert (upload.path, upload.shown.note) == (str(path), "")
    assert (image.mode, image.size) == ("RGB", (32, 20))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"a text file that is named .png", "not a readable image; give a PNG"),
        (b"", "not a readable image"),
        ((ROOT / "docs/pictures/coordinates.png").read_bytes()[:5000], "damaged or truncated"),
    ],
)
def test_what_is_no_image_is_said_in_one_line(content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "upload.png").write_bytes(content)
    *_, box, image, message, answer, upload = callbacks().receive(str(tmp_path / "upload.png"))
    assert upload is None
    assert complaint in words(message)
    assert (box, image, answer) == ("", None, no_answer().answer)
    assert callbacks().show(image, box) is None


def test_a_new_image_is_shown_with_the_box_of_the_question(stored: str) -> None:
    picture = callbacks().show(stored, "1,2,30,20")
    assert (picture["width"], picture["height"], picture["asked"]) == (*WH, "1,2,30,20")
    assert (picture["image"]["path"], picture["outlines"]) == (stored, [])


def test_an_example_brings_its_question() -> None:
    chosen, task, question, box, image, *reply, upload = callbacks().choose(select(0))
    assert (chosen, task, question, box, upload) == (0, "vg", "Locate the tumor.", "", None)
    assert image is EXAMPLE.image and tuple(reply) == NO_ANSWER


def test_a_task_brings_the_examples_question_or_its_own() -> None:
    page = callbacks()
    assert page.pick("roc", 0) == ("Name this structure.", "1,2,30,20")
    assert page.pick("mia", 0) == page.pick("mia", None) == ("Which imaging modality is this?", "")
    assert {page.pick(task.value, None)[1] for task in SINGLE_TASKS} == {""}


def test_a_drawn_box_is_asked_about(stored: str) -> None:
    page = callbacks()
    task, question, box, *reply = page.mark(drawn("20,10,151,61"), stored, "vg", "Where is the liver?")
    assert (task, question, box, tuple(reply)) == ("roc", "What is this?", "20,10,151,61", NO_ANSWER)
    task, question, box, *_ = page.mark(drawn("1,1,200,80"), stored, "rc", "Describe it.")
    assert (task, question, box) == ("rc", "Describe it.", "1,1,200,80")
    task, question, box, *reply = page.mark(drawn(""), stored, "vg", "Where is the liver?")
    assert (task, question, box, tuple(reply)) == ("vg", "Where is the liver?", "", NO_ANSWER)


@pytest.mark.parametrize("box", ["190,70,201,80", "5,5,5,6", "-1,0,4,4", "nan,0,4,4", "<b>", "1,2"])
def test_what_the_browser_sends_is_checked(stored: str, box: str) -> None:
    task, question, marked, message, _ = callbacks().mark(drawn(box), stored, "vg", "Where?")
    assert (task, question, marked) == ("vg", "Where?", "")
    assert words(message)
