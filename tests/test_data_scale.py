"""benchmarks/data_scale.py: nested parts of a set of images, runs that are skipped and stopped, the table."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bird_hf.eval.predictions import Prediction, write_predictions
from bird_hf.eval.run import prediction_file

ROOT = Path(__file__).parents[1]
NAMES = [f"mr_{number:04d}--head" for number in range(120)]


@pytest.fixture(autouse=True)
def _from_its_folder(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


# --- what a study is made of ------------------------------------------------------------------------------------


def test_a_part_holds_the_smaller_parts_of_its_seed_whatever_the_order_of_rows():
    from data_scale_parts.study import subset

    parts = [subset(NAMES, share, 1) for share in (12, 6, 3, 1)]
    assert [len(part) for part in parts] == [10, 20, 40, 120]
    assert parts[0] < parts[1] < parts[2] < parts[3] == {*NAMES}
    assert subset([*reversed(NAMES), *NAMES], 12, 1) == parts[0]  # images count once, in any order
    assert subset(NAMES, 12, 2) != parts[0]


def test_a_folder_holds_one_study(tmp_path):
    from data_scale_parts.study import Study, begin

    begin(Study(steps=10), tmp_path)
    begin(Study(steps=10), tmp_path)
    with pytest.raises(ValueError, match=r"another study \(steps 10, now 12\); choose another --out"):
        begin(Study(steps=12), tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 1}, "--steps is 1"),  # the answers would get none
        ({"images": 5, "shares": (6, 1)}, "without images"),  # a sixth of five images
        ({"shares": (0,)}, "without images"),  # no share at all
        ({"seeds": (1, 1)}, "once"),  # the same run twice
        ({"seeds": ()}, "once"),  # no run
    ],
)
def test_settings_without_a_sense_are_refused(settings, message):
    from data_scale_parts.study import Study

    with pytest.raises(ValueError, match=message):
        Study(**settings)


def test_runs_differ_in_their_seed_and_folder_alone(tmp_path):
    from data_scale_parts.study import RECIPE, Study, write_recipe

    study = Study(steps=100, recipe=yaml.safe_load(RECIPE.read_text(encoding="utf-8")))
    recipes = [
        yaml.safe_load(write_recipe(study, run, tmp_path, 1, True).read_text(encoding="utf-8"))
        for run in study.runs
    ]
    assert len(recipes) == 8
    assert {key for each in recipes for key in each if each[key] != recipes[0][key]} == {"seed", "output_dir"}
    assert recipes[0]["max_steps"] == 100 and recipes[0]["stages"][0]["steps"] == 50


# --- runs are processes -----------------------------------------------------------------------------------------


def command(tmp_path, name, code):
    folder = tmp_path / name
    folder.mkdir()
    result = {"seconds": {"training": 1.0}}
    finish = (
        f"import pathlib; pathlib.Path(r'{folder}', 'result.json').write_text('''{json.dumps(result)}''')"
    )
    return folder, [sys.executable, "-c", code.replace("FINISH", finish)]


def test_finished_runs_are_skipped_and_failed_ones_named(tmp_path):
    from data_scale_parts.runs import run_all

    done = command(tmp_path, "done", "raise SystemExit('run again')")
    (done[0] / "result.json").write_text("{}")
    commands = [
        done,
        command(tmp_path, "good", "FINISH"),
        command(tmp_path, "bad", "raise SystemExit('no such card')"),
    ]
    finished = []
    errors = run_all(commands, 2, time.monotonic() + 60, lambda: finished.append(1), tmp_path)
    assert len(errors) == 1 and errors[0].startswith("bad failed") and "no such card" in errors[0]
    assert len(finished) == 1 and (tmp_path / "good" / "result.json").exists()


def test_runs_are_stopped_when_their_time_is_over(tmp_path):
    from data_scale_parts.runs import run_all

    commands = [
        command(tmp_path, name, "import time; time.sleep(60); FINISH") for name in ("slow", "waiting")
    ]
    start = time.monotonic()
    errors = run_all(commands, 1, start + 0.5, lambda: None, tmp_path)
    assert errors == ["no time was left for slow, waiting; run the same command again"]
    assert time.monotonic() - start < 20 and not (tmp_path / "slow" / "result.json").exists()


# --- scores -----------------------------------------------------------------------------------------------------


def answered(right):
    """Twelve questions about six cases of two modalities, of which the first `right` of a modality are right."""
    rows = []
    for modality in ("ct", "mr"):
        for number in range(6):
            name = f"{modality}_00--a--{number}.png"
            answer = "liver" if number < right else "heart"
            rows.append(
                Prediction(
                    len(rows), name, "What is this?", "liver", answer, "roc", True, None, f"{name[:12]}"
                )
            )
    return rows


@pytest.fixture
def collected(tmp_path):
    """Answers of four runs: 1/2 of the images has 2 and 3 of 6 right, all have 4 and 5."""
    from data_scale_parts.results import collect
    from data_scale_parts.study import Study

    study = Study(images=24, steps=4, shares=(2, 1))
    for run in study.runs:
        folder = tmp_path / "runs" / run.name
        (folder / "answers").mkdir(parents=True)
        rows = answered(right=(2 if run.share == 2 else 4) + run.seed - 1)
        write_predictions(prediction_file(folder / "answers", "roc"), rows)
        result = {
            "share": run.share,
            "seed": run.seed,
            "images": 24 // run.share,
            "steps": 4,
            "epochs": 1.0,
            "loss": 1.5,
            "seconds": {"training": 10.0 * run.seed},
            "machine": {"device": "a card", "cores": 2, "torch": "2"},
        }
        (folder / "result.json").write_text(json.dumps(result))
    collect(study, tmp_path, tmp_path / "results")
    return tmp_path / "results"


def test_the_scores_of_a_share_are_the_mean_of_its_seeds(collected):
    from data_scale_parts.results import score_study

    roc = score_study(collected, ["roc"])["measures"]["roc"]
    assert roc["runs"]["1-of-2-seed-1"]["mean"] == pytest.approx(2 / 6)
    assert roc["shares"]["2"]["mean"] == pytest.approx(2.5 / 6)
    assert roc["shares"]["1"]["mean"] == pytest.approx(4.5 / 6)
    assert roc["gain"]["mean"] == pytest.approx(2 / 6)
    low, high = roc["gain"]["interval"]
    assert low < 2 / 6 < high and (roc["questions"], roc["cases"], roc["modalities"]) == (12, 12, 2)


def test_the_table_has_every_run_and_what_it_was_made_from(collected, tmp_path):
    from data_scale_parts.results import score_study
    from data_scale_parts.show import save_figure, table_of

    document = json.loads(json.dumps(score_study(collected, ["roc"])))
    text = table_of(document)
    assert "ROC recall (12 questions, 12 cases)" in text
    assert "| 1/2: 12 | mean of 2 | 0.417 [" in text and "| all: 24 | mean of 2 | 0.750 [" in text
    assert "| the most minus the fewest | mean | +0.333 [" in text
    assert "4 of 4 runs, 4 steps each, on a card (2 cores); a run took 10 to 20 seconds." in text
    assert "Unreadable answers of a run: ROC recall 0.000 to 0.000." in text
    save_figure(document, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_runs_with_other_questions_are_not_compared(collected, tmp_path):
    from data_scale_parts.results import collect, score_study
    from data_scale_parts.study import Study

    other = [replace(each, question="What is that?") for each in answered(1)]
    write_predictions(tmp_path / "runs" / "1-of-2-seed-1" / "answers" / "roc.jsonl", other)
    collect(Study(images=24, steps=4, shares=(2, 1)), tmp_path, collected)
    with pytest.raises(ValueError, match="answer different questions"):
        score_study(collected, ["roc"])


def test_a_measure_that_cannot_be_computed_here_says_why(collected, monkeypatch):
    from data_scale_parts import results
    from data_scale_parts.show import table_of

    def missing(*_):
        raise ValueError("SPICE needs Java")

    monkeypatch.setattr(results, "score_with_draws", missing)
    text = table_of(results.score_study(collected, ["roc"]))
    assert "| not scored |" in text and "Not scored: ROC recall: SPICE needs Java" in text


def test_the_page_has_the_table_of_its_json_or_says_that_there_is_none():
    from data_scale_parts.show import table_of

    page = (ROOT / "docs" / "data_scale.md").read_text(encoding="utf-8")
    file = ROOT / "docs" / "data_scale.json"
    if not file.is_file():
        assert "Not run yet." in page
        return
    assert table_of(json.loads(file.read_text(encoding="utf-8"))) in page


# --- all of it --------------------------------------------------------------------------------------------------

TINY = {
    "new_model": {
        "vocab_size": 500,
        "coordinate_tokens": True,
        "vision_config": {
            "image_size": 32,
            "patch_size": 16,
            "position_grid": 2,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_queries": 4,
            "resampler_hidden_size": 32,
            "resampler_num_attention_heads": 2,
        },
        "text_config": {
            "model_type": "qwen2",
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
        },
    },
    "dataset_config": "chat",
    "freeze_vision": False,
    "detection_loss_weight": 1.0,
    "per_device_train_batch_size": 2,
    "max_turns": 3,
    "report_to": "none",
    "attn_implementation": "cpu_eager",
}


@pytest.mark.slow
def test_the_command_trains_answers_and_scores(tmp_path, monkeypatch, capsys, forked_python):
    import data_scale

    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    arguments = (
        "--images 12 --steps 2 --shares 6 1 --seeds 1 --test-phantoms 1 --test-slices 0 --workers 0 --jobs 2"
    )
    fixed = ["data_scale.py", "--config", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "study")]
    monkeypatch.setattr(
        sys, "argv", [*fixed, *arguments.split(), "--measures", "vg", "roc", "--max_turns", "2"]
    )
    monkeypatch.setattr(sys, "executable", str(forked_python))  # which runs are started with
    data_scale.main()
    first = capsys.readouterr()
    assert first.err.count("finished (") == 2 and "| 1/6: 2 | mean of 1 |" in first.out
    document = json.loads((tmp_path / "study" / "results" / "data_scale.json").read_text(encoding="utf-8"))
    assert {run["images"] for run in document["runs"].values()} == {2, 12}
    assert {run["steps"] for run in document["runs"].values()} == {2}
    assert document["study"]["recipe"]["max_turns"] == 2
    assert document["measures"]["vg"]["questions"] > 16
    data_scale.main()  # finished runs are skipped
    again = capsys.readouterr()
    assert again.out == first.out and "started" not in again.err
