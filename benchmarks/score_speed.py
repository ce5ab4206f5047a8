"""How long scores take, side by side in one run: each part against the plain way of using the original programs.

    python benchmarks/score_speed.py [spice ...]

    spice   480 captions of eight modalities in one JVM, against a JVM per modality, as pycocoevalcap's `Spice` is used;
            the scores of both must be equal. Needs `bird setup spice`.

Prints Markdown: seconds and their ratio.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bird_hf.data.records import Modality
from bird_hf.eval.predictions import Prediction, by_modality, read_predictions
from bird_hf.eval.spice import spice_scores
from bird_hf.markdown import table

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "scores"
CAPTIONS_PER_MODALITY = 60
_TOLERANCE = (
    0.02  # of a mean: SPICE merges synonyms in the order of a hash table, which differs between starts
)
Timing = tuple[str, float, str, float]  # ours, seconds, theirs, seconds


def captions() -> dict[str, list[tuple[str, str]]]:
    """60 golden captions of each modality, as (reference, response)."""
    rows = read_predictions(GOLDEN / "rc.jsonl", "rc")
    groups: Mapping[str, list[Prediction]] = by_modality(rows, [row.modality for row in rows])
    return {
        name: [(row.annotation, row.response) for row in group[:CAPTIONS_PER_MODALITY]]
        for name, group in groups.items()
    }


def time_spice() -> Timing:
    groups = captions()
    pairs = [pair for group in groups.values() for pair in group]
    start = time.perf_counter()
    together = spice_scores(pairs)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    apart = [score for group in groups.values() for score in spice_scores(group)]
    theirs = time.perf_counter() - start
    if abs(sum(together) - sum(apart)) / len(pairs) > _TOLERANCE:
        raise SystemExit("the scores of one JVM and of several differ")
    return f"SPICE, {len(pairs)} captions, one JVM", ours, f"{len(Modality)} JVMs", theirs


PARTS: Mapping[str, Callable[[], Timing]] = {"spice": time_spice}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}; by default all"
    )
    parts = parser.parse_args().parts
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; there are {', '.join(PARTS)}")
    lines = []
    for part in parts:
        name, ours, other, theirs = PARTS[part]()
        lines.append([name, f"{ours:.1f}", other, f"{theirs:.1f}", f"{theirs / ours:.1f}"])
    print(table(["here", "seconds", "plain", "seconds", "times faster"], lines))


if __name__ == "__main__":
    main()
