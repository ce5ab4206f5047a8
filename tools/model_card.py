"""Measures the embedded checkpoint on the embedded sample and writes its report and its card.

    python tools/model_card.py             predict, report, render (a stopped run goes on)
    python tools/model_card.py --render    only render the card again, from docs/nano_report.json

The card is model_card/template.md, filled from the checkpoint's configuration, from the report, and with
the words of model_card/bird-nano.yaml; no number in it is typed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from math import prod
from pathlib import Path
from string import Template
from typing import Any

import yaml
from safetensors import safe_open

from bird_hf.eval.run_report import as_markdown, write_reports
from bird_hf.eval.runs import weights_sha256

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "src" / "bird_hf" / "assets" / "bird-nano"
REPORT = ROOT / "docs" / "nano_report.json"
TEMPLATE = ROOT / "model_card" / "template.md"
FACTS = ROOT / "model_card" / "bird-nano.yaml"


def render_card(checkpoint: Path, report: Mapping[str, Any], facts: Mapping[str, str]) -> str:
    """The card of a checkpoint. Raises ValueError where the report is of other weights."""
    if report["weights_sha256"] != weights_sha256(checkpoint):
        raise ValueError(f"the report is not of the weights in {checkpoint}; run tools/model_card.py")
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    vision, text = config["vision_config"], config["text_config"]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        facts,
        parameters=f"{count_parameters(checkpoint) / 1e6:.1f}",
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        vision_layers=vision["num_hidden_layers"],
        vision_width=vision["hidden_size"],
        num_queries=vision["num_queries"],
        resampler_width=vision["resampler_hidden_size"],
        text_type=text["model_type"],
        text_layers=text["num_hidden_layers"],
        text_width=text["hidden_size"],
        vocabulary=text["vocab_size"],
        context=text["max_position_embeddings"],
        results=as_markdown(report, level=3).rstrip(),
    )


def count_parameters(checkpoint: Path) -> int:
    """Stored numbers of the weights: tied ones once."""
    with safe_open(checkpoint / "model.safetensors", framework="np") as weights:
        return sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118


def measure(checkpoint: Path) -> None:
    """Predict and report the sample's test split under runs/, a folder for each weights; the report goes to docs/."""
    from bird_hf.data.sample_set import write_sample
    from bird_hf.eval.predict import predict_run

    runs = ROOT / "runs" / "nano-report"
    run = runs / weights_sha256(checkpoint)[:12]
    run.mkdir(parents=True, exist_ok=True)
    write_sample(runs / "med-grit")
    predict_run(checkpoint, runs / "med-grit", run)
    report, _ = write_reports(run)
    REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    if "--render" not in sys.argv[1:]:
        measure(CHECKPOINT)
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    facts = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    card = CHECKPOINT / "README.md"
    card.write_text(render_card(CHECKPOINT, report, facts), encoding="utf-8")
    print(f"{REPORT}\n{card}")


if __name__ == "__main__":
    main()
