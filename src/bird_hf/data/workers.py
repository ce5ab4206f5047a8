"""Work in other processes, of this machine or of a Ray cluster: the same function, results in the order of the jobs."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from ..extras import missing_extra

Job = TypeVar("Job")
Result = TypeVar("Result")
Handle = TypeVar("Handle")

ENGINES = ("processes", "ray")
_AHEAD = 3  # jobs a worker has waiting: enough to stay busy, few enough for flat memory
_LOOK_EVERY_S = 0.5
_CONNECT_S = 10


def batched(items: Iterable[Job], size: int) -> Iterator[tuple[Job, ...]]:
    """Items in tuples of `size`, the last one shorter (itertools has this from Python 3.12 on)."""
    rest = iter(items)
    while batch := tuple(islice(rest, size)):
        yield batch


def in_workers(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, engine: str = "processes"
) -> Iterator[Result]:
    """`function` of each job, in the order of the jobs, of which a few a worker are under way at a time.

    engine: "processes" are those of this machine, which die with this one; one worker is this process itself. "ray"
    runs on the cluster that RAY_ADDRESS names, and without that on `workers` processes here; what a job reads must
    be under the same path on every node. What a job raises is raised here. Raises ValueError, in one line, where the
    engine is unknown or Ray cannot be used.
    """
    check_engine(engine)
    if engine == "ray":
        return _on_ray(function, jobs, workers)
    return map(function, jobs) if workers <= 1 else _in_processes(function, jobs, workers)


def check_engine(engine: str) -> None:
    """Raises ValueError, in one line, where there is no such engine, or Ray is not installed."""
    if engine not in ENGINES:
        raise ValueError(f"engine {engine!r} is unknown; use one of {', '.join(ENGINES)}")
    if engine == "ray":
        _import_ray()


def _in_processes(function: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    # Spawned, not forked: the parent may hold threads and open files.
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_die_with, initargs=(os.getpid(),)
    )
    alone = partial(_on_one_thread, function)
    try:
        yield from _in_order(lambda job: pool.submit(alone, job), Future.result, jobs, workers * _AHEAD)
    finally:
        pool.shutdown(cancel_futures=True)


def _on_ray(function: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    ray = _import_ray()
    ours = not ray.is_initialized()
    if ours:
        _start(ray, workers)
    cores = max(workers, int(ray.cluster_resources().get("CPU", 1)))
    task = ray.remote(lambda job: function(job))  # Ray takes no partial

    def result_of(handle: Any) -> Result:
        try:
            return ray.get(handle)
        except ray.exceptions.RayTaskError as error:  # its own text is a traceback of many lines
            raise (error.cause or error) from None

    try:
        yield from _in_order(task.remote, result_of, jobs, cores * _AHEAD)
    finally:
        if ours:
            ray.shutdown()


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ValueError(f"--engine ray needs Ray; {missing_extra('ray')}") from None
    return ray


def _start(ray: Any, workers: int) -> None:
    """Join the cluster that RAY_ADDRESS names, or start one of `workers` processes that ends with this program."""
    address = os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if not address:
        # On the loopback address: a cluster of this machine alone is nobody else's to reach.
        ray.init("local", num_cpus=workers, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if port.isdigit():  # Ray itself asks a deaf address for minutes
            socket.create_connection((host, int(port)), _CONNECT_S).close()
        ray.init(address, **quiet)
    except OSError:
        raise ValueError(f"no Ray cluster answers at RAY_ADDRESS={address}; start one, or unset it") from None


def _in_order(
    begin: Callable[[Job], Handle], result_of: Callable[[Handle], Result], jobs: Iterable[Job], most: int
) -> Iterator[Result]:
    """The results of jobs, in their order; at most so many are begun and not handed on."""
    begun: deque[Handle] = deque()
    for job in jobs:
        begun.append(begin(job))
        if len(begun) == most:
            yield result_of(begun.popleft())
    while begun:
        yield result_of(begun.popleft())


def _on_one_thread(function: Callable[[Job], Result], job: Job) -> Result:
    """A worker has one core, as with Ray: with BLAS on all of them in each, they wait for one another."""
    with threadpool_limits(1):
        return function(job)


def _die_with(parent: int) -> None:
    """Ends this process soon after its parent has gone: kill -9 leaves nobody behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
