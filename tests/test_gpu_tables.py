"""The tables of docs/train_on_gpus.md are those of the reports in docs/gpu."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "part", ["machine_line", "training_table", "inference_table", "compile_table", "parity_table"]
)
def test_the_page_shows_what_was_measured(load_script, part):
    tables = load_script(ROOT / "benchmarks" / "gpu_tables.py")
    page = " ".join((ROOT / "docs" / "train_on_gpus.md").read_text(encoding="utf-8").split())
    assert " ".join(getattr(tables, part)(tables.FOLDER).split()) in page
