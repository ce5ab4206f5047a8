"""The page in a real browser, headless Chromium: `space/app.py` as the hub runs it, and a model with given answers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.interaction import POINTER_TOUCH
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.support.ui import WebDriverWait

from bird_hf.data.embedded.sample_set import sample_phantoms
from bird_hf.data.folder.publish import image_cell, publish
from bird_hf.data.records import SINGLE_TASKS, Task
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.demo.callbacks import Callbacks
from bird_hf.demo.examples import ExampleImage, ExampleQuestion
from bird_hf.demo.page import build_page, launch
from bird_hf.hub.grounding import read
from bird_hf.inference import GroundingModel

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PATIENCE_S = 600  # on a busy machine; an idle one needs a fraction of it
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Space: a copy of the folder with the package beside it, and a phantom of each modality."""
    folder = tmp_path_factory.mktemp("space") / "app"
    shutil.copytree(ROOT / "space", folder)
    shutil.copytree(ROOT / "src" / "bird_hf", folder / "bird_hf", ignore=shutil.ignore_patterns("volumes"))
    rng, wanted = np.random.default_rng(0), dict.fromkeys(SINGLE_TASKS, 1)
    phantoms = sample_phantoms("test", 1)
    rows = [(write_dialogue(record, rng, wanted, 0), image_cell(image)) for image, record in phantoms]
    publish({"test": rows}, folder / "med-grit", "", shards=1)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "GRADIO_SERVER_PORT": address.rsplit(":", 1)[1],
        "GRADIO_TEMP_DIR": str(folder / "cache"),
    }
    with (folder / "log").open("w+") as log:
        server = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            await_server(server, address, folder / "log")
            yield address
        finally:
            server.terminate()
            server.wait(30)


def await_server(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=10).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the Space did not start:\n{log.read_text()[-4000:]}")


class Page:
    """The page in the browser."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def click(self, selector: str) -> None:
        """Click the first match."""
        self.settle()
        self.all(selector)[0].click()

    def settle(self) -> None:
        """Wait until no component is covered by the overlay of a running callback."""
        self.until(lambda: not self.all("[data-testid=status-tracker]:not(.hide)"), "a page at rest")

    def value(self, part: str) -> str:
        """The content of a text field."""
        (field,) = self.all(f"#{part} textarea, #{part} input")
        return field.get_property("value")

    def type(self, part: str, text: str) -> None:
        """Replace the content of a text field."""
        (field,) = self.all(f"#{part} textarea, #{part} input")
        field.send_keys(Keys.CONTROL + "a")
        field.send_keys(text)

    def message(self) -> str:
        return "".join(each.text for each in self.all("#message"))

    def answer(self) -> str:
        """The words of the answer; "" if there is none."""
        return "".join(each.text for each in self.all("#answer .text"))

    def boxes(self) -> list[str]:
        return [each.text for each in self.all("#answer .boxes li")]

    def upload(self, path: Path) -> None:
        self.all("#upload input[type=file]")[0].send_keys(str(path))

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def image_wh(self) -> tuple[int, int] | None:
        """The size of the image that is asked about, once it is loaded."""
        wh = self.script(
            "const i = document.querySelector('#picture img'); return [i.naturalWidth, i.naturalHeight]"
        )
        return (wh[0], wh[1]) if wh[0] else None

    def rectangle(self, selector: str) -> dict[str, float]:
        """left, top, right, bottom, width and height of the only match, in the window."""
        (part,) = self.all(selector)
        return self.script("return arguments[0].getBoundingClientRect().toJSON()", part)

    def place(self, selector: str) -> list[float]:
        """The corners of the only match as fractions of the picture's width and height."""
        part, whole = self.rectangle(selector), self.rectangle("#picture img")
        return [
            (part[side] - whole[start]) / whole[size]
            for side, start, size in (
                ("left", "left", "width"),
                ("top", "top", "height"),
                ("right", "left", "width"),
                ("bottom", "top", "height"),
            )
        ]

    def point(self, x: float, y: float) -> tuple[int, int]:
        """Where a fraction of the image's width and height is in the window."""
        self.script("document.querySelector('#picture .view').scrollIntoView({block: 'center'})")
        image = self.rectangle("#picture img")
        return round(image["left"] + x * image["width"]), round(image["top"] + y * image["height"])

    def drag(self, *points: tuple[float, float], touch: bool = False) -> None:
        """Press at the first point, move over the others, release; fractions of the image. One point is a click."""
        self.settle()
        places = [self.point(*each) for each in points]
        kind = {"mouse": PointerInput(POINTER_TOUCH, "finger")} if touch else {}
        actions = ActionBuilder(self.driver, duration=20, **kind)
        pointer = actions.pointer_action
        pointer.move_to_location(*places[0])
        pointer.pointer_down()
        for place in places[1:]:
            pointer.move_to_location(*place)
        pointer.pointer_up()
        actions.perform()

    def keys(self, *keys: str) -> None:
        """Press keys on the picture."""
        self.settle()
        self.all("#picture .stage")[0].send_keys(*keys)

    def box_is(self, *expected: float) -> None:
        """Wait for a box in the box field, in pixels; a pixel off is allowed for the pointer's own rounding."""

        def seen() -> bool:
            numbers = [float(part) for part in self.value("box").split(",") if part]
            return len(numbers) == len(expected) and np.allclose(numbers, expected, atol=1)

        self.until(seen, f"the box {expected}, not {self.value('box')!r}")

    def resize(self, width: int, height: int) -> None:
        """Give the window this size inside."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.script("window.scrollTo(0, 0)")

    def until(self, condition: Any, what: str) -> None:
        WebDriverWait(self.driver, PATIENCE_S, 0.1).until(
            lambda _: condition(), f"{what}; {self.message()!r}"
        )


def why_no_browser() -> str:
    if CHROMIUM and CHROMEDRIVER:
        return ""
    return "THE TEST OF THE PAGE IN A BROWSER COULD NOT RUN: install Debian's chromium and chromium-driver"


def could_be_installed() -> bool:
    return shutil.which("apt-get") is not None and os.geteuid() == 0


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    if reason := why_no_browser():
        if os.environ.get("CI") and could_be_installed():
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    # A container's root has no sandbox, and its shared memory is too small; a browser calls home by itself.
    for switch in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu",
                   "disable-background-networking", "window-size=1280,1400"):  # fmt: skip
        options.add_argument(f"--{switch}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
    """The Space."""
    with browser() as driver:
        driver.get(request.getfixturevalue("space"))
        page = Page(driver)
        page.until(lambda: page.all("#examples img"), "examples")
        yield page


# --- the Space -------------------------------------------------------------------------------------------------


def test_an_example_is_asked_and_answered_with_boxes(page: Page) -> None:
    page.click("#examples button")
    page.until(page.image_wh, "the example's image")
    page.click("#ask")
    page.until(page.answer, "an answer")
    drawn = len(page.boxes())
    assert drawn >= 1
    page.until(lambda: len(page.all("#picture .found")) == drawn, "boxes on the image")
    (label,) = {each.text for each in page.all("#picture .found")}
    assert page.boxes()[0].startswith(f"{label}: ") and label in page.answer()


def test_the_notice_stays_in_view(page: Page) -> None:
    page.script("window.scrollTo(0, document.body.scrollHeight)")
    (notice,) = page.all("#notice")
    box = page.rectangle("#notice")
    page.script("window.scrollTo(0, 0)")
    assert "For research only" in notice.text and notice.is_displayed()
    assert 0 <= box["top"] < 50 and box["height"] > 10


def test_an_image_is_uploaded_and_a_region_clicked(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "mine.png"
    Image.fromarray(np.arange(80 * 120, dtype=np.uint16).reshape(80, 120)).save(path)
    page.upload(path)
    page.until(lambda: page.image_wh() == (120, 80), "the uploaded image")
    assert (page.answer(), page.value("box")) == ("", "")
    page.drag((0.75, 0.75))
    page.until(lambda: page.all("#picture .corner"), "a first corner")
    assert page.value("box") == ""
    page.drag((0.25, 0.5))
    page.box_is(30, 40, 91, 61)
    page.click("#ask")
    page.until(page.answer, "an answer")
    assert [each.text for each in page.all("#picture .asked")] == ["your box"]


def test_an_upload_that_is_no_image_is_said_in_one_line(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "no.png"
    path.write_text("a text file\n")
    page.upload(path)
    page.until(lambda: "is not a readable image; give a PNG" in page.message(), "the line")
    page.until(lambda: page.image_wh() is None, "no image")
    assert (page.answer(), page.boxes(), page.all("#picture .outline")) == ("", [], [])
    page.click("#ask")
    page.until(lambda: "there is no image; choose an example or upload one" in page.message(), "the line")
    assert "Traceback" not in page.driver.page_source


def test_the_page_loads_nothing_from_elsewhere(page: Page) -> None:
    loaded = page.script("return performance.getEntriesByType('resource').map(each => each.name)")
    here = page.script("return location.origin")
    assert len(loaded) > 10
    assert [name for name in loaded if not name.startswith((here, "data:", "blob:"))] == []


# --- the page with given answers -------------------------------------------------------------------------------

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

    def generate(self, queries: Sequence[Any], *_: Any, **__: Any) -> list[str]:
        return [self.raw] * len(queries)


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
