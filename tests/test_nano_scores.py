"""The table of the README and `bird report` give the same figures for the same answers."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bird_hf.eval.check_scores import table_of_checks
from bird_hf.eval.tables import report_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def nano_scores():
    spec = importlib.util.spec_from_file_location("nano_scores", ROOT / "benchmarks" / "nano_scores.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["nano_scores"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def questions(nano_scores):
    return nano_scores.all_questions(phantoms=2, slices=1)


@pytest.fixture(scope="module")
def answered(questions):
    """Every third answer is that of another question, and every seventh is malformed."""
    predictions = [question.prediction for question in questions]
    others = {3 * number: predictions[number].annotation for number in range(len(predictions))}
    broken = dict.fromkeys(range(0, len(predictions), 7), "It is here: <box>(1,2)</box>")
    return [
        replace(each, response=(others | broken).get(number, each.annotation))
        for number, each in enumerate(predictions)
    ]


@pytest.fixture(scope="module")
def scored(nano_scores, questions, answered):
    return nano_scores.score(questions, answered)


@pytest.fixture(scope="module")
def report(nano_scores, answered, tiny_checkpoint, tmp_path_factory):
    """The report of `bird report` on the same answers."""
    run = tmp_path_factory.mktemp("scores") / "run"
    nano_scores.write_run(run, tiny_checkpoint, "test", answered)
    return report_run(run)


@pytest.mark.slow
def test_phantoms_score_as_in_a_report_of_the_same_answers(scored, report):
    table = scored
    phantoms = {
        source.removeprefix("phantom "): kinds
        for source, kinds in table["sources"].items()
        if source.startswith("phantom ")
    }
    assert len(phantoms) == 8
    for kind in ("vg", "roc", "absent"):
        row = report["sources"]["phantom"][kind]
        counted = {name: (row["score"], row["n"]) for name, row in row["modalities"].items()}
        assert counted == {
            name: (kinds[kind]["score"], kinds[kind]["total"])
            for name, kinds in phantoms.items()
            if kind in kinds
        }
        assert table["phantom_mean"].get(kind, row["mean"]) == pytest.approx(row["mean"])
        assert {score for score, _ in counted.values()} != {1.0}, "the answers must hold mistakes"


def test_checks_score_as_in_a_report_of_the_same_answers(nano_scores, scored, report):
    assert scored["checks"] == report["checks"]
    scores = [cell["score"] for row in scored["checks"].values() for cell in row.values()]
    assert min(scores) < 0.5 < max(scores) and 0 < scores.count(1.0) < len(scores)
    assert table_of_checks(report["checks"]) in nano_scores.table_of_rest(scored)


def test_analyses_are_scored_over_all_modalities(nano_scores, scored, report):
    assert scored["mia"]["questions"] == sum(rows["mia"]["questions"] for rows in report["sources"].values())
    assert f"{scored['mia']['mbmr']:.4f} of {scored['mia']['questions']}" in nano_scores.table_of_rest(scored)


def test_without_the_packages_of_mia_the_other_scores_are_printed(
    nano_scores, questions, answered, monkeypatch
):
    def missing(*_):
        raise ValueError("scoring text needs the COCO caption toolkit")

    monkeypatch.setattr(nano_scores, "score_predictions", missing)
    text = nano_scores.table_of_rest(nano_scores.score(questions, answered))
    assert "not scored (scoring text needs the COCO caption toolkit)" in text and "| VG, CAPITALS |" in text


def test_real_volumes_add_up_to_the_reports_modalities(scored, report):
    table, real = scored["sources"], report["sources"]["real"]
    heads, brain, lung = (table[f"real {name}"] for name in ("mni152 head", "brain2", "lung2"))
    for kind in ("vg", "roc"):
        hits, total = (heads[kind][key] + brain[kind][key] for key in ("hits", "total"))
        assert real[kind]["modalities"]["mr"] == {"score": hits / total, "n": total}
        assert real[kind]["modalities"]["ct"] == {"score": lung[kind]["score"], "n": lung[kind]["total"]}


def test_ids_and_names_are_those_of_prediction_files(nano_scores, questions):
    for kind in nano_scores.KINDS:
        ids = [each.prediction.id for each in questions if each.prediction.task == kind]
        assert ids == list(range(len(ids)))
    assert all(re.search(r"^[a-z_0-9]+--.+\.png$", each.prediction.image) for each in questions)


def test_the_malformed_are_counted(nano_scores, questions, scored):
    report = scored
    assert report["questions"] == len(questions)
    assert report["malformed_rate"] == pytest.approx(len(range(0, len(questions), 7)) / len(questions))
    assert f"Malformed answers: {report['malformed_rate']:.4f} of {len(questions)}." in nano_scores.table(
        report
    )
