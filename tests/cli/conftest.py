"""Fixtures for the tests of commands: `bird` in this process or its own, an image, a model with a fixed answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import bird_hf

ANSWER = "The <ref>left kidney</ref><box>(100,250),(500,1000)</box> is here. <box>(1,2)</box>"
WH = (200, 80)


@pytest.fixture
def bird(run_bird: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Runs the console script in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run_bird


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.new("L", WH, 90).save(path)
    return path


@pytest.fixture
def raw_answer() -> str:
    """The answer of the model of `asked`."""
    return ANSWER


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, raw_answer: str) -> list[Any]:
    """The queries that reach the model, which answers every one with `raw_answer`."""
    queries: list[Any] = []

    def sample(_self: Any, given: Sequence[Any], *_: Any) -> list[tuple[str, ...]]:
        queries.extend(given)
        return [(raw_answer,)] * len(given)

    monkeypatch.setattr("bird_hf.inference.GroundingModel.sample", sample)
    return queries


@pytest.fixture
def assert_refused() -> Callable[..., None]:
    """Checks for exit 2, nothing on stdout, and one line on stderr that holds all of `fragments`."""

    def check(ran: Any, *fragments: str) -> None:
        assert (ran.code, ran.out) == (2, ""), ran
        assert ran.err.startswith("bird: ")
        assert ran.err.count("\n") == 1 and ran.err.endswith("\n"), ran.err
        for fragment in fragments:
            assert fragment in ran.err

    return check


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python in a process of its own: `python("-m", "bird_hf.cli", ..., cwd=folder)`."""

    def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(Path(bird_hf.__file__).parents[1])},
            cwd=cwd,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    return run
