"""Timing, memory and the JSON document of a part."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import transformers

Made = TypeVar("Made")
_LAST_LINES = 8  # of a traceback


@dataclass
class Part:
    """A part that is running: its measurements so far, and how long it may take.

    Every measurement is written to `file` as soon as it is made, so that a part that was stopped goes on from there.
    """

    name: str
    file: Path
    device: torch.device
    tiny: bool
    deadline: float  # time.monotonic()
    document: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        head = {"part": self.name, "machine": machine(self.device), "tiny": self.tiny}
        if self.file.is_file():
            self.document = json.loads(self.file.read_text(encoding="utf-8"))
        if {name: self.document.get(name) for name in head} != head:  # another machine: nothing to go on from
            self.document = {**head, "finished": False, "seconds": 0.0, "cases": {}}
        self.document.pop("error", None)

    @property
    def cases(self) -> dict[str, dict[str, Any]]:
        return self.document["cases"]

    def measure(self, name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run a measurement unless it is there already. An exception is its `error`, lack of time its `not_run`."""
        if is_measured(self.cases.get(name)):
            return self.cases[name]
        if time.monotonic() > self.deadline:
            self.cases[name] = {"not_run": "no time was left"}
        else:
            print(f"{self.name}: {name}", flush=True)
            start = time.monotonic()
            found = attempt(run)
            took = time.monotonic() - start
            self.cases[name] = found | {"took_seconds": round(took, 1)}
            self.document["seconds"] += took
        self.write()
        free_memory()
        return self.cases[name]

    def skip(self, name: str, reason: str) -> None:
        """Record that a measurement is impossible here."""
        self.cases[name] = {"not_run": reason, "impossible": True}
        self.write()

    def write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.file.with_suffix(".tmp")
        unfinished.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")
        os.replace(unfinished, self.file)

    def close(self) -> None:
        done = bool(self.cases) and all(is_measured(case) for case in self.cases.values())
        self.document["finished"] = done and "error" not in self.document
        self.write()


def is_measured(case: dict[str, Any] | None) -> bool:
    """Whether a case needs no other run."""
    return case is not None and "error" not in case and ("not_run" not in case or "impossible" in case)


def attempt(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `run`, or the last lines of its traceback. Too little memory is a result."""
    try:
        return run()
    except torch.OutOfMemoryError as error:
        return {"out_of_memory": str(error)[:500]}
    except Exception as error:
        lines = "".join(traceback.format_exception(error)).strip().splitlines()
        return {"error": "\n".join(lines[-_LAST_LINES:])[-2000:]}


class Lazy(Generic[Made]):
    """A value made on its first use, and dropped when its memory is needed."""

    def __init__(self, make: Callable[[], Made]):
        self._make, self._made = make, list[Made]()

    def get(self) -> Made:
        if not self._made:
            self._made.append(self._make())
        return self._made[0]

    def drop(self) -> None:
        self._made.clear()
        free_memory()


def machine(device: torch.device) -> dict[str, Any]:
    """The card and the versions that figures depend on."""
    is_cuda = device.type == "cuda"
    return {
        "card": torch.cuda.get_device_name(device) if is_cuda else f"CPU ({platform.machine()})",
        "memory_bytes": torch.cuda.get_device_properties(device).total_memory if is_cuda else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one run, the work queued on the device included."""
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def seconds(run: Callable[[], Any], device: torch.device, repeats: int = 5, warmup: int = 2) -> float:
    """Median seconds of `repeats` runs, after `warmup` runs that are not counted."""
    for _ in range(warmup):
        run()
    return statistics.median(timed(run, device) for _ in range(repeats))


class PeakMemory:
    """The most memory allocated on the device inside a `with`; None on a CPU."""

    def __init__(self, device: torch.device):
        self.device, self.bytes = device, None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)


def matmul_peak(part: Part) -> dict[str, Any]:
    """FLOP/s of a large bf16 matrix product on random numbers: what MFU is a share of."""
    side = 256 if part.tiny else 8192
    left, right = torch.randn(2, side, side, device=part.device, dtype=torch.bfloat16)
    took = seconds(lambda: left @ right, part.device, repeats=20, warmup=5)
    return {"side": side, "flops_per_second": 2 * side**3 / took}
