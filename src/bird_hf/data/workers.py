"""Run a function over jobs in worker processes or on a Ray cluster, with results in the order of the jobs."""

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
_JOBS_PER_WORKER = 3  # submitted at a time: enough to keep workers busy, few enough for constant memory
_PARENT_CHECK_S = 0.5
_CONNECT_TIMEOUT_S = 10


def batched(items: Iterable[Job], size: int) -> Iterator[tuple[Job, ...]]:
    """Yield tuples of `size` items; the last may be shorter (`itertools.batched` needs Python 3.12)."""
    remaining = iter(items)
    while batch := tuple(islice(remaining, size)):
        yield batch


def in_workers(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, engine: str = "processes"
) -> Iterator[Result]:
    """Yield `function(job)` for each job, in the order of the jobs; only a few jobs per worker are submitted at a time.

    engine: "processes" runs on this machine, in processes that end with this one, or in this process if `workers` is
    1. "ray" runs on the cluster at RAY_ADDRESS, or on `workers` local processes if that is not set; files that a job
    reads must be at the same path on every node. Exceptions of a job are raised here. Raises ValueError, in one line,
    if the engine is unknown or Ray cannot be used.
    """
    check_engine(engine)
    if engine == "ray":
        return _on_ray(function, jobs, workers)
    return map(function, jobs) if workers <= 1 else _in_processes(function, jobs, workers)


def check_engine(engine: str) -> None:
    """Raises ValueError, in one line, if the engine is unknown or Ray is not installed."""
    if engine not in ENGINES:
        raise ValueError(f"engine {engine!r} is unknown; use one of {', '.join(ENGINES)}")
    if engine == "ray":
        _import_ray()


def _in_processes(function: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    # Spawned, not forked: the parent may have threads and open files.
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_exit_with_parent, initargs=(os.getpid(),)
    )
    single_threaded = partial(_on_one_thread, function)
    try:
        yield from _in_order(
            lambda job: pool.submit(single_threaded, job), Future.result, jobs, workers * _JOBS_PER_WORKER
        )
    finally:
        pool.shutdown(cancel_futures=True)


def _on_ray(function: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    ray = _import_ray()
    is_started_here = not ray.is_initialized()
    if is_started_here:
        _start(ray, workers)
    cores = max(workers, int(ray.cluster_resources().get("CPU", 1)))
    task = ray.remote(lambda job: function(job))  # Ray does not accept a partial

    def result_of(handle: Any) -> Result:
        try:
            return ray.get(handle)
        except ray.exceptions.RayTaskError as error:  # its own message is a traceback of many lines
            raise (error.cause or error) from None

    try:
        yield from _in_order(task.remote, result_of, jobs, cores * _JOBS_PER_WORKER)
    finally:
        if is_started_here:
            ray.shutdown()


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ValueError(f"--engine ray needs Ray; {missing_extra('ray')}") from None
    return ray


def _start(ray: Any, workers: int) -> None:
    """Connect to the cluster at RAY_ADDRESS, or start a local one of `workers` processes, which ends with this one."""
    address = os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if not address:
        # On the loopback address, so that other machines cannot reach the cluster.
        ray.init("local", num_cpus=workers, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if port.isdigit():  # Ray itself retries an unreachable address for minutes
            socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()
        ray.init(address, **quiet)
    except OSError:
        raise ValueError(f"no Ray cluster answers at RAY_ADDRESS={address}; start one, or unset it") from None


def _in_order(
    submit: Callable[[Job], Handle], result_of: Callable[[Handle], Result], jobs: Iterable[Job], limit: int
) -> Iterator[Result]:
    """Yield the results in the order of the jobs, with at most `limit` jobs submitted and not yet yielded."""
    submitted: deque[Handle] = deque()
    for job in jobs:
        submitted.append(submit(job))
        if len(submitted) == limit:
            yield result_of(submitted.popleft())
    while submitted:
        yield result_of(submitted.popleft())


def _on_one_thread(function: Callable[[Job], Result], job: Job) -> Result:
    """Run a job with one BLAS thread: workers that each use all cores slow each other down."""
    with threadpool_limits(1):
        return function(job)


def _exit_with_parent(parent: int) -> None:
    """Exit this process soon after its parent ends, even if the parent is killed with SIGKILL."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
