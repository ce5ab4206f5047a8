"""A card says what the configuration, the origin and a report of these very weights say, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from bird_hf.checkpoint.model_card import known_origins, read_origin, render_card, write_card
from bird_hf.eval.run import weights_sha256
from bird_hf.eval.tables import as_markdown, results_of
from bird_hf.hub.configuration_bird import BirdConfig
from bird_hf.sample import embedded_checkpoint

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "docs" / "nano_report.json"
CARDS = ROOT / "model_card"


@pytest.fixture
def config():
    return BirdConfig.from_pretrained(embedded_checkpoint())


@pytest.fixture
def report() -> dict:
    """Of the embedded weights, with one number."""
    row = {"metric": "Recall@0.5", "modalities": {"ct": {"score": 0.25, "n": 4}}, "mean": 0.25}
    row |= {"n_modalities": 1, "questions": 4, "malformed_rate": 0.0}
    about = {"model": "bird-nano", "data": "med-grit", "split": "test", "rules": "paper"}
    about["weights_sha256"] = weights_sha256(embedded_checkpoint())
    return about | {"sources": {"real": {"vg": row}}}


def header(card: str) -> dict:
    return yaml.safe_load(card.split("---")[1])


def test_the_embedded_card_is_rendered_from_the_report_of_these_weights(tmp_path):
    for part in ("config.json", "model.safetensors"):
        (tmp_path / part).symlink_to(embedded_checkpoint() / part)
    rendered = write_card(tmp_path, read_origin("bird-nano"), results_of(REPORT, embedded_checkpoint()))
    embedded = (embedded_checkpoint() / "README.md").read_text(encoding="utf-8")
    assert embedded == rendered.read_text(encoding="utf-8"), "run tools/model_card.py --render"


def test_a_cards_numbers_are_those_of_report_configuration_and_weights(report, config, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    results = results_of(path, embedded_checkpoint())
    card = render_card(config, 1_234_567_890, read_origin("bird-nano"), results)
    assert as_markdown(report, level=3) in card + "\n"
    assert "| VG | Recall@0.5 | 25.00 (4) |" in card and report["weights_sha256"] in card
    assert "| parameters | 1,234.6 M |" in card
    assert f"| resampler | {config.vision_config.num_queries} queries, 256 wide |" in card
    assert "On the test split of the sample" in card and "Nothing was measured" not in card


@pytest.mark.parametrize("name", ["bird-nano", "qwen-vl", "med-grit", "unrecorded"])
def test_a_card_without_a_report_has_no_results_and_says_so(config, name):
    assert name in known_origins()
    card = render_card(config, 1, read_origin(name))
    assert "Nothing was measured" in card and "How often has not been measured" in card
    assert "On the test split" not in card and "| task |" not in card
    for text in ("never for clinical use", "## What it is not for", "2048 tokens", "Fig. 4"):
        assert text in card
    assert header(card)["pipeline_tag"] == "image-text-to-text"
    assert "$" not in card  # no slot of the template is left


def test_cards_name_the_licences_in_the_chain(config):
    cards = {name: render_card(config, 1, read_origin(name)) for name in known_origins()}
    assert header(cards["bird-nano"])["license"] == "apache-2.0"
    assert header(cards["qwen-vl"])["license_name"] == "tongyi-qianwen"
    for text in ("Tongyi Qianwen License Agreement", "SA-Med2D-20M", "CC BY-NC-SA 4.0", "teacher"):
        assert text in cards["med-grit"]
    assert header(cards["unrecorded"])["license"] == "unknown"


def test_an_origin_of_ones_own_is_a_file(config, tmp_path):
    mine = {"name": "mine", "summary": "s", "training_data": "t", "limits": "- l", "license": "mit"}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(mine))
    card = render_card(config, 1, read_origin(path))
    assert header(card)["license"] == "mit" and "# mine\n" in card


@pytest.mark.parametrize("text", ["name: mine", "- a list", "a: [", "colour: red"])
def test_a_file_that_is_no_origin_is_refused(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=r"mine\.yaml does not describe the origin of a model .*; see .*unrecorded\.yaml"
    ):
        read_origin(path)


def test_an_origin_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(
        ValueError, match="'nowhere' is not a YAML file; give one, or one of assembled, bird-nano, med-grit"
    ):
        read_origin("nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights_sha256": "0" * 64}, "is not of the weights in"),
        ({"sources": None}, r"is not the report\.json of a run"),
        (None, "cannot be read"),
    ],
)
def test_a_report_that_does_not_fit_is_refused(report, tmp_path, change, message):
    path = tmp_path / "report.json"
    if change is not None:
        path.write_text(json.dumps(report | change))
    with pytest.raises(ValueError, match=message):
        results_of(path, embedded_checkpoint())


def test_origins_hold_no_scores():
    """A number in the words would not change when the weights do."""
    assert not [path.name for path in CARDS.iterdir() if "%" in path.read_text(encoding="utf-8")]


def test_the_card_lists_the_names_by_modality(config):
    config.label_names = {"ct": ["left lung", "liver"], "mr": ["brain tumor"]}
    card = render_card(config, 1, read_origin("unrecorded"))
    assert "## Names that it knows\n\nObjects that its training data has boxes of:\n" in card
    assert "| ct | left lung, liver |\n| mr | brain tumor |\n" in card


def test_a_card_without_names_says_so(config):
    config.label_names = {}
    card = render_card(config, 1, read_origin("unrecorded"))
    assert "The checkpoint does not list the names of the objects that it was trained on." in card
