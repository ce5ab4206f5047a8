"""How far scene_graph_f1 agrees with the original SPICE on the golden captions (tests/golden/scores/rc.jsonl).

    python benchmarks/rc_agreement.py

Prints Markdown: Pearson's r by row, and for each modality both means and their difference.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import correlation, fmean

from bird_hf.eval.predictions import by_modality, read_predictions
from bird_hf.eval.scene_graph import scene_graph_scores
from bird_hf.markdown import Markup, table

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "scores" / "rc.jsonl"


@dataclass(frozen=True)
class Agreement:
    """Pearson's r over all rows, and (SPICE, scene_graph_f1) means by modality."""

    rows: int
    pearson: float
    means: dict[str, tuple[float, float]]

    @property
    def largest_difference(self) -> float:
        return max(abs(ours - theirs) for theirs, ours in self.means.values())


def agreement() -> Agreement:
    """Scores the golden captions and compares them with what SPICE gave them."""
    predictions = read_predictions(GOLDEN, "rc")
    theirs = [json.loads(line)["spice"] for line in GOLDEN.read_text("utf-8").split("\n") if line]
    ours = scene_graph_scores([(each.annotation, each.response) for each in predictions])
    groups = by_modality(list(zip(theirs, ours, strict=True)), [each.modality for each in predictions])
    means = {
        name: (fmean(pair[0] for pair in pairs), fmean(pair[1] for pair in pairs))
        for name, pairs in groups.items()
    }
    return Agreement(len(predictions), correlation(theirs, ours), means)


def main() -> None:
    found = agreement()
    print(f"{found.rows} captions; Pearson's r by row {found.pearson:.3f}\n")
    lines = [
        [Markup(name), f"{theirs:.3f}", f"{ours:.3f}", f"{ours - theirs:+.3f}"]
        for name, (theirs, ours) in found.means.items()
    ]
    print(table(["modality", "SPICE", Markup("scene_graph_f1"), "difference"], lines))


if __name__ == "__main__":
    main()
