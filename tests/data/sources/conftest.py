"""Phantoms in SA-Med2D's layout, written once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from bird_hf.data.phantoms.sa_med2d_folder import write_phantoms

from .example_sources import SIDE


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("source") / "phantoms"
    write_phantoms(out, 2, 0, SIDE)
    return out
