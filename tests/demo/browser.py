"""Headless Chromium, and the demo's page in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver import Keys
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.interaction import POINTER_TOUCH
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE_S = 600  # on a busy machine; an idle one needs a fraction of it
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")


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
