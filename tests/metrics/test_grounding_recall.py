"""The evaluate module counts boxes, by either rules."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

REFERENCE = "<ref>liver</ref><box>(110,100),(400,310)</box>"
ABSENT = "There is no liver in this image."


@pytest.fixture
def metric(load_metric):
    return load_metric("grounding_recall")


def test_it_counts_boxes(metric):
    predictions = ["<ref>liver</ref><box>(100,100),(400,300)</box>", ABSENT]
    result = metric.compute(predictions=predictions, references=[REFERENCE, REFERENCE])
    assert result == {"recall": 0.5, "hits": 1, "total": 2}


def test_batches_add_up(metric):
    for prediction in ("<box>(100,100),(400,300)</box>", "nothing"):
        metric.add_batch(predictions=[prediction], references=[REFERENCE])
    result = metric.compute(modalities=["pet", "ct"])
    assert (result["recall"], result["hits"], result["total"]) == (0.5, 1, 2)
    assert list(result["modalities"]) == ["ct", "pet"]


def test_without_boxes_there_is_no_score(metric):
    result = metric.compute(predictions=[ABSENT], references=[ABSENT], modalities=["ct"])
    assert (result["recall"], result["mean"], result["n_modalities"]) == (None, None, 0)


def test_strict_rules_ask_for_the_absent_and_charge_false_boxes(metric):
    asked = {"predictions": [REFERENCE * 2, ABSENT, REFERENCE], "references": [REFERENCE, ABSENT, ABSENT]}
    assert metric.compute(**asked) == {"recall": 1.0, "hits": 1, "total": 1}
    assert metric.compute(**asked, rules="strict") == {
        "recall": 0.5,
        "hits": 2,
        "total": 4,
        "unreadable_rate": 0.0,
    }
