"""The evaluate module loads offline from the repository's root and says what the scores say."""

from __future__ import annotations

from pathlib import Path

import pytest

REFERENCE = "<ref>liver</ref><box>(110,100),(400,310)</box>"


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    import evaluate

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[2])
        yield evaluate.load("metrics/grounding_recall", cache_dir=str(tmp_path_factory.mktemp("evaluate")))


def test_it_counts_boxes(metric):
    predictions = ["<ref>liver</ref><box>(100,100),(400,300)</box>", "There is no liver in this image."]
    result = metric.compute(predictions=predictions, references=[REFERENCE, REFERENCE])
    assert result == {"recall": 0.5, "hits": 1, "total": 2}


def test_batches_add_up(metric):
    for prediction in ("<box>(100,100),(400,300)</box>", "nothing"):
        metric.add_batch(predictions=[prediction], references=[REFERENCE])
    assert metric.compute() == {"recall": 0.5, "hits": 1, "total": 2}


def test_without_boxes_there_is_no_score(metric):
    assert metric.compute(predictions=["nothing"], references=["nothing"])["recall"] is None
