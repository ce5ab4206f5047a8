"""Write a folder that takes long: resumed after a kill, removed after an error, and in its place when it is complete.

`atomic_writes.replacing_folder` starts over after a kill; a conversion of 20 GB must not.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..atomic_writes import temporary_name


@contextmanager
def resumable_folder(dst: Path, identity: str) -> Iterator[Path]:
    """Yields a temporary folder that becomes `dst` at the end of the block.

    If the process is killed or stopped with Ctrl+C, the files remain, and the next run with the same `identity` gets
    them again; a run with another identity gets an empty folder. Any other error removes them. Raises ValueError if
    another process is writing the same `dst`.
    """
    place = dst.resolve()
    making = temporary_name(place)
    making.mkdir(parents=True, exist_ok=True)
    lock = FileLock(making / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{dst} is being written by another process; wait until it has ended") from None
    try:
        yield _resumed(making, identity)
        (making / "checkpoint").replace(place)
        shutil.rmtree(making, ignore_errors=True)
    except Exception:
        shutil.rmtree(making, ignore_errors=True)
        raise
    finally:
        lock.release()


def _resumed(making: Path, identity: str) -> Path:
    """Returns the folder to write: with the files of a stopped run if its identity is the same, otherwise empty."""
    record, folder = making / "identity", making / "checkpoint"
    if not record.is_file() or record.read_bytes() != identity.encode():
        record.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        record.write_bytes(identity.encode())
    folder.mkdir(exist_ok=True)
    return folder


def check_space(dst: Path, num_bytes: int) -> None:
    """Raises ValueError if the disk of `dst` does not have this many bytes free."""
    place = next(folder for folder in dst.resolve().parents if folder.is_dir())
    free = shutil.disk_usage(place).free
    if num_bytes > free:
        raise ValueError(
            f"{dst} needs {num_bytes / 1e9:,.2f} GB and its disk has {free / 1e9:,.2f} GB free; "
            "free some space, or give a folder on another disk"
        )
