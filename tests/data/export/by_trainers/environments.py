"""Environments of other trainers: virtual environments that are made once, with the versions that a test names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

_STAMP = "installed.json"  # written last, so that an environment whose installation broke off is completed


def python_of(folder: Path, name: str, arguments: Sequence[str]) -> Path:
    """The Python of the environment `folder`/`name`, in which `pip install ARGUMENTS` has ended well.

    It is made where there is none, or where it was made with other arguments. One installation runs at a time. Raises
    AssertionError, with what pip said, if an installation fails.
    """
    home = folder / name
    python, stamp = home / "bin" / "python", home / _STAMP
    if _is_installed(stamp, arguments):
        return python
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "installing.lock"):
        if not _is_installed(stamp, arguments):  # while the lock was waited for
            stamp.unlink(missing_ok=True)
            if not python.is_file():
                _run([sys.executable, "-m", "venv", str(home)])
            _run([str(python), "-m", "pip", "install", "--quiet", *arguments])
            stamp.write_text(json.dumps(list(arguments)), encoding="utf-8")
    return python


def _is_installed(stamp: Path, arguments: Sequence[str]) -> bool:
    return stamp.is_file() and json.loads(stamp.read_text("utf-8")) == list(arguments)


def ask(python: Path, script: Path, folder: Path, **question: Any) -> Any:
    """What a script prints into `answer.json` of `folder`, run by `python` in `folder` without network or GPU.

    The question is written to `question.json` there. Raises AssertionError, with the end of what the script said, if
    it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "question.json").write_text(json.dumps(question), encoding="utf-8")
    offline = {
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(folder / "hf"),
    }
    _run([str(python), str(script)], folder, offline | {"MODELSCOPE_CACHE": str(folder / "modelscope")})
    return json.loads((folder / "answer.json").read_text("utf-8"))


def _run(command: list[str], folder: Path | None = None, more: dict[str, str] | None = None) -> None:
    # The paths of this environment's packages are not the other's.
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    ran = subprocess.run(
        command, cwd=folder, env=kept | (more or {}), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, (
        f"{' '.join(command)} ended with {ran.returncode}:\n{(ran.stdout + ran.stderr)[-6000:]}"
    )
