"""Checkpoints of a run: which of them are whole, and how one becomes so.

A checkpoint is written file by file, by several processes. The last file is `manifest.json`, the sizes of all others,
written after every process has finished and the files are on the disk. A folder without it, or whose files differ from
it, is the remainder of a run that was killed: it is never resumed from, and older checkpoints stay until a newer one is
whole.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints

from ..atomic_writes import write_text

MANIFEST = "manifest.json"
# What writers raise on a full disk: Python's, safetensors' and torch.save's.
WRITE_ERRORS = (OSError, SafetensorError, RuntimeError)

log = logging.getLogger(__name__)


def checkpoint_folder(output: str | Path, step: int) -> Path:
    """Where the checkpoint of a step is kept."""
    return Path(output, f"{PREFIX_CHECKPOINT_DIR}-{step}")


def write_manifest(folder: Path) -> None:
    """Declare a checkpoint whole: flush its files to the disk, then list their sizes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    write_text(folder / MANIFEST, json.dumps({"files": sizes}, indent=1) + "\n")


def fault_of(folder: Path) -> str | None:
    """Why a checkpoint is not whole, in a few words; None if it is."""
    try:
        files: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    for name, size in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} of {size:,} bytes"
        if path.suffix == ".safetensors" and not _opens(path):
            return f"{name} is damaged"
    return None


def _opens(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


def last_whole_checkpoint(output: Path) -> Path | None:
    """The newest checkpoint that is whole; None if there is none. Those that are passed over are logged."""
    if not output.is_dir():
        return None
    for folder in map(Path, reversed(sort_checkpoints(str(output)))):
        fault = fault_of(folder)
        if fault is None:
            return folder
        log.warning("%s is not whole (%s) and is passed over", folder, fault)
    return None
