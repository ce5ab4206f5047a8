"""A run: a folder with the answers of one model to a whole split.

    RUN_DIR/run.json         {"model": "bird", "weights_sha256": "...", "data": "med-grit", "split": "test", ...}
    RUN_DIR/vg.jsonl         one prediction file per task, and `absent.jsonl` and `foreign.jsonl` (hallucination.py),
                             and `checks.jsonl` (checks.py); also `llava_med.jsonl` (llava_med.py)
    RUN_DIR/report.md        the tables made from them, and report.json and report.html (reports/run_report.py)

A folder of prediction files without run.json is a run of an unknown model, and so is a single prediction file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..atomic_writes import write_text
from ..data.records import SINGLE_TASKS
from .checks import CHECKS
from .hallucination import Missing
from .predictions import LLAVA_MED, Prediction, named_task, read_predictions

RUN_FILE = "run.json"
KINDS = (*(kind.value for kind in (*SINGLE_TASKS, *Missing)), CHECKS, LLAVA_MED)  # one prediction file each


@dataclass(frozen=True)
class Run:
    """Which model answered which split; `questions` is the number of questions by kind.

    weights_sha256: empty for a model behind an endpoint. dialect: how a model of another family was asked. sampling:
    how answers were sampled. Both are empty, and not written, for greedy answers of BiRD.
    """

    model: str
    weights_sha256: str
    data: str
    split: str
    questions: Mapping[str, int]
    dialect: str = ""
    sampling: str = ""


def weights_sha256(checkpoint: Path) -> str:
    """The sha256 of a checkpoint's weight files, read one after the other in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(checkpoint.glob("*.safetensors")) or sorted(checkpoint.glob("*.bin")):
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)  # in blocks, into the same digest
    return digest.hexdigest()


def prediction_file(folder: Path, kind: str) -> Path:
    """Where a run keeps its answers of one kind (see `KINDS`)."""
    return folder / f"{kind}.jsonl"


def begin_run(folder: Path, run: Run) -> None:
    """Create the folder of a run, or continue it. Raises ValueError if it holds the answers of another run."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give the name of a folder")
    before = read_run(folder)
    if before is None and any(prediction_file(folder, kind).exists() for kind in KINDS):
        raise ValueError(f"{folder} holds prediction files of an unknown model; choose another folder")
    if before is not None and before != run:
        name = next(name for name, value in asdict(run).items() if value != asdict(before)[name])
        raise ValueError(
            f"{folder} holds answers of another run ({name} {getattr(before, name)!r}, now {getattr(run, name)!r}); "
            "remove it, or choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    known = {
        name: value for name, value in asdict(run).items() if value or name not in ("dialect", "sampling")
    }
    write_text(folder / RUN_FILE, json.dumps(known, indent=1) + "\n")


def read_run(folder: Path) -> Run | None:
    """The contents of run.json; None if the folder has none. Raises ValueError if it is damaged."""
    path = folder / RUN_FILE
    if not path.is_file():
        return None
    try:
        run = Run(**json.loads(path.read_text(encoding="utf-8")))
        if not isinstance(run.questions, dict):
            raise TypeError("questions must be counts by kind")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove the folder and predict again") from error
    return run


def is_run(path: Path) -> bool:
    """Whether a path is a prediction file, or a folder that holds one."""
    return path.is_file() or any(prediction_file(path, kind).is_file() for kind in KINDS)


def find_runs(paths: Sequence[Path]) -> dict[str, Path]:
    """The runs at paths by a name: prediction files, folders of them, or folders of such folders.

    Runs of the same name are told apart by their folders, then by numbers.
    Raises ValueError if a path does not exist or is given twice.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ValueError(
                f"{path}: no such folder; give --model and --data as well to make predictions there"
            )
        inside = (
            [] if is_run(path) else sorted(each for each in path.iterdir() if each.is_dir() and is_run(each))
        )
        found += inside or [path]
    places = [path.resolve() for path in found]
    if twice := [path for path, place in zip(found, places, strict=True) if places.count(place) > 1]:
        raise ValueError(f"{twice[0]} is given twice; name each run once")
    names = [place.stem if place.is_file() else place.name for place in places]
    if len(set(names)) < len(names):
        names = [f"{place.parent.name}/{name}" for place, name in zip(places, names, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{number} {name}" for number, name in enumerate(names, start=1)]
    return dict(zip(names, found, strict=True))


def read_answers(folder: Path) -> dict[str, list[Prediction]]:
    """All answers of a run by kind of prediction file.

    Raises ValueError, in one line, if there are none, a file cannot be read, or the run is not finished.
    """
    if folder.is_file():
        kind = _kind_of(folder)
        return {kind: read_predictions(folder, kind)}
    run = read_run(folder)
    wanted = [
        kind for kind in KINDS if (run and kind in run.questions) or prediction_file(folder, kind).exists()
    ]
    if not wanted:
        raise ValueError(
            f"{folder} holds no predictions (vg.jsonl, ...); give --model and --data as well to make them"
        )
    answers: dict[str, list[Prediction]] = {}
    for kind in wanted:
        path = prediction_file(folder, kind)
        answers[kind] = read_predictions(path, kind) if path.exists() else []
        if run and kind != LLAVA_MED and len(answers[kind]) != run.questions.get(kind, 0):
            raise ValueError(
                f"{path} has {len(answers[kind])} answers to {run.questions.get(kind, 0)} questions; "
                "give --model and --data again to finish the run"
            )
    return answers


def _kind_of(file: Path) -> str:
    """The kind of a prediction file: the task that its first line names, else its name ("vg.jsonl")."""
    kind = named_task(file) or file.stem
    if kind not in KINDS:
        raise ValueError(
            f"{file} does not name its task; call it {', '.join(KINDS[:4])}.jsonl, or one of them"
        )
    return kind
