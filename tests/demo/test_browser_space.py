"""The Space in headless Chromium: `space/app.py` as the hub runs it."""

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

import numpy as np
import pytest
from PIL import Image

from .browser import PATIENCE_S, Page, browser

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[str]:
    """The address of a Space: a copy of the folder with the package beside it, and a phantom of each modality."""
    folder = tmp_path_factory.mktemp("space") / "app"
    shutil.copytree(ROOT / "space", folder)
    shutil.copytree(ROOT / "src" / "bird_hf", folder / "bird_hf", ignore=shutil.ignore_patterns("volumes"))
    shutil.copytree(data, folder / "med-grit")

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


@pytest.fixture(scope="module")
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
    """The Space."""
    with browser() as driver:
        driver.get(request.getfixturevalue("space"))
        page = Page(driver)
        page.until(lambda: page.all("#examples img"), "examples")
        yield page


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
