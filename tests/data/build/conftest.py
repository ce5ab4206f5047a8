"""Sources and finished builds that several tests read; a test that writes gets a copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("datasets")

from bird_hf.data.build.pipeline import build
from bird_hf.data.phantoms.sa_med2d_folder import write_phantoms

from ..teachers.scripted_server import ChatServer
from .example_builds import COUNT, REVIEW_SETTINGS, SETTINGS, SIDE


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, one of them with an inverted mask and one twice under two names."""
    folder = tmp_path_factory.mktemp("build") / "source"
    write_phantoms(folder, COUNT, 0, SIDE)
    mask = min(folder.glob("masks/ct_00--*"))
    Image.fromarray(255 - np.asarray(Image.open(mask))).save(mask)
    for path in [*folder.glob("*/mr_*case000001*")]:
        shutil.copy(path, path.with_name(path.name.replace("case000001", "case000777")))
    return folder


@pytest.fixture(scope="session")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "med-grit"
    build(source, out, SETTINGS, workers=1)
    return out


@pytest.fixture(scope="session")
def review_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms per modality."""
    folder = tmp_path_factory.mktemp("review") / "source"
    write_phantoms(folder, 2, 0, 64)
    return folder


@pytest.fixture(scope="session")
def unreviewed(review_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build without a review."""
    out = tmp_path_factory.mktemp("unreviewed") / "out"
    build(review_source, out, REVIEW_SETTINGS, 1)
    return out


@pytest.fixture
def out(unreviewed: Path, tmp_path: Path) -> Path:
    """A copy of `unreviewed`."""
    return Path(shutil.copytree(unreviewed, tmp_path / "out"))


@pytest.fixture
def bird(run_bird: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """Runs `bird data ...`."""
    return partial(run_bird, "data")


@pytest.fixture
def chat_build(
    run_bird: Callable[..., tuple[int, str, str]], server: ChatServer, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs `bird data build --teacher openai ...` with the scripted server, from phantoms to `tmp_path`/out."""
    write_phantoms(tmp_path / "source", 1, 0, 64)
    given = ["data", "build", tmp_path / "source", "--out", tmp_path / "out"]
    chosen = ["--teacher", "openai", "--model", "scripted", "--base-url", server.url, "--workers", "1"]
    return partial(run_bird, *given, *chosen)
