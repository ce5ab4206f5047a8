"""The report of train_throughput.py, docs/gpu/train_throughput.json, as a table of docs/train_on_gpus.md."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

import torch
import transformers

ROOT = Path(__file__).parents[1]
PAGE, REPORT = ROOT / "docs" / "train_on_gpus.md", ROOT / "docs" / "gpu" / "train_throughput.json"
BEGIN, END = "<!-- benchmarks/train_throughput.py -->", "<!-- end -->"

FIVE, MIXED = "five turns", "one to nine turns"
FASTEST = "d3"
AIMS = {"of (a)": 60, "of (c)": 1.5, "peak": 0.55}


def machine() -> dict[str, Any]:
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
        model = found[1] if found else ""
    return {
        "cpu": model or platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "has_amx": bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def compared(report: dict[str, Any]) -> dict[str, float]:
    """What the aims are about: the best way against (a), on mixed rows against (c), and its share of the peak."""
    by = {(way["rows"], way["way"]): way for way in report["ways"]}
    best = {
        rows: min(
            (way for (of, letter), way in by.items() if of == rows and letter > "c"),
            key=lambda way: way["seconds_per_pair"],
        )
        for rows in (FIVE, MIXED)
    }
    return {
        "of (a)": by[FIVE, "a"]["seconds_per_pair"] / best[FIVE]["seconds_per_pair"],
        "of (c)": by[MIXED, "c"]["seconds_per_pair"] / best[MIXED]["seconds_per_pair"],
        "peak": best[FIVE]["of_peak"],
    }


def as_markdown(report: dict[str, Any]) -> str:
    """The table, and a sentence for each aim."""
    of, matmul, found, limit = report["machine"], report["matmul"], compared(report), report["limits"]
    seconds = {(way["rows"], way["way"]): way["seconds_per_pair"] for way in report["ways"]}
    lines = [
        f"One thread of {of['cpu']} ({of['capability']}{', with AMX' if of['has_amx'] else ''}), torch {of['torch']}, "
        f"transformers {of['transformers']}; a virtual machine on a shared host. A product of two {matmul['side']} x "
        f"{matmul['side']} matrices in bf16 ran at {matmul['flops_per_second'] / 1e9:.0f} GFLOP/s (median; "
        f"{matmul['lowest'] / 1e9:.0f} to {matmul['highest'] / 1e9:.0f} during the run). "
        f"Medians of {report['repeats']} repeats.",
        "",
        "| rows | way | | CPU seconds per pair | times (a) | times (c) | of the peak | padding |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for way in report["ways"]:
        to_a = seconds[FIVE, "a"] / way["seconds_per_pair"]
        to_c = seconds[way["rows"], "c"] / way["seconds_per_pair"]
        lines.append(
            f"| {way['rows']} | {way['way']} | {way['what']} | {way['seconds_per_pair']:.4f} | {to_a:.1f} | {to_c:.2f} "
            f"| {way['of_peak']:.0%} | {way['padding']:.0%} |"
        )
    reached = {name: f"{'reached' if found[name] >= aim else 'not reached'}" for name, aim in AIMS.items()}
    return "\n".join(
        [
            *lines,
            "",
            f"The best way is {found['of (a)']:.0f} times as fast as (a) (aim {AIMS['of (a)']}: {reached['of (a)']}), "
            f"on mixed rows {found['of (c)']:.2f} times as fast as (c) (aim {AIMS['of (c)']}: {reached['of (c)']}), "
            f"and its matrix products run at {found['peak']:.0%} of the large one (aim {AIMS['peak']:.0%}: "
            f"{reached['peak']}). Matrix products take {limit['of_products']:.0%} of the time of ({FASTEST}), and "
            f"those of its own shapes, alone in a loop, run at {limit['products_of_peak']:.0%} of the large one.",
        ]
    )


def write_page(page: Path, report: dict[str, Any]) -> None:
    """Put the table between the marks of a page."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{as_markdown(report)}\n\n{END}{after}", encoding="utf-8")
