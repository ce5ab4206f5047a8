"""Work in other processes that die with their parent, however it ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_AHEAD = 3  # jobs a worker has waiting: enough to stay busy, few enough for flat memory
_LOOK_EVERY_S = 0.5


def batched(items: Iterable[Job], size: int) -> Iterator[tuple[Job, ...]]:
    """Items in tuples of `size`, the last one shorter (itertools has this from Python 3.12 on)."""
    rest = iter(items)
    while batch := tuple(islice(rest, size)):
        yield batch


def in_workers(function: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    """`function` of each job, in the order in which they end. One worker is this process itself."""
    if workers <= 1:
        yield from map(function, jobs)
        return
    # Spawned, not forked: the parent may hold threads and open files.
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_die_with, initargs=(os.getpid(),)
    )
    try:
        running: set[Future[Result]] = set()
        for job in jobs:
            running.add(pool.submit(function, job))
            if len(running) >= workers * _AHEAD:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        pool.shutdown(cancel_futures=True)


def _die_with(parent: int) -> None:
    """Ends this process soon after its parent has gone: kill -9 leaves nobody behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
