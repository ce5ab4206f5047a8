"""The card of the embedded checkpoint is what its tool renders, from the report of these very weights."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from bird_hf.eval.run_report import as_markdown
from bird_hf.eval.runs import weights_sha256

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("model_card", ROOT / "tools" / "model_card.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def report(tool):
    """Of the embedded weights, with one number."""
    row = {"metric": "Recall@0.5", "modalities": {"ct": {"score": 0.25, "n": 4}}, "mean": 0.25}
    row |= {"n_modalities": 1, "questions": 4, "malformed_rate": 0.0}
    about = {"model": "bird-nano", "data": "med-grit", "split": "test", "rules": "paper"}
    about["weights_sha256"] = weights_sha256(tool.CHECKPOINT)
    return about | {"sources": {"real": {"vg": row}}}


@pytest.fixture(scope="module")
def facts(tool):
    return yaml.safe_load(tool.FACTS.read_text(encoding="utf-8"))


def test_the_card_is_rendered_from_the_report_of_these_weights(tool, facts):
    report = json.loads(tool.REPORT.read_text(encoding="utf-8"))
    assert report["weights_sha256"] == weights_sha256(tool.CHECKPOINT), "run tools/model_card.py"
    card = (tool.CHECKPOINT / "README.md").read_text(encoding="utf-8")
    assert card == tool.render_card(tool.CHECKPOINT, report, facts), "run tools/model_card.py --render"


def test_a_cards_numbers_are_those_of_the_report(tool, report, facts):
    card = tool.render_card(tool.CHECKPOINT, report, facts)
    assert as_markdown(report, level=3) in card
    assert "| VG | Recall@0.5 | 25.00 (4) |" in card and report["weights_sha256"] in card


def test_a_card_begins_with_what_the_hub_reads_and_says_who_may_not_use_it(tool, report, facts):
    card = tool.render_card(tool.CHECKPOINT, report, facts)
    header = yaml.safe_load(card.split("---")[1])
    assert header["pipeline_tag"] == "image-text-to-text" and header["license"] == "apache-2.0"
    for text in ("never for clinical use", "2048 tokens", "may box things that are not there"):
        assert text in card
    assert "$" not in card  # no slot of the template is left


def test_a_report_of_other_weights_is_refused(tool, report, facts):
    with pytest.raises(ValueError, match=r"not of the weights in .*; run tools/model_card\.py"):
        tool.render_card(tool.CHECKPOINT, report | {"weights_sha256": "0" * 64}, facts)


def test_facts_hold_no_scores(tool, facts):
    """A number in the words would not change when the weights do."""
    template = tool.TEMPLATE.read_text(encoding="utf-8")
    assert "%" not in template + "".join(facts.values())
