"""How long scores take, side by side in one run, and how much memory 30,000 answers need.

    python benchmarks/score_speed.py [spice mia memory] [--repeat 3] [--rows 30000] [--json FILE]

    spice   480 captions of eight modalities in one JVM, against a JVM per modality, as pycocoevalcap's `Spice` is used;
            the scores of both must be equal. Needs `bird setup spice`.
    mia     480 analyses of eight modalities, against pycocoevalcap as it is used for the paper's scores: for each
            modality the tokeniser is started for references and for answers, and METEOR once; scores must be equal.
    memory  30,000 answers to each task are read and scored as `bird score` does, each task in one process: seconds, and
            the peak memory of the process and of the largest program that it starts.

Prints Markdown, and JSON with --json. Seconds are medians; CPU seconds are those of all processes, and say more than
seconds on a machine that does other work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bird_hf.atomic_writes import write_text
from bird_hf.data.records import Modality
from bird_hf.eval.paper_rules import clean_response
from bird_hf.eval.predictions import Prediction, by_modality, read_predictions, write_predictions
from bird_hf.eval.score import score_predictions
from bird_hf.eval.spice import spice_scores
from bird_hf.eval.text_scores import java_on_path, text_scores
from bird_hf.markdown import table

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "scores"
ROWS_PER_MODALITY = 60
TASKS = ("vg", "roc", "rc", "mia")
_SPICE_TOLERANCE = (
    0.02  # of a mean: SPICE merges synonyms in the order of a hash table, which differs between starts
)
_TEXT_TOLERANCE = 1e-6
_TICK = 0.01  # seconds; times of processes are counted in these
Groups = Mapping[str, Sequence[tuple[str, str]]]
Case = dict[str, Any]


def golden(task: str) -> Groups:
    """60 golden answers of each modality, as (reference, cleaned response)."""
    rows = read_predictions(GOLDEN / f"{task}.jsonl", task)
    groups: Mapping[str, list[Prediction]] = by_modality(rows, [row.modality for row in rows])
    return {
        name: [
            (_line(row.annotation), _line(clean_response(row.response))) for row in group[:ROWS_PER_MODALITY]
        ]
        for name, group in groups.items()
    }


def _line(text: str) -> str:
    """pycocoevalcap's tokeniser puts answers in the wrong place after a line break that it does not know."""
    return " ".join(text.split())


def side_by_side(
    ours: Callable[[], float], theirs: Callable[[], float], tolerance: float, repeat: int
) -> Case:
    """Median seconds of both, in turn. Each returns a score, and both must be equal."""
    measured: dict[str, list[tuple[float, float]]] = {"here": [], "plain": []}
    for _ in range(repeat):
        scores = []
        for name, run in (("here", ours), ("plain", theirs)):
            start, cpu = time.perf_counter(), _cpu_seconds()
            scores.append(run())
            measured[name].append((time.perf_counter() - start, _cpu_seconds() - cpu))
        if abs(scores[0] - scores[1]) > tolerance:
            raise SystemExit(f"the scores of both ways differ: {scores[0]} and {scores[1]}")
    found: Case = {
        name: {
            "seconds": statistics.median(each[0] for each in times),
            "cpu_seconds": statistics.median(each[1] for each in times),
        }
        for name, times in measured.items()
    }
    pairs = list(zip(measured["here"], measured["plain"], strict=True))
    found["times_faster"] = statistics.median(plain[0] / here[0] for here, plain in pairs)
    found["times_less_cpu"] = statistics.median(plain[1] / max(here[1], _TICK) for here, plain in pairs)
    return found | {"repeat": repeat}


def _cpu_seconds() -> float:
    """Of this process and of those that it started and waited for."""
    return sum(os.times()[:4])


def time_spice(options: argparse.Namespace) -> Case:
    groups = golden("rc")
    pairs = [pair for group in groups.values() for pair in group]

    def apart() -> float:
        return sum(score for group in groups.values() for score in spice_scores(group)) / len(pairs)

    found = side_by_side(
        lambda: sum(spice_scores(pairs)) / len(pairs), apart, _SPICE_TOLERANCE, options.repeat
    )
    what = f"SPICE, {len(pairs)} captions, one JVM"
    return {"what": what, "against": f"{len(Modality)} JVMs", **found}


def time_mia(options: argparse.Namespace) -> Case:
    groups = golden("mia")

    def ours() -> float:
        return statistics.fmean(row.mbmr for row in text_scores(groups).values())

    def theirs() -> float:
        with java_on_path():
            return statistics.fmean(_plain_mbmr(group) for group in groups.values())

    found = side_by_side(ours, theirs, _TEXT_TOLERANCE, options.repeat)
    number = sum(map(len, groups.values()))
    return {"what": f"mBMR, {number} analyses", "against": "pycocoevalcap by modality", **found}


def _plain_mbmr(pairs: Sequence[tuple[str, str]]) -> float:
    """As pycocoevalcap's `COCOEvalCap.evaluate` scores one set of answers."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    wanted, given = (
        tokenizer.tokenize({place: [{"caption": pair[side]}] for place, pair in enumerate(pairs)})
        for side in (0, 1)
    )
    bleu = Bleu(4).compute_score(wanted, given, verbose=0)[0][3]
    meteor = Meteor().compute_score(wanted, given)[0]
    return float(bleu + meteor + Rouge().compute_score(wanted, given)[0]) / 3


def measure_memory(options: argparse.Namespace) -> Case:
    """Each task in a process of its own, so that no peak is that of another."""
    found: Case = {}
    for task in options.tasks:
        command = [sys.executable, __file__, "--here", task, "--rows", str(options.rows)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        found[task] = json.loads(done.stdout.splitlines()[-1])
    return {"rows": options.rows, "tasks": found}


def score_many(task: str, rows: int) -> Case:
    """Score `rows` answers in this process: golden ones, each with a number, so that no two are the same."""
    some = read_predictions(GOLDEN / f"{task}.jsonl", task)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{task}.jsonl")
        write_predictions(file, (_numbered(some[place % len(some)], place, task) for place in range(rows)))
        start, cpu = time.perf_counter(), _cpu_seconds()
        score_predictions(read_predictions(file, task), task, rc_measure="scene_graph_f1")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    peaks = [
        resource.getrusage(who).ru_maxrss * unit for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    seconds = {"seconds": time.perf_counter() - start, "cpu_seconds": _cpu_seconds() - cpu}
    return {**seconds, "peak_bytes": peaks[0], "peak_bytes_of_a_program": peaks[1]}


def _numbered(row: Prediction, place: int, task: str) -> Prediction:
    """Every answer is about an image of its own; captions and analyses get a sentence with their number."""
    more = f" Study {place}." if task in ("rc", "mia") else ""
    image = f"{row.image.split('_')[0]}_00--study--{place}.png"
    response = clean_response(row.response) + more
    return replace(row, id=place, image=image, annotation=row.annotation + more, response=response)


def machine() -> Case:
    model = [
        line.split(":")[1].strip()
        for line in (Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else [])
        if line.startswith("model name")
    ]
    load = os.getloadavg()[0]
    return {"processor": model[0] if model else platform.processor(), "cores": os.cpu_count(), "load": load}


def tables(document: Mapping[str, Any]) -> str:
    """The measurements as Markdown."""
    texts = []
    if timed := [document[part] for part in ("spice", "mia") if part in document]:
        header = ["here", "seconds", "CPU", "plain", "seconds", "CPU", "times faster", "times less CPU"]
        lines = []
        for case in timed:
            numbers = [
                [f"{case[way][unit]:.1f}" for unit in ("seconds", "cpu_seconds")] for way in ("here", "plain")
            ]
            ratios = [f"{case['times_faster']:.1f}", f"{case['times_less_cpu']:.1f}"]
            lines.append([case["what"], *numbers[0], case["against"], *numbers[1], *ratios])
        texts.append(table(header, lines))
    if "memory" in document:
        memory = document["memory"]
        header = [
            f"{memory['rows']:,} answers",
            "seconds",
            "CPU",
            "peak MiB",
            "peak MiB of a program it starts",
        ]
        lines = [
            [task, *(f"{case[unit]:.0f}" for unit in ("seconds", "cpu_seconds")),
             *(f"{case[peak] / 2**20:.0f}" for peak in ("peak_bytes", "peak_bytes_of_a_program"))]
            for task, case in memory["tasks"].items()
        ]  # fmt: skip
        texts.append(table(header, lines))
    on = document["machine"]
    texts.append(
        f"{on['cores']} cores ({on['processor']}), where {on['load']:.1f} processes ran at the beginning."
    )
    return "\n\n".join(texts)


PARTS: Mapping[str, Callable[[argparse.Namespace], Case]] = {
    "spice": time_spice,
    "mia": time_mia,
    "memory": measure_memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; by default all")
    parser.add_argument("--repeat", type=int, default=3, help="how often each way is timed")
    parser.add_argument("--rows", type=int, default=30_000, help="of the part memory")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="of the part memory")
    parser.add_argument("--json", type=Path, help="write the measurements to this file as well")
    parser.add_argument("--here", choices=TASKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(score_many(options.here, options.rows)))
        return
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; there are {', '.join(PARTS)}")
    if options.repeat < 1 or options.rows < 1:
        parser.error("--repeat and --rows must be at least 1")
    document: dict[str, Any] = {"machine": machine()}
    for part in options.parts or PARTS:
        document[part] = PARTS[part](options)
        if options.json:
            write_text(options.json, json.dumps(document, indent=1) + "\n")
    print(tables(document))


if __name__ == "__main__":
    main()
