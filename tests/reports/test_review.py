"""The review page shows the text of turns as text. `bird data review` as a whole: tests/data/build/test_review.py."""

from __future__ import annotations

import pytest

pytest.importorskip("datasets")

from bird_hf.reports.html import write_page
from bird_hf.reports.review import Figure

HOSTILE = '</bdi></figcaption><img src=x onerror=alert(1)><script>alert("2")</script>'
PIXEL = "data:image/jpeg;base64,AA+/=="


def test_hostile_turns_stay_text(tmp_path):
    figures = [Figure(PIXEL, HOSTILE, HOSTILE, HOSTILE), Figure(None, "Where?", "There.", "a1b2 · vg · ct_1")]
    write_page(tmp_path / "page.html", "review.html", title="Replies", table="replies.csv", figures=figures)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "<script" not in page and "<img src=x" not in page
    assert page.count("&lt;script&gt;alert(&#34;2&#34;)&lt;/script&gt;") == 3
    assert page.count("<img ") == page.count(f'src="{PIXEL}"') == 1
    assert page.count("<figure>") == page.count("</figure>") == 2
    assert "<bdi>Where?</bdi><br><bdi>There.</bdi><br><small>a1b2 · vg · ct_1</small>" in page
    assert "Enter decisions in replies.csv" in page and "default-src 'none'" in page
