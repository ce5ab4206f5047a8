"""Measures the embedded checkpoint on the embedded sample and writes its report and its card.

    python tools/model_card.py             predict, report, render (a stopped run goes on)
    python tools/model_card.py --render    only render the card again, from docs/nano_report.json

Words that no program can know are in src/bird_hf/assets/model_card/bird-nano.yaml; no number in the card is typed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bird_hf.eval.run import weights_sha256
from bird_hf.eval.tables import results_of, write_reports
from bird_hf.model_card import read_origin, write_card
from bird_hf.sample import embedded_checkpoint

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "nano_report.json"


def measure(checkpoint: Path) -> None:
    """Predict and report the sample's test split under runs/, a folder for each weights; the report goes to docs/."""
    from bird_hf.data.embedded.sample_set import write_sample
    from bird_hf.eval.predict import predict_run

    runs = ROOT / "runs" / "nano-report"
    run = runs / weights_sha256(checkpoint)[:12]
    run.mkdir(parents=True, exist_ok=True)
    write_sample(runs / "med-grit")
    predict_run(checkpoint, runs / "med-grit", run)
    report, _ = write_reports(run)
    REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    checkpoint = embedded_checkpoint()
    if "--render" not in sys.argv[1:]:
        measure(checkpoint)
    card = write_card(checkpoint, read_origin("bird-nano"), results_of(REPORT, checkpoint))
    print(f"{REPORT}\n{card}")


if __name__ == "__main__":
    main()
