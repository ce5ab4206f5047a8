"""The demo's callbacks: what each component of the page shows, and its error messages."""

from __future__ import annotations

import base64
import html
import io
import json
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

from bird_hf.data.embedded.sample_set import sample_phantoms
from bird_hf.data.folder.publish import image_cell, open_folder, publish
from bird_hf.data.records import SINGLE_TASKS, Task
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.demo import page as demo
from bird_hf.demo.answers import no_answer, outlines, reply_of
from bird_hf.demo.callbacks import REGION_TASKS, Callbacks
from bird_hf.demo.examples import ExampleImage, ExampleQuestion, read_examples
from bird_hf.demo.page import build_page, launch
from bird_hf.draw import MODEL_COLOURS, draw_spans
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import Span, read
from bird_hf.inference import Answer, GroundingModel, tagged_question

ROOT = Path(__file__).parents[1]
WH = (200, 80)
KIDNEY = "The <ref>left kidney</ref><box>(100,250),(500,1000)</box> is here."
TUMOR = read("A <ref>tumor</ref><box>(0,0),(500,500)</box>.")
EXAMPLE = ExampleImage(
    "ct, phantom",
    Image.new("RGB", (40, 30)),
    {
        Task.VISUAL_GROUNDING: ExampleQuestion("Locate the tumor.", "", TUMOR),
        Task.REFERRING_CLASSIFICATION: ExampleQuestion("Name this structure.", "1,2,30,20", read("A tumor.")),
    },
)
NO_ANSWER = tuple(no_answer())


def select(index: int) -> Any:
    """The event that gradio passes for a click on the n-th example."""
    return SimpleNamespace(index=index)


def drawn(box: str) -> Any:
    """The event that the picture sends if a box is drawn, or cleared."""
    return SimpleNamespace(box=box)


def words(message: str) -> str:
    """The text of a message, which must be one line."""
    found = re.fullmatch(r'<div role="alert">([^<>\n]+)</div>', message)
    assert found, message
    return found[1]


def plain(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", markup)).strip()


def text_of(answer: str) -> str:
    """The answer's words on the page."""
    return "".join(plain(each) for each in re.findall(r'<p class="text">(.*?)</p>', answer, re.DOTALL))


def boxes_of(answer: str) -> list[str]:
    """The answer's boxes on the page; a sentence if it says that there is none."""
    listed = re.findall(r"<li [^>]*>(.*?)</li>|<p class=\"none\">(.*?)</p>", answer)
    return [plain(first or second) for first, second in listed]


def downloads_of(answer: str) -> dict[str, bytes]:
    files = re.findall(r'<a download="([^"]*)" href="data:[\w/]*;base64,([^"]*)">', answer)
    return {name: base64.b64decode(content) for name, content in files}


def found_in(picture: Any) -> list[tuple[list[float], str]]:
    return [(mark["xyxy"], mark["phrase"]) for mark in picture["outlines"] if mark["kind"] == "found"]


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
def stored(tmp_path: Path) -> str:
    path = tmp_path / "picture.png"
    Image.new("L", WH, 90).save(path)
    return str(path)


def model_that_knows(*names: str) -> GroundingModel:
    """A model without weights, for tests that replace `generate`."""
    return GroundingModel(None, SimpleNamespace(known_names=names), "bird")


def callbacks() -> Callbacks:
    return Callbacks(model_that_knows(), [EXAMPLE])


# --- asking --------------------------------------------------------------------------------------------------


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
    monkeypatch.setattr(GroundingModel, "generate", lambda *_: [raw])
    picture, said, answer = callbacks().ask(stored, None, "vg", "Where?", "")
    assert (text_of(answer), boxes_of(answer)) == (text, boxes)
    assert len(found_in(picture)) == raw.count("</box>") - raw.count("(1,2)")
    assert html.escape(raw, quote=False) in answer
    if message:
        assert words(said) == f"Malformed answer: {message}."
    else:
        assert said == ""


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


# --- how an answer is shown ----------------------------------------------------------------------------------


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


def test_remarks_on_the_answer_are_shown(asked: list[Any], stored: str) -> None:
    page = Callbacks(model_that_knows("left kidney", "liver"), [])
    _, message, answer = page.ask(stored, None, "vg", "Where is the liver?", "")
    assert words(message) == "The answer is about &#x27;left kidney&#x27;, not &#x27;liver&#x27;."
    _, message, _ = page.ask(stored, None, "vg", "Where is the <b>unicorn</b>?", "")
    assert "<b>" not in message and "is not among the 2 names this model was trained on." in message
    assert text_of(answer) == "The left kidney is here."


@pytest.mark.parametrize("names", [(), ("left kidney", "<b>liver")])
def test_the_page_lists_the_names_that_the_model_knows(names: tuple[str, ...]) -> None:
    config = build_page(Callbacks(model_that_knows(*names), [])).get_config_file()
    values = [
        each["props"].get("value") for each in config["components"] if each["props"].get("elem_id") == "names"
    ]
    assert len(values) == bool(names)
    for value in values:
        assert (
            "The 2 names that this model was trained on" in value and "left kidney, &lt;b&gt;liver" in value
        )


def test_text_never_becomes_markup(monkeypatch: pytest.MonkeyPatch, stored: str) -> None:
    hostile = "<img src=x onerror=alert(1)> ${alert(2)} {{value}} `"
    raw = f"<ref>{hostile}</ref><box>(0,0),(500,500)</box>"
    monkeypatch.setattr(GroundingModel, "generate", lambda *_: [raw])
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


# --- images and boxes ----------------------------------------------------------------------------------------


def test_an_upload_is_read_and_the_last_answer_goes(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.arange(640, dtype=np.uint16).reshape(20, 32) * 100).save(path)
    upload, chosen, box, image, *reply = callbacks().receive(path.read_bytes())
    assert (upload, chosen, box, tuple(reply)) == (None, None, "", NO_ANSWER)
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
    *_, box, image, message, answer = callbacks().receive(content)
    assert complaint in words(message)
    assert (box, image, answer) == ("", None, no_answer().answer)
    assert callbacks().show(image, box) is None


def test_a_new_image_is_shown_with_the_box_of_the_question(stored: str) -> None:
    picture = callbacks().show(stored, "1,2,30,20")
    assert (picture["width"], picture["height"], picture["asked"]) == (*WH, "1,2,30,20")
    assert (picture["image"]["path"], picture["outlines"]) == (stored, [])


def test_an_example_brings_its_question() -> None:
    chosen, task, question, box, image, *reply = callbacks().choose(select(0))
    assert (chosen, task, question, box) == (0, "vg", "Locate the tumor.", "")
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


@pytest.mark.slow
def test_examples_are_the_datas_own_images_and_questions(data: Path) -> None:
    examples = read_examples(data)
    assert len(examples) == 8
    assert {example.caption for example in examples} >= {"ct, phantom", "x-ray, phantom"}
    for task in SINGLE_TASKS:
        rows = {row["messages"][0]["content"] for row in open_folder(data, task, "test")}
        shown = [example.questions[task] for example in examples]
        boxes = [
            Box.from_pixels([float(part) for part in box.split(",")], example.image.size) if box else None
            for (_, box, _), example in zip(shown, examples, strict=True)
        ]
        assert {tagged_question(text, box) for (text, _, _), box in zip(shown, boxes, strict=True)} == rows
        assert all(boxes) == (task in REGION_TASKS)


def test_a_folder_without_data_or_checkpoint_is_named(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ValueError, match="nothing is not a Med-GRIT folder"):
        demo.run_demo(tmp_path, tmp_path / "nothing")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        demo.run_demo(tmp_path, data)


@pytest.mark.slow
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
