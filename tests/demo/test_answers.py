"""How the demo shows an answer: words, boxes, colours, remarks and files to download."""

from __future__ import annotations

import html
import io
import json
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bird_hf.data.records import Task
from bird_hf.demo.answers import no_answer, outlines, reply_of
from bird_hf.demo.callbacks import Callbacks
from bird_hf.demo.examples import ExampleImage, ExampleQuestion
from bird_hf.draw import MODEL_COLOURS, draw_spans
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import Span, read
from bird_hf.inference import Answer, GroundingModel
from bird_hf.questions import tagged_question

from .page_content import (
    EXAMPLE,
    KIDNEY,
    WH,
    boxes_of,
    callbacks,
    downloads_of,
    found_in,
    model_that_knows,
    text_of,
    words,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("raw", "text", "boxes", "message"),
    [
        ("There is no liver.", "There is no liver.", ["No box in this answer."], ""),
        ("", "(The model gave no words.)", ["No box in this answer."], ""),
        (
            "<box>(0,0),(500,500)</box>",
            "(The model gave no words.)",
            ["(no phrase): 0,0,100,40"],
            "orphan_box",
        ),
        ("A <box>(1,2)</box>", "A", ["No box in this answer."], "not_four_numbers"),
        (
            "<ref>a</ref><box>(0,0),(500,500)</box><box>(0,0),(1000,500)</box>",
            "a",
            ["a: 0,0,100,40", "a: 0,0,200,40"],
            "",
        ),
    ],
)
def test_what_an_answer_lacks_is_said(
    monkeypatch: pytest.MonkeyPatch, stored: str, raw: str, text: str, boxes: list[str], message: str
) -> None:
    monkeypatch.setattr(GroundingModel, "sample", lambda *_: [(raw,)])
    picture, said, answer = callbacks().ask(stored, None, "vg", "Where?", "")
    assert (text_of(answer), boxes_of(answer)) == (text, boxes)
    assert len(found_in(picture)) == raw.count("</box>") - raw.count("(1,2)")
    assert html.escape(raw, quote=False) in answer
    if message:
        assert words(said) == f"Malformed answer: {message}."
    else:
        assert said == ""


@pytest.mark.parametrize("box", [None, Box(0, 0, 0.5, 1)])
def test_a_phrase_and_its_boxes_share_number_and_colour_with_the_drawing(box: Box | None) -> None:
    image = Image.new("RGB", (600, 300))
    answer = Answer.from_raw(
        "<ref>a</ref><box>(0,0),(500,500)</box><box>(0,0),(900,900)</box> "
        "and <ref>b</ref><box>(600,600),(700,700)</box>",
        image,
        question=read(tagged_question("What is this?", box)),
    )
    marks = {(mark["number"], mark["colour"], mark["phrase"]) for mark in outlines(answer, image.size)}
    first = 0 if box is None else 1
    expected = {(first + n, MODEL_COLOURS[first + n], phrase) for n, phrase in enumerate("ab")}
    page = reply_of(answer, image).answer
    phrases = re.findall(r'<mark tabindex="0" data-span="(\d)" style="--colour: (#\w+)">(\w)</mark>', page)
    assert marks == {(int(number), colour, phrase) for number, colour, phrase in phrases} == expected
    drawing = Image.open(io.BytesIO(downloads_of(page)["answer.png"]))
    own = [Span("this?", 0, 0, (box,))] if box else []
    assert np.array_equal(np.asarray(drawing), np.asarray(draw_spans(image, [*own, *answer.spans])))


def test_text_never_becomes_markup(monkeypatch: pytest.MonkeyPatch, stored: str) -> None:
    hostile = "<img src=x onerror=alert(1)> ${alert(2)} {{value}} `"
    raw = f"<ref>{hostile}</ref><box>(0,0),(500,500)</box>"
    monkeypatch.setattr(GroundingModel, "sample", lambda *_: [(raw,)])
    example = ExampleImage(
        "ct", EXAMPLE.image, {Task.VISUAL_GROUNDING: ExampleQuestion(hostile, "", read(hostile))}
    )
    page = Callbacks(model_that_knows(), [example])
    picture, _, answer = page.ask(stored, 0, "vg", hostile, "")
    assert "<img" not in answer and answer.count("&lt;img src=x") == 4  # text, list, reference, raw
    assert [phrase for _, phrase in found_in(picture)] == [hostile]  # set as text by the browser


def test_an_answer_is_downloaded_as_png_json_and_coco(asked: list[Any], stored: str) -> None:
    _, _, page = callbacks().ask(stored, None, "roc", "What is this?", "20,8,100,80")
    files = downloads_of(page)
    assert list(files) == ["answer.png", "answer.json", "answer.coco.json"]
    document = json.loads(files["answer.json"])
    question = read("What is <ref>this</ref><box>(100,100),(500,1000)</box>?")
    answer = Answer.from_raw(KIDNEY, Image.new("RGB", WH), question=question, model="bird")
    assert document == json.loads(json.dumps(answer.to_json()))
    assert (document["question"], document["question_boxes_px"]) == ("What is this?", [[20, 8, 100, 80]])
    coco = json.loads(files["answer.coco.json"])
    assert coco["images"] == [{"id": 1, "file_name": "image.png", "width": 200, "height": 80}]
    assert coco["categories"] == [{"id": 1, "name": "left kidney"}]
    (annotation,) = coco["annotations"]
    assert (annotation["bbox"], annotation["area"], annotation["category_id"]) == ([20, 20, 80, 60], 4800, 1)


@pytest.mark.parametrize(
    ("wh", "drawn_wh"), [((40, 20), (512, 256)), ((600, 300), (600, 300)), ((9, 4096), (2, 1024))]
)
def test_pictures_are_drawn_at_a_bounded_size(wh: tuple[int, int], drawn_wh: tuple[int, int]) -> None:
    image = Image.new("RGB", wh)
    answer = Answer.from_raw("<ref>all</ref><box>(0,0),(1000,1000)</box>", image)
    page = reply_of(answer, image).answer
    assert Image.open(io.BytesIO(downloads_of(page)["answer.png"])).size == drawn_wh


def test_a_screen_reader_is_told_of_answers_and_messages() -> None:
    image = EXAMPLE.image
    for page in (no_answer().answer, reply_of(Answer("a", "a", image=image), image).answer):
        assert page.count('role="status" aria-live="polite"') == 1
    assert 'role="alert"' in no_answer("wrong").message


def test_the_page_shows_remarks():
    answer = Answer.from_raw(
        "Here it is.", EXAMPLE.image, remarks=("the answer is about 'liver', not 'unicorn'",)
    )
    assert (
        "The answer is about &#x27;liver&#x27;, not &#x27;unicorn&#x27;."
        in reply_of(answer, EXAMPLE.image).message
    )
