"""A folder that is being written: continued after a kill, gone after an error, in its place when it is whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def unfinished_folder(dst: Path, identity: str) -> Iterator[Path]:
    """A folder that becomes `dst` at the end of the block.

    It stands in a hidden folder beside `dst`. Where the process is killed, or stopped by Ctrl+C, it stays, and the
    next run with the same `identity` finds what was written; a run with another begins anew. Any other error
    removes it. Raises ValueError where another process is writing the same `dst`.
    """
    place = dst.resolve()
    making = place.with_name(f".{place.name}.making")
    making.mkdir(parents=True, exist_ok=True)
    lock = FileLock(making / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{dst} is being written by another process; wait for it") from None
    try:
        yield _continued(making, identity)
        (making / "checkpoint").replace(place)
        shutil.rmtree(making, ignore_errors=True)
    except Exception:
        shutil.rmtree(making, ignore_errors=True)
        raise
    finally:
        lock.release()


def _continued(making: Path, identity: str) -> Path:
    record, folder = making / "identity", making / "checkpoint"
    if not record.is_file() or record.read_bytes() != identity.encode():
        record.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        record.write_bytes(identity.encode())
    folder.mkdir(exist_ok=True)
    return folder


def check_space(dst: Path, num_bytes: int) -> None:
    """Raises ValueError where the disk of `dst` does not have that many bytes free."""
    place = next(folder for folder in dst.resolve().parents if folder.is_dir())
    free = shutil.disk_usage(place).free
    if num_bytes > free:
        raise ValueError(
            f"{dst} needs {num_bytes / 1e9:,.2f} GB and its disk has {free / 1e9:,.2f} GB free; "
            "free some, or give a folder on another disk"
        )
