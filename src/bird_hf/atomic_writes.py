"""Files and folders that appear under their names only when they are complete.

Everything is written under a temporary name in the same folder, `.NAME.making`, and renamed at the end. An error
removes what was written so far; after a kill the next write replaces it. The final name holds the old content or the
new one, never a part.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def temporary_name(path: Path) -> Path:
    """The name under which `path` is written: hidden, and on the same file system, so that it can be renamed."""
    return path.with_name(f".{path.name}.making")


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yields the temporary file to write; it becomes `path` if the block ends without an error.

    The content is flushed to the disk before the rename, so that a power cut cannot leave an empty file.
    """
    making = temporary_name(path)
    try:
        yield making
        with making.open("rb") as file:
            os.fsync(file.fileno())
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file with line feeds, replacing an existing one atomically."""
    with replacing_file(path) as making:
        making.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def replacing_folder(out: Path) -> Iterator[Path]:
    """Yields an empty temporary folder; it becomes `out` (see `move_folder`) if the block ends without an error.

    Raises ValueError if `out` is a file.
    """
    _refuse_file(out)
    making = temporary_name(out)
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        yield making
        move_folder(making, out)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def check_new_folder(out: Path) -> None:
    """Raises ValueError if a folder that a command is to make exists and is not empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not empty; give the name of a new folder")


def move_folder(made: Path, out: Path) -> None:
    """Moves a finished folder to `out`, where entries of the same names are replaced and all others stay.

    Raises ValueError if `out` is a file.
    """
    if not out.exists():
        made.rename(out)
        return
    _refuse_file(out)
    old = out / ".replaced"
    shutil.rmtree(old, ignore_errors=True)
    old.mkdir()
    for entry in made.iterdir():
        target = out / entry.name
        if target.exists():
            target.rename(old / entry.name)
        entry.rename(target)
    shutil.rmtree(old)
    made.rmdir()


def _refuse_file(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give the name of a folder")
