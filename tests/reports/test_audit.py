"""The audit page is a single file, and text from hostile rows stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("datasets")

from bird_hf.data.folder.audit import Suspicion
from bird_hf.data.folder.publish import image_cell, rows_of
from bird_hf.data.folder.shards import write_shards
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import SINGLE_TASKS, Modality, Task
from bird_hf.data.teachers.templates import write_dialogue
from bird_hf.reports.audit import write_audit


def item(label: str, *box: float, present: bool = True) -> dict[str, Any]:
    return {"instance_id": label, "label": label, "box": list(box) or None, "area": 0.1, "present": present}


def messages(answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": answer}]


def chats(seeds: range) -> list[dict[str, Any]]:
    rows = []
    for seed in seeds:
        image = draw_phantom([Modality.CT, Modality.ULTRASOUND][seed % 2], seed, 96)
        dialogue = write_dialogue(
            record_of(image, 0.003), np.random.default_rng(seed), dict.fromkeys(SINGLE_TASKS, 1), absent=0
        )
        rows += rows_of(dialogue, image_cell(image))[Task.CHAT]
    return rows


def write(folder: Path, train: list[dict[str, Any]], test: list[dict[str, Any]]) -> Path:
    write_shards(train, folder / "data" / "chat", "train", 1)
    write_shards(test, folder / "data" / "chat", "test", 1)
    return folder


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    """A folder with five findings; the second test row is hostile."""
    train, test = chats(range(3)), chats(range(10, 13))
    test[1] = test[1] | {name: train[0][name] for name in ("image", "image_wh", "case_id")}
    test[1]["image_id"] = '<script>alert("1")</script>'
    test[1]["objects"] = [item("</figure><img src=x onerror=alert(2)>", 0.0, 0.0, 1.0, 1.0)]
    test[1]["messages"] = messages("<ref><i>bold</i></ref><box>(1,2),(3,4)</box>")
    test[2]["image"] = {"bytes": b"no picture", "path": "/nowhere/ct_3.png"}
    return write(tmp_path / "med-grit", train, test)


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
