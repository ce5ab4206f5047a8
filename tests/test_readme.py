"""What the README says of the embedded checkpoint is what the kept command printed, and its files exist."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from bird_hf.eval.run import weights_sha256
from bird_hf.sample import embedded_checkpoint

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def benchmark(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_the_scores_are_those_of_the_report():
    report = json.loads((ROOT / "docs" / "nano_scores.json").read_text(encoding="utf-8"))
    assert benchmark("nano_scores").table(report) in README


def test_the_report_is_of_the_embedded_checkpoint():
    report = json.loads((ROOT / "docs" / "nano_scores.json").read_text(encoding="utf-8"))
    assert report["weights_sha256"] == weights_sha256(embedded_checkpoint())


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_what_the_readme_links_to_exists(target):
    assert (ROOT / target).exists()
