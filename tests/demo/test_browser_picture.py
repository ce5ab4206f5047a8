"""The page in headless Chromium, with a model of given answers: boxes drawn and shown, zoom, layout, downloads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import ActionChains, Keys

from bird_hf.data.records import Task
from bird_hf.demo.callbacks import Callbacks
from bird_hf.demo.examples import ExampleImage, ExampleQuestion
from bird_hf.demo.page import build_page, launch
from bird_hf.hub.grounding import read
from bird_hf.inference import GroundingModel

from .browser import Page, browser

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror='window.hacked = 1'>${window.hacked = 1}{{value}}`"
TWO = (
    "The <ref>kidney</ref><box>(100,200),(300,600)</box> and <ref>liver</ref><box>(500,500),(900,900)</box>."
)
WH = (200, 100)


class ScriptedModel(GroundingModel):
    """Answers with `raw`."""

    raw = TWO

    def __init__(self) -> None:
        super().__init__(None, SimpleNamespace(known_names=()))

    def sample(self, queries: Sequence[Any], *_: Any, **__: Any) -> list[tuple[str, ...]]:
        return [(self.raw,)] * len(queries)


@pytest.fixture(scope="module")
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture(scope="module")
def scripted(model: ScriptedModel) -> Iterator[Page]:
    """The page with eight examples, whose reference is a tumor in the upper left quarter."""
    reference = read("A <ref>tumor</ref><box>(0,0),(500,500)</box>.")
    question = ExampleQuestion("Where is the tumor?", "", reference)
    image = Image.linear_gradient("L").resize(WH).convert("RGB")
    names = ("ct", "mr", "x-ray", "pet", "endoscopy", "dermoscopy", "fundus", "ultrasound")
    examples = [ExampleImage(f"{name}, phantom", image, {Task.VISUAL_GROUNDING: question}) for name in names]
    with browser() as driver:
        served = build_page(Callbacks(model, examples))
        launch(served, "127.0.0.1", prevent_thread_lock=True, quiet=True)
        try:
            driver.get(served.local_url)
            page = Page(driver)
            page.resize(1280, 800)
            page.until(lambda: len(page.all("#examples img")) == len(names), "examples")
            yield page
        finally:
            served.close()


@pytest.fixture
def example(scripted: Page, model: ScriptedModel) -> Page:
    """The page with an example chosen and nothing asked."""
    model.raw = TWO
    scripted.resize(1280, 800)
    scripted.click("#examples button")
    scripted.until(lambda: scripted.image_wh() == WH and not scripted.answer(), "the example's image")
    scripted.until(lambda: not scripted.all("#picture .outline"), "a picture without boxes")
    scripted.settle()
    return scripted


def ask(page: Page, boxes: int = 2) -> None:
    page.click("#ask")
    page.until(lambda: page.answer() and len(page.all("#picture .found")) == boxes, "an answer")
    page.settle()


def test_question_picture_and_answer_are_on_one_screen(example: Page) -> None:
    ask(example)
    for part in ("#notice", "#task", "#question", "#box", "#ask", "#picture .view", "#answer section"):
        seen = example.rectangle(part)
        assert 0 <= seen["left"] < seen["right"] <= 1280, part
        assert 0 <= seen["top"] < seen["bottom"] <= 800, part
    assert example.script("return document.documentElement.scrollHeight") <= 800
    assert example.rectangle("#picture img")["width"] > 450


@pytest.mark.parametrize("size", [(1280, 800), (360, 740)])
def test_all_examples_are_whole(example: Page, size: tuple[int, int]) -> None:
    example.resize(*size)
    whole = example.rectangle("#examples")
    inside = "const r = arguments[0].getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]"
    buttons = example.all("#examples button")
    assert len(buttons) == 8
    for button in buttons:
        left, top, right, bottom = example.script(inside, button)
        assert whole["left"] <= left < right <= whole["right"] <= size[0]
        assert whole["top"] <= top < bottom <= whole["bottom"] <= size[1]
    for caption in example.all("#examples .caption-label"):
        assert example.script("return arguments[0].scrollWidth <= arguments[0].clientWidth", caption)
    assert example.script("return document.documentElement.scrollWidth") <= size[0]


def test_the_reference_is_dashed_and_the_answer_is_not(example: Page) -> None:
    ask(example)
    style = "return getComputedStyle(document.querySelector(arguments[0])).borderTopStyle"
    assert example.script(style, "#picture .reference") == "dashed"
    assert example.script(style, "#picture .found") == "solid"
    assert np.allclose(example.place("#picture .reference"), [0, 0, 0.5, 0.5], atol=0.01)
    assert "A tumor." in example.all("#answer .reference")[0].text


def test_a_phrase_and_its_box_share_a_colour_and_light_each_other_up(example: Page) -> None:
    ask(example)
    colours = (
        "return [...document.querySelectorAll(arguments[0])].map(e => getComputedStyle(e)[arguments[1]])"
    )
    outlines = example.script(colours, "#picture .found", "borderTopColor")
    assert outlines == example.script(colours, "#answer mark", "backgroundColor")
    assert len(set(outlines)) == 2
    lit = "return [...document.querySelectorAll('.lit')].map(each => each.className.includes('found') || each.tagName)"
    ActionChains(example.driver).move_to_element(example.all("#answer mark")[1]).perform()
    example.until(lambda: example.script(lit) == [True, "MARK", "LI"], "the liver's box and line")
    assert example.all("#picture .found.lit span")[0].text == "liver"
    ActionChains(example.driver).move_to_element(example.all("#ask")[0]).perform()
    example.until(lambda: example.script(lit) == [], "nothing lit")
    example.script("document.querySelector('#picture .found').focus()")
    assert example.all("#answer mark.lit")[0].text == "kidney"


def test_a_box_is_drawn_moved_resized_and_cleared_with_the_mouse(example: Page) -> None:
    ask(example)
    example.drag((0.1, 0.2), (0.2, 0.3), (0.5, 0.7))
    example.box_is(20, 20, 101, 71)
    assert example.value("question") == "What is this?"
    example.until(lambda: not example.answer(), "the last answer is gone")
    assert example.all("#picture .found") == []
    example.drag((0.3, 0.5), (0.4, 0.6), (0.5, 0.6))
    example.box_is(60, 30, 141, 81)
    example.drag((0.705, 0.81), (0.8, 0.9))
    example.box_is(60, 30, 161, 91)
    example.drag((0.5, 0.5), (0.9, 0.99))
    example.box_is(99, 39, 200, 100)  # it stops at the edges
    ask(example)
    assert np.allclose(example.place("#picture .asked"), [0.495, 0.39, 1, 1], atol=0.02)
    example.click("[data-do=clear]")
    example.box_is()
    assert example.all("#picture .outline") == []


def test_a_box_is_drawn_with_a_finger(example: Page) -> None:
    example.drag((0.25, 0.2), (0.3, 0.4), (0.6, 0.8), touch=True)
    example.box_is(50, 20, 121, 81)


def test_a_box_is_drawn_moved_resized_and_cleared_with_the_keyboard(example: Page) -> None:
    example.keys(Keys.ENTER)
    example.box_is(50, 25, 150, 75)
    example.keys(Keys.ARROW_LEFT * 5 + Keys.ARROW_UP)
    example.box_is(40, 23, 140, 73)
    example.keys(Keys.SHIFT + Keys.ARROW_RIGHT * 5 + Keys.ARROW_DOWN)
    example.box_is(40, 23, 150, 75)
    example.keys(Keys.DELETE)
    example.box_is()
    assert example.all("#picture .asked") == []


def test_clicked_and_typed_boxes_stay_in_the_image(example: Page) -> None:
    example.drag((0.95, 0.7))
    example.drag((0.999, 0.999))
    example.box_is(190, 70, 200, 100)
    example.click("[data-do=clear]")
    example.box_is()
    for _ in range(2):
        example.drag((0.0275, 0.055))
        example.settle()
    example.box_is(5, 5, 6, 6)
    example.type("box", "100,50,200,100")
    example.until(
        lambda: np.allclose(example.place("#picture .asked"), [0.5, 0.5, 1, 1], atol=0.01), "the box"
    )
    example.type("box", "100,50,300,100")
    example.until(lambda: not example.all("#picture .asked"), "no box")


def test_zoom_keeps_the_boxes(example: Page) -> None:
    ask(example)
    places = {part: example.place(f"#picture .found[data-span='{part}']") for part in (0, 1)}
    assert np.allclose(places[0], [0.1, 0.2, 0.3, 0.6], atol=0.01)
    wide = example.rectangle("#picture img")["width"]
    for button in ("larger", "larger", "fit", "enlarge", "enlarge"):
        example.click(f"[data-do={button}]")
        for part, place in places.items():
            assert np.allclose(example.place(f"#picture .found[data-span='{part}']"), place, atol=0.01)
        if button == "larger":
            assert example.rectangle("#picture img")["width"] > wide * 1.4
        (notice,) = example.all("#notice")
        x, y = (
            sum(example.rectangle("#notice")[side] for side in ends) / 2
            for ends in (("left", "right"), ("top", "bottom"))
        )
        assert example.script(
            "return arguments[0].contains(document.elementFromPoint(...arguments[1]))", notice, [x, y]
        )
    assert np.isclose(example.rectangle("#picture img")["width"], wide)


def test_a_box_is_drawn_and_the_picture_moved_at_any_zoom(example: Page) -> None:
    example.click("[data-do=larger]")
    example.drag((0.4, 0.4), (0.5, 0.5), (0.6, 0.6))
    example.box_is(80, 40, 121, 61)
    example.click("[data-do=pan]")
    before = example.rectangle("#picture img")["left"]
    example.drag((0.5, 0.5), (0.45, 0.5), (0.4, 0.5))
    assert example.rectangle("#picture img")["left"] < before - 20
    example.box_is(80, 40, 121, 61)  # what the pointer moved is the picture, not the box
    example.click("[data-do=pan]")
    example.click("[data-do=fit]")


def test_text_never_becomes_markup(example: Page, model: ScriptedModel) -> None:
    model.raw = f"<ref>{HOSTILE}</ref><box>(0,0),(500,500)</box>"
    example.type("question", HOSTILE)
    ask(example, 1)
    assert example.script("return document.querySelector('#picture .found span').textContent") == HOSTILE
    assert HOSTILE in example.script("return document.querySelector('#answer .text').textContent")
    assert example.script("return window.hacked") is None
    assert example.all("#answer img, #message img, #picture .marks img") == []


def test_the_answer_is_put_into_a_region_that_screen_readers_watch(example: Page) -> None:
    example.script("window.live = document.querySelector('#answer [aria-live=polite]')")
    ask(example)
    assert example.script("return window.live.isConnected && window.live.getAttribute('role')") == "status"
    assert "The kidney and liver." in example.script("return window.live.textContent")
    example.drag((0.1, 0.2), (0.2, 0.3), (0.5, 0.7))
    spoken = "return document.querySelector('#picture [role=status]').textContent"
    example.until(lambda: example.script(spoken) == f"Your box: {example.value('box')}", "the box in words")


def test_an_answer_is_saved_as_png_json_and_coco(example: Page, tmp_path: Path) -> None:
    saved = {"behavior": "allow", "downloadPath": str(tmp_path)}
    example.driver.execute_cdp_cmd("Browser.setDownloadBehavior", saved)
    ask(example)
    for link in example.all("#answer .downloads a"):
        link.click()
    names = {"answer.png", "answer.json", "answer.coco.json"}
    example.until(lambda: {each.name for each in tmp_path.iterdir()} == names, "three files")
    assert Image.open(tmp_path / "answer.png").size == (512, 256)
    assert json.loads((tmp_path / "answer.json").read_text())["raw"] == TWO
    bbox = [each["bbox"] for each in json.loads((tmp_path / "answer.coco.json").read_text())["annotations"]]
    assert np.allclose(bbox, [[20, 20, 40, 40], [100, 50, 80, 40]])
    assert example.all("#answer .raw code")[0].get_property("textContent") == TWO


def test_each_question_stands_alone_says_the_page(scripted: Page) -> None:
    assert "Each question stands alone" in scripted.all("#introduction")[0].text


def test_a_slice_of_a_volume_is_chosen_and_asked_about(
    example: Page, model: ScriptedModel, tmp_path: Path
) -> None:
    voxels = np.random.default_rng(0).integers(0, 500, (40, 30, 20)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "scan.nii.gz")

    def shown(note: str) -> bool:
        return any(note in each.text for each in example.all("#shown"))

    example.upload(tmp_path / "scan.nii.gz")
    example.until(lambda: example.image_wh() == (40, 30), "the middle axial slice")
    example.until(
        lambda: "axial slice 10 of 0 to 19" in "".join(each.text for each in example.all("#shown")),
        "its note",
    )
    example.settle()
    (coronal,) = example.all("#plane input[value=coronal]")
    coronal.click()
    example.until(lambda: example.image_wh() == (40, 20), "the middle coronal slice")
    example.until(lambda: shown("coronal slice 15 of 0 to 29"), "its note")
    example.settle()
    (number,) = example.all("#number input[type=number]")
    number.send_keys(Keys.CONTROL + "a")
    number.send_keys("3" + Keys.ENTER + Keys.TAB)
    example.until(
        lambda: "coronal slice 3 of 0 to 29" in example.all("#shown")[0].text, "the note of slice 3"
    )
    ask(example)
    example.click("#examples button")
    example.until(lambda: example.image_wh() == WH, "an example")
    example.until(
        lambda: not any(each.is_displayed() for each in example.all("#number, #plane, #shown")), "no slice"
    )
