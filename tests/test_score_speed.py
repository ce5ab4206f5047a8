"""benchmarks/score_speed.py: both ways must agree, and the tables say what was measured."""

from pathlib import Path

import pytest

from bird_hf.eval.predictions import read_predictions


@pytest.fixture
def score_speed(load_script):
    return load_script(Path(__file__).parents[1] / "benchmarks" / "score_speed.py")


def test_two_ways_with_different_scores_are_not_compared(score_speed):
    with pytest.raises(SystemExit, match=r"differ: 0\.5 and 0\.4"):
        score_speed.side_by_side(lambda: 0.5, lambda: 0.4, 0.01, 1)


def test_ways_that_agree_are_timed(score_speed):
    found = score_speed.side_by_side(lambda: 0.5, lambda: sum([0.1] * 5) + 0 * sum(range(100_000)), 1e-6, 3)
    assert found["times_faster"] > 1 and found["repeat"] == 3
    case = {"what": "a score", "against": "another way", **found}
    text = score_speed.tables({"machine": score_speed.machine(), "mia": case})
    assert "| a score |" in text and f"| {found['times_faster']:.1f} |" in text


def test_no_two_of_many_answers_are_the_same(score_speed):
    rows = read_predictions(score_speed.GOLDEN / "mia.jsonl", "mia")
    many = [score_speed._numbered(rows[place % 2], place, "mia") for place in range(10)]
    assert len({each.response for each in many}) == len({each.image for each in many}) == 10
    assert {each.modality for each in many} == {each.modality for each in rows[:2]}


def test_memory_is_that_of_scoring(score_speed):
    found = score_speed.score_many("roc", 100)
    assert found["peak_bytes"] > 10_000_000 and found["seconds"] > 0
    memory = {"rows": 100, "tasks": {"roc": found}}
    text = score_speed.tables({"machine": score_speed.machine(), "memory": memory})
    assert "| 100 answers |" in text and f"| {found['peak_bytes'] / 2**20:.0f} |" in text
