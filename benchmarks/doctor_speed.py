"""How long `bird data doctor` takes and how much memory it needs, by the number of rows.

    python benchmarks/doctor_speed.py [--rows 1000 10000 100000] [--repeat 3] [--json docs/doctor_speed.json] [--tiny]

Rows are made up: JSON lines with the size of a picture, a box in its pixels, and an answer in Qwen3-VL's JSON with the
same box. Each picture has a size of its own, which is the slowest case. Files are examined each in a process of its
own, so that no peak is that of another; seconds are without the imports, and medians of --repeat processes. CPU
seconds say more than seconds on a machine that does other work. Prints Markdown, and writes JSON with --json. --tiny is
a trial with few rows, which takes seconds.
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bird_hf.atomic_writes import write_text
from bird_hf.data.doctor.examine import examine
from bird_hf.markdown import table

ROWS = (1_000, 10_000, 100_000)
TINY = (20, 40)
Case = dict[str, Any]


def write_rows(path: Path, count: int) -> None:
    """Rows whose boxes are right: whole pixels in one field, thousandths in the text of another."""
    draws = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            wh = draws.integers(200, 2000, 2)
            near = draws.integers(0, wh - 20)
            far = draws.integers(near + 10, wh)
            x1, y1, x2, y2 = (int(side) for side in (*near, *far))
            box = [round(1000 * side / of) for side, of in zip((x1, y1, x2, y2), (*wh, *wh), strict=True)]
            row = {
                "image": f"picture{number}.png",
                "image_wh": wh.tolist(),
                "bbox": [x1, y1, x2, y2],
                "answer": json.dumps([{"bbox_2d": box, "label": "nodule"}]),
            }
            file.write(json.dumps(row) + "\n")


def measure_here(path: Path) -> Case:
    """Examine a file in this process."""
    start, cpu = time.perf_counter(), time.process_time()
    found = examine(path)
    seconds = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return {
        "rows": found.rows,
        "boxes": sum(each.boxes for each in found.diagnoses),
        **seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }


def measure(rows: Sequence[int], repeat: int) -> list[Case]:
    """One case for each number of rows: median seconds, and the largest peak."""
    cases = []
    for count in rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "rows.jsonl")
            write_rows(path, count)
            command = [sys.executable, __file__, "--here", str(path)]
            runs = [
                json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
                for _ in range(repeat)
            ]
        more = {
            **{unit: statistics.median(run[unit] for run in runs) for unit in ("seconds", "cpu_seconds")},
            "peak_bytes": max(run["peak_bytes"] for run in runs),
        }
        cases.append(runs[0] | more | {"repeat": repeat})
    return cases


def machine() -> Case:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def as_markdown(document: Mapping[str, Any]) -> str:
    """The measurements as a table, and the machine below it."""
    lines = [
        [
            f"{case['rows']:,}",
            f"{case['boxes']:,}",
            f"{case['seconds']:.2f}",
            f"{case['cpu_seconds']:.2f}",
            f"{case['rows'] / case['cpu_seconds']:,.0f}",
            f"{case['peak_bytes'] / 2**20:.0f}",
        ]
        for case in document["cases"]
    ]
    on = document["machine"]
    header = ["rows", "boxes", "seconds", "CPU seconds", "rows a CPU second", "peak MiB"]
    return (
        f"{table(header, lines)}\n\n"
        f"{on['cores']} cores ({on['processor']}), where {on['load']:.1f} processes ran at the beginning."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS)
    parser.add_argument("--repeat", type=int, default=3, help="how often each file is examined")
    parser.add_argument("--json", type=Path, help="write the measurements to this file as well")
    parser.add_argument("--tiny", action="store_true", help="a trial with few rows")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure_here(options.here)))
        return
    rows, repeat = (TINY, 1) if options.tiny else (options.rows, options.repeat)
    if min(*rows, repeat) < 1:
        parser.error("--rows and --repeat must be at least 1")
    document = {"machine": machine(), "cases": measure(rows, repeat)}
    if options.json:
        write_text(options.json, json.dumps(document, indent=1) + "\n")
    print(as_markdown(document))


if __name__ == "__main__":
    main()
