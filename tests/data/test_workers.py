"""Workers: every engine yields the same results in the order of the jobs, with few jobs submitted ahead."""

from __future__ import annotations

import math
import sys
from functools import partial

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from bird_hf.data.workers import in_workers


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs_and_few_are_ahead(workers: int) -> None:
    taken: list[int] = []

    def jobs():  # type: ignore[no-untyped-def]
        for number in range(40):
            taken.append(number)
            yield number

    for number, result in enumerate(in_workers(math.factorial, jobs(), workers)):
        assert result == math.factorial(number)
        assert len(taken) <= number + 3 * workers
    assert len(taken) == 40


@pytest.mark.parametrize("workers", [1, 2])
def test_exceptions_of_a_job_are_raised(workers: int) -> None:
    with pytest.raises(ValueError, match="math domain error"):
        list(in_workers(math.sqrt, [4, -1], workers))


def test_a_worker_computes_on_one_thread() -> None:
    names = {"pools": threadpool_info, "loads_blas": np.dot}
    # Workers cannot import functions from the tests.
    threads = partial(eval, "[pool['num_threads'] for pool in pools()]", names)
    assert list(in_workers(threads, [{}, {}], workers=2)) == [[1], [1]]


def test_an_unusable_engine_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^engine 'steam' is unknown; use one of processes, ray$"):
        in_workers(math.sqrt, [4], 2, "steam")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(
        ValueError, match=r"^no Ray cluster answers at RAY_ADDRESS=127\.0\.0\.1:1; start one, or unset it$"
    ):
        list(in_workers(math.sqrt, [4], 2, "ray"))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r'^--engine ray needs Ray; .* pip install -e "\.\[ray\]"$'):
        in_workers(math.sqrt, [4], 2, "ray")
