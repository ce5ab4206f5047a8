"""`bird report`: several runs, pictures, the data-scale curve, hostile text; one page that loads and runs nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from bird_hf.eval.data_scale import read_scales
from bird_hf.eval.examples import Rank, examples_of
from bird_hf.eval.predictions import Prediction, write_predictions
from bird_hf.eval.run import find_runs
from bird_hf.hub.boxes import Box
from bird_hf.hub.grounding import Span
from bird_hf.markdown import Cell, Section, Table, render
from bird_hf.reports import run_report
from bird_hf.reports.run_report import write_report

HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)> {{ 7 * 7 }} | `'
LIVER = "<ref>liver</ref><box>(100,100),(400,300)</box>"
NEAR = "<ref>liver</ref><box>(100,100),(400,280)</box>"
ABSENT = "There is no liver in this image."


def answers(*responses, task="vg", annotation=LIVER, prefix="ct"):
    asked = "Where is the liver?"
    return [
        Prediction(n, f"{prefix}_{n}.png", asked, annotation, response, task, False, None, f"case {n}")
        for n, response in enumerate(responses)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    write_predictions(folder / "vg.jsonl", answers(LIVER, NEAR, ABSENT, "I cannot help.", LIVER, LIVER))
    write_predictions(folder / "roc.jsonl", answers("liver", "spleen", task="roc", annotation="liver"))
    return folder


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and whatever one of them would load."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.handlers: list[str] = []
        self.sources: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.sources += [value for name, value in attrs if name in ("src", "href") and value]


def assert_quiet(page: Page) -> None:
    assert page.names.isdisjoint({"script", "iframe", "object", "embed", "link", "form", "base"})
    assert page.handlers == []
    assert all(source.startswith("data:image/") for source in page.sources)


class TestRuns:
    def test_a_run_a_file_and_a_folder_of_runs_are_found_by_name(self, run, tmp_path):
        file = tmp_path / "mine.jsonl"
        write_predictions(file, answers(LIVER))
        assert find_runs([run, file]) == {"run": run, "mine": file}
        (tmp_path / "more" / "run").mkdir(parents=True)
        write_predictions(tmp_path / "more" / "run" / "vg.jsonl", answers(LIVER))
        assert [*find_runs([run, tmp_path / "more"])] == [f"{tmp_path.name}/run", "more/run"]
        with pytest.raises(ValueError, match="given twice"):
            find_runs([run, run])

    def test_runs_stand_beside_published_rows(self, run, tmp_path):
        other = tmp_path / "other"
        other.mkdir()
        write_predictions(other / "vg.jsonl", answers(LIVER, LIVER))
        report, text = write_report([run, other], tmp_path / "out")
        assert [*report["runs"]] == ["run", "other"]
        for line in (
            "| LLaVa-Med | Med-GRIT-Test30k, published | 0.00 | 2.75 | 8.18 | 11.20 | 5.53 | - |",
            "| run | real | 66.67 | 50.00 | - | - | 58.33 | 8 |",
            "| other | real | 100.00 | - | - | - | 100.00 | 2 |",
            "| BiRD | yes | yes | yes | yes | 8 | the paper itself |",
        ):
            assert line in text
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "report.md", "report.json", "report.html",
        }  # fmt: skip
        assert not (run / "report.md").exists()

    def test_the_slip_of_the_paper_is_corrected_with_a_footnote(self, run):
        report, text = write_report([run])
        assert "| average | - | 42.03 \\* | 48.02 |" in text
        assert "- * Table 3, ct: the paper prints 43.03; the mean of its cells is 42.03." in text
        assert report["published"]["modality_averages"]["ct"] == 42.03
        assert "43.03; the mean of its cells is 42.03" in (run / "report.html").read_text("utf-8")

    def test_every_score_has_its_interval_and_cases(self, run):
        _, text = write_report([run])
        lines = text.splitlines()
        place = next(number for number, line in enumerate(lines) if line.startswith("| VG | Recall@0.5 |"))
        assert re.match(r"\| 95 % interval; cases \|  \| \d+\.\d\d–\d+\.\d\d; 6 cases \|", lines[place + 1])

    def test_a_file_needs_a_task(self, tmp_path):
        write_predictions(tmp_path / "mine.jsonl", [replace(each, task="") for each in answers(LIVER)])
        with pytest.raises(ValueError, match="does not name its task; call it vg"):
            write_report([tmp_path / "mine.jsonl"], tmp_path / "out")
        (tmp_path / "mine.jsonl").rename(tmp_path / "vg.jsonl")
        assert "100.00" in write_report([tmp_path / "vg.jsonl"], tmp_path / "out")[1]

    def test_no_run_is_one_line(self, bird_report):
        assert "give the folder of a run, or --scale TURNS=RUN" in bird_report().err
        assert "--model predicts into one run" in bird_report("a", "b", "--model", "m", "--data", "d").err


@pytest.fixture
def bird_report(run_bird):
    return lambda *words: run_bird("report", *words)


class TestExamples:
    def test_worst_median_and_best_by_the_overlap_of_boxes(self):
        found = examples_of(answers(LIVER, NEAR, ABSENT), shown=1)
        assert [(each.rank, each.prediction.id, round(each.score, 2)) for each in found] == [
            (Rank.WORST, 2, 0.0),
            (Rank.MEDIAN, 1, 0.9),
            (Rank.BEST, 0, 1.0),
        ]

    def test_a_false_box_lowers_the_score_and_an_absent_object_is_right_or_wrong(self):
        (found,) = examples_of(answers(LIVER + "<box>(1,1),(9,9)</box>"), shown=1)
        assert found.score == 0.5
        asked = answers(ABSENT, LIVER, annotation=ABSENT)
        assert {each.prediction.id: each.score for each in examples_of(asked)} == {0: 1.0, 1: 0.0}

    def test_modalities_take_turns(self):
        both = answers("no", "no", "no") + [
            replace(each, id=each.id + 3) for each in answers("no", "no", prefix="mr")
        ]
        worst = [each.prediction.image[:2] for each in examples_of(both, 2) if each.rank is Rank.WORST]
        assert worst == ["ct", "mr"]

    def test_without_data_the_boxes_are_numbers(self, run):
        report, text = write_report([run])
        assert "Give --data, the folder of the questions, to see them drawn." in text
        assert "(100, 100, 400, 300)" in text
        page = Page(run / "report.html")
        assert_quiet(page)
        assert page.sources == []
        assert report["examples"][0]["rank"] == "worst"
        assert report["examples"][0]["reference_boxes"] == [{"phrase": "liver", "box": [100, 100, 400, 300]}]

    def test_with_images_they_are_drawn(self, run, monkeypatch):
        monkeypatch.setattr(run_report, "split_rows", lambda found, *_: None)
        monkeypatch.setattr(run_report, "open_folder", lambda *_: None)
        monkeypatch.setattr(run_report, "SplitImages", lambda _: {"ct_0.png": Image.new("L", (40, 30))})
        rows = type("Rows", (), {"predictions": answers(LIVER, NEAR)})
        monkeypatch.setattr(run_report, "split_rows", lambda *_: rows)
        monkeypatch.setattr(run_report, "_strict", lambda *_: {})
        _, text = write_report([run], choices=run_report.Choices(data=Path("data")))
        page = Page(run / "report.html")
        assert_quiet(page)
        assert len(page.sources) == 1  # the other answer's row has no pixels
        assert "Dashed green: the reference." in text


class TestScale:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("20k=a", {Path("a"): 20_000}),
            ("240000=runs/all", {Path("runs/all"): 240_000}),
            ("7=a=b", {Path("a=b"): 7}),
        ],
    )
    def test_turns_and_run(self, text, expected):
        assert read_scales([text]) == expected

    @pytest.mark.parametrize("text", ["all=a", "20k", "=a", "0=a", "-5=a", "1.5k=a", "9" * 20 + "=a"])
    def test_another_form_is_one_line(self, text):
        with pytest.raises(ValueError, match="write TURNS=RUN"):
            read_scales([text])

    def test_a_run_twice_is_refused(self):
        with pytest.raises(ValueError, match="given twice"):
            read_scales(["20k=a", "40k=a"])

    def test_the_curve_has_the_papers_points(self, run, tmp_path):
        larger = tmp_path / "larger"
        larger.mkdir()
        write_predictions(larger / "vg.jsonl", answers(*[LIVER] * 6))
        scales = [f"40k={larger}", f"20k={run}"]
        report, text = write_report([], tmp_path / "out", scales=scales)
        assert report["data_scale"] == {"run": 20_000, "larger": 40_000}
        assert "| 20,000 | run | these runs, real | 66.67 | 50.00 | - | - | 58.33 |" in text
        assert (
            "| 240,000 | BiRD-Med-GRIT-270k | BiRD, published | 53.92 | 65.33 | 55.23 | 52.17 | 56.66 |"
            in text
        )
        assert "![Scores by the number of dialogue turns](data_scale.svg)" in text
        svg = (tmp_path / "out" / "data_scale.svg").read_text("utf-8")
        page = Page(tmp_path / "out" / "report.html")
        assert_quiet(page)
        assert [source[:26] for source in page.sources] == ["data:image/svg+xml;base64,"]
        write_report([], tmp_path / "again", scales=scales)
        assert (tmp_path / "again" / "data_scale.svg").read_text("utf-8") == svg


class TestHostileText:
    def test_no_label_phrase_image_or_name_becomes_markup(self, tmp_path):
        folder = tmp_path / "<script>alert(`3`)<"
        folder.mkdir()
        label = HOSTILE.replace("/", "")
        boxed = f"<ref>{label}</ref><box>(100,100),(400,300)</box>"
        asked = [
            replace(each, image=f"ct_{HOSTILE}.png", question=f"Where is {HOSTILE}?")
            for each in answers(boxed, HOSTILE, annotation=boxed)
        ]
        write_predictions(folder / "vg.jsonl", asked)
        run_file = {"model": HOSTILE, "weights_sha256": HOSTILE, "data": HOSTILE, "split": HOSTILE}
        (folder / "run.json").write_text(json.dumps({**run_file, "questions": {"vg": 2}}))
        _, text = write_report([folder], tmp_path / "out")
        assert_quiet(Page(tmp_path / "out" / "report.html"))
        page = (tmp_path / "out" / "report.html").read_text("utf-8")
        assert "{{ 7 * 7 }}" in page and "&lt;script&gt;" in page
        cells = [line for line in text.splitlines() if line.startswith("|")]
        assert all("<script" not in line.replace("\\<", "") for line in cells)
        assert (
            len({line.count(" | ") for line in cells if "ct\\_" in line and line.startswith("| worst")}) == 1
        )

    def test_a_text_of_ten_megabytes_is_one_line(self, tmp_path, bird_report):
        write_predictions(tmp_path / "vg.jsonl", answers(LIVER + "x" * 10_000_000))
        ran = bird_report(tmp_path / "vg.jsonl", "--out", tmp_path / "out")
        assert ran.code == 2 and ran.err.count("\n") == 1
        assert "line 1: response has 10,000,0" in ran.err and "the limit is 1,000,000" in ran.err
        assert not (tmp_path / "out").exists()

    def test_long_texts_and_many_boxes_are_cut(self, tmp_path):
        many = "".join(f"<ref>{'liver ' * 50}</ref><box>({n},1),(999,999)</box>" for n in range(400))
        write_predictions(tmp_path / "vg.jsonl", answers(many + "word " * 90_000, LIVER))
        write_report([tmp_path / "vg.jsonl"], tmp_path / "out")
        assert (tmp_path / "out" / "report.html").stat().st_size < 60_000
        (long,) = (each for each in examples_of(answers(many)))
        assert len(long.answered) == 50 and all(len(span.phrase) < 50 for span in long.answered)


def test_second_lines_of_cells_are_a_row_of_their_own():
    shown = str(Table(["a", "b"], [["x", Cell("1.00", "2", "0 to 1")], ["y", "z"]], "interval"))
    assert shown.splitlines()[2:] == ["| x | 1.00 (2) |", "| interval | 0 to 1 |", "| y | z |"]
    assert render([Section("a_b", ["words", ["one", "two"]], 3)]) == "### a\\_b\n\nwords\n\n- one\n- two\n"


def test_the_reference_is_drawn_on_a_thumbnail():
    from bird_hf.reports.html import thumbnail_with_boxes

    span = Span("a", 0, 1, (Box(0.25, 0.25, 0.75, 0.75),))
    image = Image.new("RGB", (100, 100))
    assert thumbnail_with_boxes(image, [], 200, [span]) != thumbnail_with_boxes(image, [], 200)
