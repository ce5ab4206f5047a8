"""Laws of the bootstrap: it is over cases, seeded, narrower with more cases, and zero for equal files."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from bird_hf.eval import intervals
from bird_hf.eval.intervals import DRAWS, cases_of, draw_ratios, draw_sums, interval_of, mean_draws, ratio
from bird_hf.eval.predictions import Prediction


def drawn(right, cases):
    return draw_ratios(right, np.ones(len(right)), cases)


def test_the_draws_are_the_same_every_time():
    right, cases = [1, 0, 1, 1], ["a", "b", "c", "d"]
    first, second = drawn(right, cases), drawn(right, cases)
    assert first.shape == (DRAWS,) and np.array_equal(first, second)


@pytest.mark.parametrize("seed", range(5))
def test_an_interval_contains_the_mean_and_shrinks_with_the_number_of_cases(seed):
    rng = np.random.default_rng(seed)
    widths = []
    for number in (20, 80, 320):
        right = rng.random(number) < 0.6
        low, high = interval_of(drawn(right, [str(each) for each in range(number)]), number)
        assert low <= right.mean() <= high
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]


def test_the_width_is_that_of_the_normal_approximation():
    """400 cases, 0.6 right: 1.96 * sqrt(0.6 * 0.4 / 400) = 0.048 on each side."""
    right = [1] * 240 + [0] * 160
    low, high = interval_of(drawn(right, [str(each) for each in range(400)]), 400)
    assert (0.6 - low, high - 0.6) == (pytest.approx(0.048, abs=0.006), pytest.approx(0.048, abs=0.006))


def test_cases_are_drawn_whole():
    """Ten answers about each of ten cases, all alike in a case: as uncertain as ten answers, not as a hundred."""
    right = [number % 2 for number in range(10)]
    one = interval_of(drawn(right, [str(number) for number in range(10)]), 10)
    tenfold = interval_of(drawn(np.repeat(right, 10), np.repeat(range(10), 10).astype(str)), 10)
    assert tenfold == pytest.approx(one)


def test_every_draw_has_as_many_cases_as_there_are():
    sums = draw_sums(np.ones((7, 1)), [str(each) for each in range(7)])
    assert (sums == 7).all()


def test_draws_do_not_depend_on_what_a_value_is_beside():
    """The draws of a column are the same beside any other column, which makes differences paired."""
    values, cases = np.random.default_rng(0).random((30, 2)), [str(each % 9) for each in range(30)]
    assert np.allclose(draw_sums(values, cases)[:, 1], draw_sums(values[:, 1:], cases)[:, 0])


@pytest.mark.parametrize(("right", "interval"), [([1, 1, 1], [1.0, 1.0]), ([0, 0, 0], [0.0, 0.0])])
def test_answers_all_alike_have_no_width(right, interval):
    assert interval_of(drawn(right, ["a", "b", "c"]), 3) == interval


def test_one_case_has_no_interval():
    assert interval_of(drawn([1, 0], ["a", "a"]), 1) is None


def test_a_draw_without_a_total_is_left_out():
    values = ratio(np.array([1.0, 0.0]), np.array([2.0, 0.0]))
    assert values[0] == 0.5 and np.isnan(values[1])
    assert mean_draws([np.array([0.2, np.nan]), np.array([0.4, 0.6])]).tolist() == pytest.approx([0.3, 0.6])


def test_images_stand_for_cases_if_one_answer_has_none():
    answers = [Prediction(number, f"ct_{number}.png", "?", "", "", case_id="a") for number in range(2)]
    assert cases_of(answers) == (["a", "a"], "case")
    assert cases_of([answers[0], replace(answers[1], case_id=None)]) == (["ct_0.png", "ct_1.png"], "image")


def test_memory_is_linear_in_the_number_of_answers(monkeypatch):
    monkeypatch.setattr(intervals, "DRAWS", 200)
    cases = [str(each) for each in range(50_000)]
    tracemalloc.start()
    draw_sums(np.ones((50_000, 2)), cases)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 * 2**20  # 200 draws of 50,000 cases at once would need 240 MiB three times
