"""Progress is a bar in a terminal, and lines in a file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bird_hf
from bird_hf.progress import progress_bar

OTHERS = """
from bird_hf.progress import silence_bars_in_files
silence_bars_in_files()
from datasets import Dataset
from tqdm import tqdm
list(tqdm(range(3)))
Dataset.from_list([{"a": 1}]).map(lambda row: row)
"""


class Terminal:
    """A stderr that is a terminal, and keeps what is written."""

    def __init__(self):
        self.written = ""

    def write(self, text):
        self.written += text

    def flush(self):
        pass

    def isatty(self):
        return True


def test_in_a_file_progress_is_whole_lines(capfd):
    for _ in progress_bar(range(1000), desc="reading", unit="image"):
        pass
    written = capfd.readouterr().err
    assert "\r" not in written and written.endswith("\n")
    first, last = written.splitlines()
    assert first.startswith("reading:   0%") and "0/1000" in first
    assert last.startswith("reading: 100%") and "1000/1000" in last


def test_in_a_file_a_line_is_written_after_each_interval(capfd, monkeypatch):
    monkeypatch.setattr("bird_hf.progress._SECONDS_PER_LINE", 0.01)
    for _ in progress_bar(range(8), desc="reading"):
        time.sleep(0.02)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) >= 4 and len(set(lines)) == len(lines)
    assert all(line.startswith("reading:") for line in lines)


def test_in_a_terminal_progress_is_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for _ in progress_bar(range(3), desc="reading"):
        pass
    assert "\rreading:" in terminal.written


def test_progress_may_be_turned_off(capfd):
    for _ in progress_bar(range(3), disable=True):
        pass
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_the_bars_of_libraries_are_not_written_into_files(tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if "PROGRESS_BARS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", OTHERS],
        env=environment | {"PYTHONPATH": str(Path(bird_hf.__file__).parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
