"""What a page shows, read from its components; and an example image, and a model without weights."""

from __future__ import annotations

import base64
import html
import re
from types import SimpleNamespace
from typing import Any

from PIL import Image

from bird_hf.data.records import Task
from bird_hf.demo.answers import no_answer
from bird_hf.demo.callbacks import Callbacks
from bird_hf.demo.examples import ExampleImage, ExampleQuestion
from bird_hf.hub.grounding import read
from bird_hf.inference import GroundingModel

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


def model_that_knows(*names: str) -> GroundingModel:
    """A model without weights, for tests that replace `generate`."""
    return GroundingModel(None, SimpleNamespace(known_names=names), "bird")


def callbacks() -> Callbacks:
    return Callbacks(model_that_knows(), [EXAMPLE])
