"""Table 3 of a folder of predictions and Table 1 of several runs: numbers by hand, and errors."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bird_hf import cli
from bird_hf.eval.predictions import Prediction, read_predictions, write_predictions
from bird_hf.eval.run import Run, begin_run
from bird_hf.eval.score import score_predictions
from bird_hf.eval.score_tables import table_of_scores
from bird_hf.eval.tables import report_run
from bird_hf.reports.run_report import Choices, write_report

GOLDEN = Path(__file__).parents[1] / "golden" / "scores"
BOXED = "<ref>liver</ref><box>(100,100),(400,300)</box>"
NONE = "There is no liver in this image."
RUN = Run("nano", "ab12", "med-grit", "test", {"vg": 4, "roc": 2, "rc": 1, "absent": 3})


def answered(kind, *rows):
    """Predictions of (image, annotation, response, synthetic)."""
    return [
        Prediction(number, image, "Where?", annotation, response, kind, synthetic)
        for number, (image, annotation, response, synthetic) in enumerate(rows)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two real CT images, a real MR and a phantom CT; three of the four tasks, and absent objects."""
    folder = tmp_path / "run"
    begin_run(folder, RUN)
    files = {
        "vg": [
            ("ct_a.png", BOXED, BOXED, False),
            ("ct_b.png", BOXED, "(100,100)", False),
            ("mr_c.png", BOXED, BOXED, False),
            ("ct_d.png", BOXED, NONE, True),
        ],
        "roc": [("ct_a.png", "liver", "the livers", False), ("ct_d.png", "liver", "liver", True)],
        "rc": [("ct_a.png", "A large liver.", "A liver.", False)],
        "absent": [
            ("ct_a.png", NONE, BOXED, False),
            ("ct_b.png", NONE, NONE, False),
            ("ct_d.png", NONE, BOXED, True),
        ],
    }
    for kind, rows in files.items():
        write_predictions(folder / f"{kind}.jsonl", answered(kind, *rows))
    return folder


def test_real_images_and_phantoms_are_rows_apart_each_with_its_n(run):
    sources = report_run(run)["sources"]
    assert list(sources) == ["real", "phantom"]
    assert sources["real"]["vg"] == {
        "metric": "Recall@0.5",
        "modalities": {"ct": {"score": 0.5, "n": 2}, "mr": {"score": 1.0, "n": 1}},
        "mean": 0.75,
        "n_modalities": 2,
        "questions": 3,
        "malformed_rate": 0.0,
        "unreadable_rate": 1 / 3,  # a corner is no box
        # One case has no interval, and neither has a mean over it.
        "interval": {"mean": None, "modalities": {"ct": [0.0, 1.0], "mr": None}},
        "cases": {
            "unit": "image",
            "total": 3,
            "modalities": {"ct": 2, "mr": 1},
            "answers": {"ct": 2, "mr": 1},
        },
    }
    assert sources["phantom"]["vg"]["modalities"] == {"ct": {"score": 0.0, "n": 1}}
    assert sources["phantom"]["vg"]["mean"] == 0.0


def test_malformed_answers_are_counted_by_task_and_source(run):
    path = run / "vg.jsonl"
    broken = [replace(each, response="<box>(1,2)</box>") for each in read_predictions(path, "vg")[:2]]
    write_predictions(path, broken + read_predictions(path, "vg")[2:])
    sources = report_run(run)["sources"]
    assert sources["real"]["vg"]["malformed_rate"] == pytest.approx(2 / 3)
    assert sources["phantom"]["vg"]["malformed_rate"] == 0.0


def test_captions_without_their_measure_are_counted_and_it_is_said_why(run):
    report, text = write_report([run])
    row = report["sources"]["real"]["rc"]
    assert row["modalities"] == {"ct": {"score": None, "n": 1}}
    assert (row["mean"], row["n_modalities"]) == (None, 0)
    assert "| RC | SPICE | no score yet (1) | - |" in text
    assert (
        "bird setup spice" in report["rc_not_scored"]
        and f"RC is not scored: {report['rc_not_scored']}." in text
    )


def test_captions_are_scored_by_the_measure_that_is_asked_for(run):
    report, text = write_report([run], choices=Choices(rc_measure="scene_graph_f1"))
    row = report["sources"]["real"]["rc"]
    assert row["metric"] == report["rc_measure"] == "scene_graph_f1"
    assert row["modalities"]["ct"]["n"] == 1
    assert 0 < row["modalities"]["ct"]["score"] < 1  # "large" is missing
    assert row["mean"] == row["modalities"]["ct"]["score"]
    assert "rc_not_scored" not in report and r"| RC | scene\_graph\_f1 |" in text
    with pytest.raises(ValueError, match="use spice or scene_graph_f1"):
        report_run(run, rc_measure="cider")


def test_boxes_given_for_what_is_not_there_are_a_rate(run):
    sources = report_run(run)["sources"]
    assert sources["real"]["absent"]["modalities"] == {"ct": {"score": 0.5, "n": 2}}
    assert sources["phantom"]["absent"]["modalities"] == {"ct": {"score": 1.0, "n": 1}}


def test_strict_rules_go_through_to_the_scores(run):
    rows = {rules: report_run(run, rules)["sources"]["real"]["roc"] for rules in ("paper", "strict")}
    assert (rows["paper"]["mean"], rows["strict"]["mean"]) == (1.0, 0.0)  # "liver" in "livers"


def test_both_files_are_written_and_say_which_weights(run):
    report, text = write_report([run])
    assert json.loads((run / "report.json").read_text()) == report
    assert (run / "report.md").read_text() == text
    assert report["weights_sha256"] == "ab12" and "`ab12`" in text
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_the_table_has_the_papers_columns_in_percent(run):
    text = write_report([run])[1]
    columns = "CT | MR | X-ray | PET | Endoscopy | Dermoscopy | Fundus | Ultrasound | mean | malformed"
    assert f"| task | metric | {columns} |" in text
    assert (
        "| VG | Recall@0.5 | 50.00 (2) | 100.00 (1) | - | - | - | - | - | - | 75.00 (2) | 0.00 (3) |" in text
    )
    assert "| listed as absent | boxed | 50.00 (2) |" in text
    assert text.index("## Real images") < text.index("## Phantoms")


def test_files_of_the_original_are_a_run_and_score_as_they_do_alone(tmp_path):
    for task in ("vg", "roc"):
        shutil.copy(GOLDEN / f"{task}.jsonl", tmp_path)
    report, text = write_report([tmp_path])
    for task in ("vg", "roc"):
        alone = score_predictions(read_predictions(GOLDEN / f"{task}.jsonl", task), task)
        row = report["sources"]["unmarked"][task]
        assert row["mean"] == pytest.approx(alone["mean"])
        assert row["modalities"] == {
            name: {"score": each["score"], "n": each["total"]} for name, each in alone["modalities"].items()
        }
    assert report["weights_sha256"] is None and "an unknown model" in text


def test_several_runs_are_a_line_each_and_have_reports_of_their_own(run, tmp_path):
    shutil.copytree(run, tmp_path / "larger")
    report, text = write_report([tmp_path])
    assert list(report["runs"]) == ["larger", "run"]
    assert "| run | real | 75.00 | 100.00 | - | - | 87.50 |" in text
    assert "| larger | phantom | 0.00 | 100.00 | - | - | 50.00 |" in text
    assert (tmp_path / "larger" / "report.md").is_file() and (tmp_path / "report.md").read_text() == text


def test_a_table_has_a_line_a_modality():
    table = table_of_scores(score_predictions(answered("vg", ("ct_a.png", BOXED, BOXED, None)), "vg"))
    assert "| ct | 1.0000 | 1 | 1 |" in table
    assert "| mean of 1 | 1.0000 |" in table


class TestRefusals:
    @pytest.fixture
    def refused(self, run, monkeypatch, capsys):
        """Runs `bird report` on the run, which must fail with one line; returns the line."""

        def bird(*arguments):
            monkeypatch.setattr(sys, "argv", ["bird", "report", str(run), *arguments])
            with pytest.raises(SystemExit, match="2"):
                cli.main()
            captured = capsys.readouterr()
            assert captured.out == "" and captured.err.count("\n") == 1
            assert not (run / "report.json").exists()
            return captured.err

        return bird

    def test_an_unfinished_file(self, run, refused):
        write_predictions(run / "vg.jsonl", read_predictions(run / "vg.jsonl", "vg")[:3])
        assert "vg.jsonl has 3 answers to 4 questions; give --model and --data again" in refused()

    def test_a_missing_file(self, run, refused):
        (run / "roc.jsonl").unlink()
        assert "roc.jsonl has 0 answers to 2 questions; give --model and --data again" in refused()

    def test_a_file_more_than_the_run_asked_for(self, run, refused):
        write_predictions(run / "mia.jsonl", answered("mia", ("ct_a.png", "It is CT.", "CT", False)))
        assert "mia.jsonl has 1 answers to 0 questions" in refused()

    def test_another_tasks_file(self, run, refused):
        shutil.copy(run / "roc.jsonl", run / "vg.jsonl")
        assert "vg.jsonl answers task 'roc', not 'vg'" in refused()

    def test_an_empty_file(self, run, refused):
        (run / "absent.jsonl").write_text("")
        assert "absent.jsonl is empty" in refused()

    def test_a_damaged_run_file(self, run, refused):
        for text in ("{", "[1]", '{"model": "a"}', '{"model": 1, "questions": 2}'):
            (run / "run.json").write_text(text)
            assert "run.json is damaged" in refused()

    def test_no_predictions_at_all(self, run, refused):
        for path in run.glob("*.json*"):
            path.unlink()
        assert "holds no predictions" in refused()

    def test_no_folder(self, run, refused):
        shutil.rmtree(run)
        assert "no such folder; give --model and --data" in refused()

    def test_a_model_without_data(self, refused):
        assert "--model and --data go together" in refused("--model", "bird")

    def test_unknown_rules(self, refused):
        assert "rules 'lenient' are unknown" in refused("--rules", "lenient")

    def test_answers_of_other_weights_are_not_gone_on_with(self, run):
        with pytest.raises(ValueError, match="another run \\(weights_sha256 'ab12', now 'cd34'\\)"):
            begin_run(run, replace(RUN, weights_sha256="cd34"))
        begin_run(run, RUN)

    def test_files_without_a_run_are_not_mixed_with_new_ones(self, run):
        (run / "run.json").unlink()
        with pytest.raises(ValueError, match="prediction files of an unknown model"):
            begin_run(run, RUN)
