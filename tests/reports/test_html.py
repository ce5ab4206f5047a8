"""HTML pages: text stays text, nothing is loaded or run, and images are embedded."""

from __future__ import annotations

import base64
import io
import re

import pytest
from jinja2 import TemplateNotFound, UndefinedError
from PIL import Image

from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import Span
from bird_hf.reports.html import thumbnail_with_boxes, write_page

HOSTILE = """<script>alert("1")</script> & 'a' {{ 7 * 7 }} {% include "audit.html" %}"""


def test_text_stays_text(tmp_path):
    write_page(tmp_path / "page.html", "page.html", title=HOSTILE)
    page = (tmp_path / "page.html").read_text("utf-8")
    escaped = (
        "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt; &amp; &#39;a&#39; "
        "{{ 7 * 7 }} {% include &#34;audit.html&#34; %}"
    )
    assert f"<title>{escaped}</title>" in page and f"<h1>{escaped}</h1>" in page
    assert "<script" not in page


def test_a_page_may_load_nothing_and_run_nothing(tmp_path):
    write_page(tmp_path / "page.html", "page.html", title="a")
    page = (tmp_path / "page.html").read_text("utf-8")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_missing_variable_or_template_is_an_error_and_the_old_page_stays(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(UndefinedError):
        write_page(path, "page.html")
    with pytest.raises(TemplateNotFound):
        write_page(path, "../html.py", title="a")
    assert path.read_text() == "old"


@pytest.mark.parametrize("size", [(2000, 1000), (40, 80)])
def test_a_thumbnail_is_small_and_shows_the_boxes(size):
    image = Image.new("RGB", size)
    uri = thumbnail_with_boxes(image, [Span("a", 0, 1, (Box(0.25, 0.5, 0.75, 1.0),))], 200)
    kind, content = uri.split(",")
    drawn = Image.open(io.BytesIO(base64.b64decode(content))).convert("L")
    assert kind == "data:image/jpeg;base64" and max(drawn.size) == 200
    width, height = drawn.size
    assert max(drawn.getpixel((width // 4 + step, height * 3 // 4)) for step in range(-2, 4)) > 60
    assert drawn.getpixel((width // 2, height * 3 // 4)) < 20
    assert image.size == size
