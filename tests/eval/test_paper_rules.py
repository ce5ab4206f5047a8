"""The paper's rules give what the original scripts gave on the same predictions."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from bird_hf.eval.paper_rules import clean_response, grounding_recall, name_recall
from bird_hf.eval.recall import Recall

GOLDEN = Path(__file__).parents[1] / "golden" / "scores"
OFFICIAL = json.loads((GOLDEN / "official.json").read_text())


def predictions(task):
    return [json.loads(line) for line in (GOLDEN / f"{task}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("response", "kept"), OFFICIAL["cleanup"])
def test_a_response_is_cleaned_as_the_original_does(response, kept):
    assert clean_response(response) == kept


@pytest.mark.parametrize(("task", "score"), [("vg", grounding_recall), ("roc", name_recall)])
def test_counts_equal_the_originals(task, score):
    hits, totals = Counter(), Counter()
    for row in predictions(task):
        modality = row["image"].split("_")[0]
        recall = score(row["annotation"], clean_response(row["response"]))
        hits[modality] += recall.hits
        totals[modality] += recall.total
    counted = {modality: [hits[modality], totals[modality]] for modality in OFFICIAL[task]["modality"]}
    assert counted == OFFICIAL[task]["modality"]


def test_the_rules_are_as_lenient_as_the_originals():
    two = "<box>(0,0),(100,100)</box><box>(0,0),(100,101)</box>"
    assert grounding_recall(two, "<box>(0,0),(100,100)</box><box>(5,5),(900,900)</box>").hits == 2
    assert grounding_recall("It is not there.", "<box>(0,0),(100,100)</box>").total == 0
    assert name_recall("rib", "tribal").hits == 1


@pytest.mark.parametrize(
    "response",
    [
        pytest.param("<box>" * 50_000, id="never closed"),
        pytest.param("<box>(0,0),(" + "9" * 5000 + ",9)</box>", id="longer than int() takes"),
    ],
)
def test_hostile_text_is_a_miss_and_takes_no_time(response):
    began = time.process_time()
    assert grounding_recall("<box>(0,0),(100,100)</box>", response) == Recall(0, 1)
    assert time.process_time() - began < 2
