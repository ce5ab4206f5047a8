"""The runs of a study: each is a process that trains, answers the test questions, and writes RUN/result.json."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bird_hf.atomic_writes import write_text
from bird_hf.data.records import SINGLE_TASKS
from bird_hf.eval.run import prediction_file

from .study import StudyRun, subset

if TYPE_CHECKING:
    from bird_hf.train.recipe import Recipe

TRAINED_FILE, RESULT_FILE = "trained.json", "result.json"
_POLL_SECONDS = 0.2
_LAST_CHARS = 1500  # of a log, in an error


def is_finished(folder: Path) -> bool:
    return (folder / RESULT_FILE).is_file()


# --- one run, in its own process --------------------------------------------------------------------------------


def train_and_answer(out: Path, run: StudyRun, batch_size: int) -> None:
    """Train on the images of a run and answer the test questions; both go on where they were stopped."""
    import torch

    from bird_hf.data.folder.publish import open_folder
    from bird_hf.eval.predict import predict_dataset
    from bird_hf.inference import load
    from bird_hf.train.run import read

    folder = out / "runs" / run.name
    recipe = read(["--config", str(folder / "recipe.yaml")])
    if not (folder / TRAINED_FILE).is_file():
        write_text(folder / TRAINED_FILE, json.dumps(_train(recipe, run)) + "\n")
    result = json.loads((folder / TRAINED_FILE).read_text(encoding="utf-8"))
    start = time.monotonic()
    is_cpu = recipe.training.use_cpu or not torch.cuda.is_available()
    model = load(Path(recipe.training.output_dir, "final"), device=None if is_cpu else "cuda")
    (folder / "answers").mkdir(exist_ok=True)
    for task in SINGLE_TASKS:
        if (out / "test" / "data" / task.value).is_dir():
            rows = open_folder(out / "test", task, "test")
            predict_dataset(model, rows, prediction_file(folder / "answers", task.value), batch_size)
    result["seconds"]["answering"] = time.monotonic() - start
    result["machine"] = {
        "device": platform.machine() if is_cpu else torch.cuda.get_device_name(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    write_text(folder / RESULT_FILE, json.dumps(result, indent=1) + "\n")


def _train(recipe: Recipe, run: StudyRun) -> dict[str, Any]:
    """Train on the images of a run, going on from its last checkpoint; returns what is known of it afterwards."""
    from bird_hf.train import sft
    from bird_hf.train.from_scratch.trainer import build_trainer

    start = time.monotonic()
    rows = sft.load_split(recipe.script, recipe.script.dataset_train_split)
    names = rows["image_id"]
    chosen = subset(names, run.share, run.seed)
    trainer = build_trainer(recipe, rows.select([i for i, name in enumerate(names) if name in chosen]))
    built = time.monotonic()
    sft.train(trainer)
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return {
        "share": run.share,
        "seed": run.seed,
        "images": len(chosen),
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "loss": losses[-1] if losses else None,
        "seconds": {"loading": built - start, "training": time.monotonic() - built},
    }


# --- all runs -----------------------------------------------------------------------------------------------------


def run_all(
    commands: Sequence[tuple[Path, list[str]]],
    jobs: int,
    deadline: float,
    on_finish: Callable[[], Any],
    cache: Path,
) -> list[str]:
    """Run each command whose folder has no result, `jobs` at a time; returns what went wrong, a line each.

    commands: (folder of the run, command line). deadline: of `time.monotonic()`; runs that are not finished then are
    stopped, and go on from their last checkpoint the next time. on_finish is called after every run. cache: a folder
    for the tables that `datasets` makes, which all runs share.
    """
    waiting = [pair for pair in commands if not is_finished(pair[0])]
    running: dict[Path, subprocess.Popen[bytes]] = {}
    errors: list[str] = []
    with _ending(running):
        while waiting or running:
            if time.monotonic() > deadline:
                for folder in running:
                    print(
                        f"{folder.name}: stopped at {_end_of_log(folder, 120)!r}", file=sys.stderr, flush=True
                    )
                names = ", ".join(folder.name for folder in [*running, *(each for each, _ in waiting)])
                return [*errors, f"no time was left for {names}; run the same command again"]
            while waiting and len(running) < jobs:
                folder, command = waiting.pop(0)
                running[folder] = _start(folder, command, jobs, cache)
                print(f"{folder.name}: started", file=sys.stderr, flush=True)
            time.sleep(_POLL_SECONDS)
            for folder in [folder for folder, process in running.items() if process.poll() is not None]:
                del running[folder]
                if is_finished(folder):
                    seconds = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))["seconds"]
                    took = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
                    print(f"{folder.name}: finished ({took})", file=sys.stderr, flush=True)
                    on_finish()
                else:
                    errors.append(f"{folder.name} failed; the end of its log:\n{_end_of_log(folder)}")
                    print(errors[-1], file=sys.stderr, flush=True)
    return errors


def _start(folder: Path, command: list[str], jobs: int, cache: Path) -> subprocess.Popen[bytes]:
    environment = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs)),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        **os.environ,
        "HF_DATASETS_CACHE": str(cache.resolve()),
    }
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _end_of_log(folder: Path, characters: int = _LAST_CHARS) -> str:
    return (folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-characters:]


@contextmanager
def _ending(running: dict[Path, subprocess.Popen[bytes]]) -> Iterator[None]:
    """Ends the processes that still run when the block is left, with their loaders of data."""
    try:
        yield
    finally:
        for process in running.values():
            os.killpg(process.pid, signal.SIGTERM)
        for process in running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
