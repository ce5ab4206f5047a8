"""The audit page is a single file, and text from hostile rows stays text."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("datasets")

from bird_hf.data.folder.audit import Suspicion
from bird_hf.reports.audit import write_audit

from ..data.folder.audited_rows import chats, item, messages, write, write_dirty


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    return write_dirty(tmp_path / "med-grit")


class TestPage:
    def test_the_page_stands_alone_and_what_the_data_says_is_text(self, dirty, tmp_path):
        counts = write_audit(dirty, tmp_path / "audit.html")
        assert sum(counts.values()) == 5
        assert list(counts) == list(Suspicion)
        page = (tmp_path / "audit.html").read_text("utf-8")
        assert "&lt;script&gt;alert(&#34;1&#34;)" in page
        for markup in ("<script", "<i>", "onerror=alert(2)>", "http://", "https://", "/nowhere"):
            assert markup not in page
        assert (
            page.count('src="data:image/jpeg;base64,') == page.count("<img ") == 7
        )  # two findings with two images, three with one
        assert "default-src 'none'" in page

    def test_no_more_are_shown_than_asked_for_and_all_are_counted(self, tmp_path):
        rows = chats(range(3))
        for row in rows:
            row["objects"] = [item("body", 0.0, 0.0, 1.0, 1.0)]
            row["messages"] = messages("Yes.")
        folder = write(tmp_path / "med-grit", rows, chats(range(10, 11)))
        assert write_audit(folder, tmp_path / "audit.html", shown=2)[Suspicion.COVERS_ALL] == 3
        page = (tmp_path / "audit.html").read_text("utf-8")
        assert "covers all: 3, of which the first 2" in page
        assert page.count("<figure>") == 2

    @pytest.mark.parametrize("name", ["audit.txt", "nowhere/audit.html", "folder.html"])
    def test_a_place_that_cannot_be_written_is_refused_before_the_work(self, tmp_path, name):
        (tmp_path / "folder.html").mkdir()
        with pytest.raises(ValueError, match=r"give a name that ends in|give the name of a file"):
            write_audit(tmp_path, tmp_path / name)
