"""BiRD on one large GPU, in parts of at most eight minutes, without a network.

    python benchmarks/gpu.py [PART ...] [--out DIR] [--minutes 8] [--again]

    parity     sdpa, eager, flex and flash attention against the CPU: logits, loss, gradients, generation
    inference  the true size, random weights in bf16: prefill and decode tokens per second, memory
    training   a training step at the true size, packed and padded to 2048: pairs per second, MFU, memory
    compile    what torch.compile brings at the true size
    nano       the recipe of bird-nano, scored on phantoms it was not trained on
    plan_memory  memory of more ways of training, beside which `bird train --plan` is held

Every part is a process of its own, writes DIR/PART.json after each measurement, and prints it at the end. A part that
is finished is skipped, one that was stopped goes on, unless --again starts it over. Without CUDA (or with --tiny) all
runs on a tiny model in seconds: that is a test of this file, and no figure of it means anything.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Modules of gpu_parts.
PARTS = {
    "parity": "parity",
    "inference": "inference",
    "training": "training",
    "compile": "compilation",
    "nano": "nano",
    "plan_memory": "plan_memory",
}
GRACE_SECONDS = 45  # for a measurement that was begun before the time was up


def read_document(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def run_part(name: str, out: Path, minutes: float, tiny: bool) -> dict[str, Any]:
    """Run a part in this process; returns the document that it wrote."""
    import torch
    from gpu_parts.measure import Part, attempt

    is_cuda = torch.cuda.is_available()
    device = torch.device("cuda", 0) if is_cuda else torch.device("cpu")
    deadline = time.monotonic() + 60 * minutes
    part = Part(name, out / f"{name}.json", device, tiny or not is_cuda, deadline)

    def run() -> dict[str, Any]:
        importlib.import_module(f"gpu_parts.{PARTS[name]}").run(part)
        return {}

    part.document |= attempt(run)
    part.close()
    return part.document


def run_in_process(name: str, out: Path, minutes: float, tiny: bool) -> str | None:
    """Run a part as a process of its own, which is killed if it hangs; returns what went wrong, if anything did."""
    command = [sys.executable, __file__, name, "--out", str(out), "--minutes", str(minutes), "--here"]
    # Full training leaves little room, so that none must be lost to fragments.
    environment = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", "PYTHONUNBUFFERED": "1", **os.environ}
    process = subprocess.Popen(
        command + ["--tiny"] * tiny, env=environment, stdout=sys.stderr, start_new_session=True
    )
    try:
        code = process.wait(60 * minutes + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"killed {GRACE_SECONDS} s after its {minutes:g} minutes"
    return f"the process ended with code {code}" if code else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the JSON files")
    parser.add_argument("--minutes", type=float, default=8.0, help="time of each part")
    parser.add_argument("--again", action="store_true", help="start parts over that are there already")
    parser.add_argument("--tiny", action="store_true", help="a tiny model; without CUDA it is always one")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in this process
    options = parser.parse_args()
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    for name in options.parts or PARTS:
        file = options.out / f"{name}.json"
        if options.here:
            run_part(name, options.out, options.minutes, options.tiny)
            continue
        if options.again:
            file.unlink(missing_ok=True)
        if not read_document(file).get("finished"):
            error = run_in_process(name, options.out, options.minutes, options.tiny)
            if error:
                options.out.mkdir(parents=True, exist_ok=True)
                document = {"part": name, "finished": False, **read_document(file), "error": error}
                file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(file.read_text(encoding="utf-8"), flush=True)


if __name__ == "__main__":
    main()
