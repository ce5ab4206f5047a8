"""Makes docs/pictures/demo.png: `python docs/make_demo_picture.py`.

Needs ./bird and ./med-grit, as `bird quickstart` leaves them, and Debian's chromium and chromium-driver.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from bird_hf.demo.callbacks import Callbacks
from bird_hf.demo.examples import read_examples
from bird_hf.demo.page import build_page, launch
from bird_hf.inference import load

PICTURE = Path(__file__).parent / "pictures" / "demo.png"
WINDOW_WH = (1280, 800)


def photograph(address: str) -> Image.Image:
    """A screenshot of the page with its first example asked and answered."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for switch in (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "hide-scrollbars",
    ):
        options.add_argument(f"--{switch}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        width, height = WINDOW_WH
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(address)
        for click, await_ in (("#examples button", "#picture img[src]"), ("#ask", "#picture .found")):
            for selector in (click, await_):
                WebDriverWait(driver, 60).until(
                    lambda d, s=selector: d.find_elements("css selector", s), selector
                )
                if selector == click:
                    driver.find_element("css selector", selector).click()
        return Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    finally:
        driver.quit()


def main() -> None:
    page = build_page(Callbacks(load("bird"), read_examples(Path("med-grit"))))
    launch(page, "127.0.0.1", prevent_thread_lock=True, quiet=True)
    try:
        photograph(page.local_url).quantize(256).save(PICTURE, optimize=True)
    finally:
        page.close()


if __name__ == "__main__":
    main()
