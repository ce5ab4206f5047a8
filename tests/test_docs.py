"""The pages of docs/ run as they stand: every block of Python and shell, in order, in one folder a page."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from bird_hf.data.embedded.sample_set import sample_dialogues
from bird_hf.data.folder.publish import publish
from bird_hf.sample import install_checkpoint

ROOT = Path(__file__).parents[1]
PAGES = ("load", "convert", "fine_tune")
_BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str, int]]:
    """Language, text and first line of each block."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return [(found[1], found[2], text.count("\n", 0, found.start(2)) + 1) for found in _BLOCK.finditer(text)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to run a page in, with `bird` on the path as an installation puts it there."""
    programs = tmp_path / "programs"
    programs.mkdir()
    bird = programs / "bird"
    bird.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bird_hf.cli "$@"\n')
    bird.chmod(0o755)
    place = tmp_path / "page"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    environment = dict(os.environ)
    yield place
    os.environ.clear()  # training arguments set some variables
    os.environ.update(environment)


def run(page: str) -> dict:
    """Run a page's blocks in the working directory; returns the names that its Python has made."""
    names: dict = {"__name__": "__main__"}
    for language, text, line in blocks(page):
        if language == "bash":
            ran = subprocess.run(["bash", "-euo", "pipefail", "-c", text], capture_output=True, text=True)
            assert ran.returncode == 0, f"docs/{page}.md, line {line}: {ran.stderr[-2000:]}"
        else:
            # Empty lines in front make a traceback show the line of the page.
            exec(compile("\n" * (line - 1) + text, f"docs/{page}.md", "exec"), names)
    return names


def test_loading(folder):
    install_checkpoint(folder / "bird")
    _, cell = next(sample_dialogues("test"))
    (folder / "scan.png").write_bytes(cell["bytes"])
    names = run("load")
    assert len(names["answers"]) == 3 and names["grounded"].text and not names["grounded"].issues
    assert (names["grounded"].spans[0].boxes_px[0][2] > 1) and names["output"].shape[1] > names["read"]


def test_converting(folder):
    shutil.copytree(ROOT / "tests" / "golden" / "qwen_vl_tiny", folder / "Qwen-VL-Chat")
    assert run("convert")["model"].config.num_queries == 256


def test_fine_tuning(folder):
    install_checkpoint(folder / "bird")
    publish({"train": islice(sample_dialogues("train"), 4)}, folder / "med-grit", "# Four\n")
    names = run("fine_tune")
    losses = [entry["loss"] for entry in names["trainer"].state.log_history if "loss" in entry]
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert (folder / "mine" / "final" / "model.safetensors").is_file()
    assert "Nothing was measured" in (folder / "to-publish" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_exists(page):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target
    for name in re.findall(r"`((?:tests|benchmarks|recipes)/[\w./]+)`", text):
        assert (ROOT / name).exists(), name
