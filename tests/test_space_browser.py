"""The Space in a real browser: `space/app.py` as the hub runs it, driven in headless Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.support.ui import WebDriverWait

from bird_hf.data.embedded.sample_set import sample_phantoms
from bird_hf.data.folder.publish import image_cell, publish
from bird_hf.data.records import SINGLE_TASKS
from bird_hf.data.teachers.templates import write_dialogue

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

    def message(self) -> str:
        return "".join(each.text for each in self.all("#message"))

    def upload(self, path: Path) -> None:
        self.all("#upload input[type=file]")[0].send_keys(str(path))

    def image_wh(self) -> tuple[int, int] | None:
        """The size of the image that is asked about, once it is loaded."""
        found = [(each.get_property("naturalWidth"), each.get_property("naturalHeight"))
                 for each in self.all("#picture img")]  # fmt: skip
        return found[0] if found and found[0][0] else None

    def click_image(self, x: float, y: float) -> None:
        """Click at a fraction of the image's width and height."""
        self.settle()
        image = self.all("#picture img")[0]
        wide, high = image.size["width"], image.size["height"]
        ActionChains(self.driver).move_to_element_with_offset(
            image, round((x - 0.5) * wide), round((y - 0.5) * high)
        ).click().perform()

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


@pytest.fixture(scope="module")
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
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
        driver.get(request.getfixturevalue("space"))
        page = Page(driver)
        page.until(lambda: page.all("#examples img"), "examples")
        yield page
    finally:
        driver.quit()


def test_an_example_is_asked_and_answered_with_boxes(page: Page) -> None:
    page.click("#examples button")
    page.until(page.image_wh, "the example's image")
    page.click("#ask")
    page.until(lambda: page.value("text"), "an answer")
    drawn = page.value("boxes").count(":")
    assert drawn >= 1
    page.until(lambda: len(page.all("#shown img.mask")) == drawn, "boxes on the image")
    (legend,) = {each.text for each in page.all("#shown .legend-item")}
    assert page.value("boxes").startswith(f"{legend}: ") and legend in page.value("text")


def test_the_notice_stays_in_view(page: Page) -> None:
    page.driver.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    (notice,) = page.all("#notice")
    box = page.driver.execute_script("return arguments[0].getBoundingClientRect().toJSON()", notice)
    page.driver.execute_script("window.scrollTo(0, 0)")
    assert "For research only" in notice.text and notice.is_displayed()
    assert 0 <= box["top"] < 50 and box["height"] > 10


def test_an_image_is_uploaded_and_a_region_clicked(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "mine.png"
    Image.fromarray(np.arange(80 * 120, dtype=np.uint16).reshape(80, 120)).save(path)
    page.upload(path)
    page.until(lambda: page.image_wh() == (120, 80), "the uploaded image")
    assert (page.value("text"), page.value("box")) == ("", "")
    page.click_image(0.75, 0.75)
    page.until(lambda: page.value("box").count(",") == 1, "a first corner")
    page.click_image(0.25, 0.5)
    page.until(lambda: page.value("box").count(",") == 3, "a box")
    assert np.allclose([float(part) for part in page.value("box").split(",")], [30, 40, 91, 61], atol=1)
    page.click("#ask")
    page.until(lambda: page.value("text"), "an answer")
    assert "your box" in {each.text for each in page.all("#shown .legend-item")}


def test_an_upload_that_is_no_image_is_said_in_one_line(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "no.png"
    path.write_text("a text file\n")
    page.upload(path)
    page.until(lambda: "is not a readable image; give a PNG" in page.message(), "the line")
    assert (page.value("text"), page.value("boxes"), page.all("#picture img")) == ("", "", [])
    assert page.all("#shown img") == []
    page.click("#ask")
    page.until(lambda: "there is no image; choose an example or upload one" in page.message(), "the line")
    assert "Traceback" not in page.driver.page_source


def test_the_page_loads_nothing_from_elsewhere(page: Page) -> None:
    loaded = page.driver.execute_script(
        "return performance.getEntriesByType('resource').map(each => each.name)"
    )
    here = page.driver.execute_script("return location.origin")
    assert len(loaded) > 10
    assert [name for name in loaded if not name.startswith((here, "data:", "blob:"))] == []
