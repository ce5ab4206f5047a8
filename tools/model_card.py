"""Evaluate the embedded checkpoint on the embedded sample, and write its report and its model card.

    python tools/model_card.py             predict, report and render; a stopped run is resumed
    python tools/model_card.py --render    only render the card, from docs/nano_report.json

The text about the model's origin is in model_card/bird-nano.yaml. All numbers come from the report and the weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bird_hf.atomic_writes import write_text
from bird_hf.checkpoint.model_card import read_origin, write_card
from bird_hf.eval.run import weights_sha256
from bird_hf.eval.tables import report_run, results_of
from bird_hf.sample import embedded_checkpoint

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "nano_report.json"


def measure(checkpoint: Path) -> None:
    """Predict the sample's test split in runs/, one folder per weights, and write the report to docs/."""
    from bird_hf.data.embedded.sample_set import write_sample
    from bird_hf.eval.predict import predict_run

    runs = ROOT / "runs" / "nano-report"
    run = runs / weights_sha256(checkpoint)[:12]
    run.mkdir(parents=True, exist_ok=True)
    write_sample(runs / "med-grit")
    predict_run(checkpoint, runs / "med-grit", run)
    write_text(REPORT, json.dumps(report_run(run), indent=1) + "\n")


def main() -> None:
    checkpoint = embedded_checkpoint()
    if "--render" not in sys.argv[1:]:
        measure(checkpoint)
    card = write_card(checkpoint, read_origin("bird-nano"), results_of(REPORT, checkpoint))
    print(f"{REPORT}\n{card}")


if __name__ == "__main__":
    main()
