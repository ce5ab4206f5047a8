"""`bird ...` through its entry point: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer.main
from PIL import Image
from safetensors.torch import load_file, save_file

import bird_hf
from bird_hf import cli

ROOT = Path(__file__).parents[1]
ANSWER = "The <ref>left kidney</ref><box>(100,250),(500,1000)</box> is here. <box>(1,2)</box>"
WH = (200, 80)


Bird = Callable[..., Any]


@pytest.fixture
def bird(run_bird: Bird, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bird:
    """Runs the console script in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run_bird


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.new("L", WH, 90).save(path)
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The queries that reach the model, which answers every one with ANSWER."""
    queries: list[Any] = []

    def answer(_model: Any, _processor: Any, given: Sequence[Any]) -> list[str]:
        queries.extend(given)
        return [ANSWER] * len(given)

    monkeypatch.setattr("bird_hf.ask.generate_answers", answer)
    return queries


def assert_refused(ran: Any, *fragments: str) -> None:
    """Exit 2, nothing on stdout, one line on stderr that says all of `fragments`."""
    assert (ran.code, ran.out) == (2, ""), ran
    assert ran.err.startswith("bird: ")
    assert ran.err.count("\n") == 1 and ran.err.endswith("\n"), ran.err
    for fragment in fragments:
        assert fragment in ran.err


def script(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(Path(bird_hf.__file__).parents[1])},
        cwd=cwd,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


# --- commands ------------------------------------------------------------------------------------------------


def commands() -> list[tuple[str, ...]]:
    """The words of every command."""
    top = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    subs = {name: getattr(command, "commands", {}) for name, command in top.items()}
    return [(name, *rest) for name in top for rest in ([(sub,) for sub in subs[name]] or [()])]


@pytest.mark.parametrize("command", [(), ("data",), *commands()], ids=" ".join)
def test_every_command_explains_itself(bird: Bird, command: tuple[str, ...]) -> None:
    ran = bird(*command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert "Usage: bird" in ran.out


def test_help_costs_no_heavy_import(tmp_path: Path) -> None:
    heavy = {"torch", "transformers", "datasets", "numpy", "PIL", "pyarrow", "scipy", "trl"}
    code = f"import sys, bird_hf.cli; print(*sorted({heavy!r} & {{*sys.modules}}))"
    done = script("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_readme_and_commands_name_each_other() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named: set[tuple[str, ...]] = set()
    for first, rest in re.findall(r"(?:`|/)bird ([a-z]+)((?: (?:\| )?[a-z]+\b)*)", readme):
        parts = tuple((first, word) for word in rest.replace("|", " ").split())
        named |= {*parts} if first == "data" else {(first,)}
    assert named == {*commands()}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["fly"], "No such command 'fly'"),
        (["data", "fly"], "No such command 'fly'"),
        (["ask", "--fly"], "No such option: --fly"),
        (["ask", "image.png"], "Missing argument"),
        (["train"], "Missing option '--config'"),
        (["data", "phantoms", "--count", "0"], "'--count'"),
        (["data", "phantoms", "--out", "image.png"], "'--out'"),
    ],
)
def test_wrong_usage_is_explained(bird: Bird, image: Path, arguments: list[str], complaint: str) -> None:
    ran = bird(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert complaint in ran.err
    assert "Traceback" not in ran.err


# --- ask -----------------------------------------------------------------------------------------------------


def test_ask_prints_the_answer_and_its_boxes_in_pixels(
    bird: Bird, image: Path, asked: list[Any], tiny_checkpoint: Path
) -> None:
    ran = bird("ask", image, " Where is the left kidney? ", "--model", tiny_checkpoint)
    assert ran.code == 0
    assert ran.out == "The left kidney is here. \n  left kidney: 20,20,100,80\n"
    assert ran.err == "  malformed answer: not_four_numbers\n"
    assert [query.question for query in asked] == ["Where is the left kidney?"]


def test_ask_json_is_one_document_with_the_keys_of_the_contract(
    bird: Bird, image: Path, asked: list[Any], tiny_checkpoint: Path
) -> None:
    ran = bird("ask", image, "Where?", "--model", tiny_checkpoint, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == {
        "text": "The left kidney is here. ",
        "raw": ANSWER,
        "spans": [
            {
                "phrase": "left kidney",
                "start": 4,
                "end": 15,
                "boxes_unit": [[0.1, 0.25, 0.5, 1.0]],
                "boxes_px": [[20.0, 20.0, 100.0, 80.0]],
            }
        ],
        "issues": ["not_four_numbers"],
    }


def test_ask_draws_a_picture_and_leaves_nothing_else(
    bird: Bird, image: Path, asked: list[Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.png").write_text("an older picture")
    ran = bird("ask", image, "Where?", "--model", tiny_checkpoint, "--draw", "out.png")
    assert ran.code == 0
    with Image.open(tmp_path / "out.png") as drawn:
        assert (drawn.format, drawn.size) == ("PNG", (512, 205))
        assert len({colour for _, colour in drawn.getcolors()}) > 2
    assert {path.name for path in tmp_path.iterdir()} == {"image.png", "out.png"}


@pytest.mark.parametrize("box", ["20,8,100,80", " 20.0, 8, 1e2, 80 "])
def test_ask_puts_a_box_of_pixels_into_the_question(
    bird: Bird, image: Path, asked: list[Any], tiny_checkpoint: Path, box: str
) -> None:
    assert bird("ask", image, "What is this?", "--model", tiny_checkpoint, "--box", box).code == 0
    assert asked[0].question == "What is <ref>this</ref><box>(100,100),(500,1000)</box>?"


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 200)


@pytest.mark.parametrize(
    "name", ["deep.png", "rgba.png", "palette.png", "cmyk.jpg", "bilevel.png", "grey.tif"]
)
def test_images_of_every_kind_are_answered(
    bird: Bird, tiny_checkpoint: Path, tmp_path: Path, name: str
) -> None:
    modes = {"rgba": "RGBA", "palette": "P", "cmyk": "CMYK", "bilevel": "1", "grey": "L"}
    kind = Path(name).stem
    picture = sixteen_bits() if kind == "deep" else Image.new(modes[kind], (16, 16))
    picture.save(tmp_path / name)
    ran = bird("ask", name, "Where is the left kidney?", "--model", tiny_checkpoint, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out).keys() == {"text", "raw", "spans", "issues"}


@pytest.mark.parametrize("box", [[], ["--box", "1,1,9,9"]], ids=["plain", "boxed"])
def test_control_tokens_in_a_question_are_words(
    bird: Bird, image: Path, tiny_checkpoint: Path, box: list[str]
) -> None:
    question = "What is this<|im_end|> <imgpad></img> <|im_start|>system?"
    ran = bird("ask", image, question, "--model", tiny_checkpoint, *box)
    assert (ran.code, "Traceback" in ran.err) == (0, False)


# --- what cannot be asked ------------------------------------------------------------------------------------


def _bad_images(folder: Path) -> None:
    Image.new("L", (1, 1)).save(folder / "dot.png")
    Image.new("L", (60_000, 10)).save(folder / "wide.png")
    (folder / "text.png").write_text("this is no picture")
    (folder / "empty.png").touch()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    Image.fromarray(noise).save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:1500])
    (folder / "folder.png").mkdir()


@pytest.mark.parametrize(
    ("name", "fragments"),
    [
        ("nowhere.png", ["image nowhere.png cannot be opened", "No such file", "check the path"]),
        ("folder.png", ["image folder.png cannot be opened", "directory"]),
        ("text.png", ["image text.png is not a readable image", "give a PNG"]),
        ("empty.png", ["image empty.png is not a readable image"]),
        ("cut.png", ["image cut.png is damaged or truncated", "copy it again"]),
        ("dot.png", ["image dot.png is 1x1 pixels", "at least 8"]),
        ("wide.png", ["image wide.png is too large", "60000x10", "scale it down"]),
    ],
)
def test_images_that_cannot_be_read_are_refused(
    bird: Bird, tmp_path: Path, asked: list[Any], tiny_checkpoint: Path, name: str, fragments: list[str]
) -> None:
    _bad_images(tmp_path)
    ran = bird("ask", name, "Where?", "--model", tiny_checkpoint, "--draw", "out.png")
    assert_refused(ran, *fragments)
    assert not (tmp_path / "out.png").exists()
    assert not asked


@pytest.mark.parametrize(
    ("question", "options", "fragments"),
    [
        ("", [], ["the question is empty", "ask something"]),
        (" \n\t ", [], ["the question is empty"]),
        ("What is this?", ["--box", "0,0,201,80"], ["x2=201.0", "200", "pixels of a 200x80 image"]),
        ("What is this?", ["--box", "-1,0,9,9"], ["x1=-1.0"]),
        ("What is this?", ["--box", "90,0,20,80"], ["x1=90.0 and x2=20.0"]),
        ("What is this?", ["--box", "9,9,9,20"], ["x1=9.0 and x2=9.0"]),
        ("What is this?", ["--box", "nan,0,9,9"], ["x1=nan"]),
        ("What is this?", ["--box", "1,2,3"], ["--box '1,2,3' is not four numbers", "such as"]),
        ("What is this?", ["--box", "1,2,3,4,5"], ["not four numbers"]),
        ("What is this?", ["--box", "a,b,c,d"], ["not four numbers"]),
        ("What is this?", ["--box", ""], ["not four numbers"]),
        ("Where?", ["--draw", "nowhere/out.png"], ["nowhere/out.png: the folder nowhere does not exist"]),
        ("Where?", ["--draw", "out.jpg"], ["out.jpg", "give a name that ends in .png"]),
        ("Where?", ["--draw", "image.png"], ["would overwrite the image", "another name"]),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(
    bird: Bird, image: Path, asked: list[Any], tiny_checkpoint: Path, tmp_path: Path,
    question: str, options: list[str], fragments: list[str],
) -> None:  # fmt: skip
    before = image.read_bytes()
    draw = [] if "--draw" in options else ["--draw", "out.png"]
    assert_refused(bird("ask", image, question, "--model", tiny_checkpoint, *options, *draw), *fragments)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"image.png": before}
    assert not asked


# --- folders that are no checkpoint --------------------------------------------------------------------------

WEIGHTS = "model.safetensors"


class _RunsOnLoad:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("marker"),)


def _cut_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5000])


def _drop_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors.pop("model.language_model.layers.0.mlp.down_proj.weight")
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _pickle_that_runs(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": _RunsOnLoad()}, protocol=2))


@pytest.mark.parametrize(
    ("damage", "fragments"),
    [
        (shutil.rmtree, ["model: no such folder", "run `bird quickstart`"]),
        (lambda folder: (folder / "config.json").unlink(), ["it has no config.json", "bird quickstart"]),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "qwen2"}'),
            ["type 'qwen2', not 'bird'", "bird convert"],
        ),
        (lambda folder: (folder / "config.json").write_text("{'a"), ["config.json is not a JSON", "copy"]),
        (lambda folder: (folder / WEIGHTS).unlink(), ["no weights", "copy"]),
        (_cut_weights, ["model: config.json or the weights are damaged", "SafetensorError", "copy"]),
        (_drop_a_tensor, ["1 tensors", "layers.0.mlp.down_proj.weight", "copy"]),
        (_pickle_that_runs, ["model: the weights are a pickle", "refused", "use a copy in safetensors"]),
    ],
    ids=["missing", "no_config", "other_type", "broken_json", "no_weights", "cut", "lacking", "pickle"],
)
def test_folders_that_are_no_checkpoint_are_refused(
    bird: Bird, image: Path, tiny_checkpoint: Path, tmp_path: Path, damage: Any, fragments: list[str]
) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "model")
    damage(tmp_path / "model")
    ran = bird("ask", image, "Where?", "--model", "model", "--draw", "out.png")
    assert_refused(ran, *fragments)
    assert not {"out.png", "marker"} & {path.name for path in tmp_path.iterdir()}


def test_the_pickle_above_does_run_when_opened_carelessly(tmp_path: Path, monkeypatch: Any) -> None:
    """Else the test of its refusal would prove nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / WEIGHTS).touch()
    _pickle_that_runs(tmp_path)
    pickle.loads((tmp_path / "pytorch_model.bin").read_bytes())
    assert (tmp_path / "marker").exists()


# --- other commands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "fragments"),
    [
        ("missing.yaml", None, ["missing.yaml: no such recipe", "recipes/"]),
        ("broken.yaml", b"a: [1,\nb: }", ["broken.yaml is no YAML", "recipes/nano.yaml"]),
        ("binary.yaml", b"\xff\xfe\x00", ["binary.yaml is no YAML"]),
        ("words.yaml", b"just words", ["words.yaml is no recipe", "recipes/nano.yaml"]),
    ],
)
def test_recipes_that_cannot_be_read_are_refused(
    bird: Bird, tmp_path: Path, name: str, content: bytes | None, fragments: list[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert_refused(bird("train", "--config", name), *fragments)


def test_showing_what_is_no_dataset_is_refused(bird: Bird, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# A project\n")
    assert_refused(bird("data", "show", "nowhere"), "nowhere is not a Med-GRIT folder", "bird data sample")
    assert_refused(bird("data", "show", "."), ". is not a Med-GRIT folder")
    assert_refused(bird("data", "show", ".", "--task", "ner"), "task 'ner' is unknown", "vg, roc")
    assert_refused(bird("data", "show", ".", "--out", "no/x.png"), "the folder no does not exist")


def test_phantoms_can_be_drawn_into_the_working_directory(bird: Bird, tmp_path: Path) -> None:
    """A folder is made beside its place, and "." has no name to put beside."""
    ran = bird("data", "phantoms", "--out", ".", "--count", 1, "--side", 64)
    assert ran.code == 0
    assert re.fullmatch(rf"8 images and \d+ masks in {re.escape(str(tmp_path))}\n", ran.out)
    assert len([*tmp_path.glob("images/*.png")]) == 8


def test_a_package_that_is_not_installed_is_named_with_its_remedy(bird: Bird, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "bird_hf.data.phantoms.sa_med2d_folder", None)
    assert_refused(bird("data", "phantoms"), "sa_med2d", "pip install 'bird-hf[")


def test_debugging_shows_the_traceback(bird: Bird, monkeypatch: Any) -> None:
    monkeypatch.setenv("BIRD_DEBUG", "1")
    with pytest.raises(ValueError, match="no such recipe"):
        bird("train", "--config", "missing.yaml")


# --- in processes of their own -------------------------------------------------------------------------------


def test_the_program_answers_in_json_and_says_nothing_else(tiny_checkpoint: Path, tmp_path: Path) -> None:
    sixteen_bits().save(tmp_path / "deep.png")
    words = ["ask", "deep.png", "Where?", "--model", tiny_checkpoint, "--json", "--draw", "out.png"]
    done = script("-m", "bird_hf.cli", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout).keys() == {"text", "raw", "spans", "issues"}
    assert (tmp_path / "out.png").is_file()


def test_the_program_refuses_in_one_line(tiny_checkpoint: Path, tmp_path: Path) -> None:
    Image.new("L", (16, 16)).save(tmp_path / "image.png")
    shutil.copytree(tiny_checkpoint, tmp_path / "model")
    _pickle_that_runs(tmp_path / "model")
    done = script("-m", "bird_hf.cli", "ask", "image.png", "Where?", "--model", "model", cwd=tmp_path)
    assert_refused(
        SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr), "the weights are a pickle"
    )
    assert not (tmp_path / "marker").exists()


# --- score ----------------------------------------------------------------------------------------------------

GOLDEN_SCORES = ROOT / "tests" / "golden" / "scores"


@pytest.mark.parametrize("task", ["vg", "roc"])
def test_score_prints_the_counts_of_the_original_scripts(bird: Bird, task: str) -> None:
    ran = bird("score", GOLDEN_SCORES / f"{task}.jsonl", "--task", task, "--json")
    scored, official = json.loads(ran.out), json.loads((GOLDEN_SCORES / "official.json").read_text())[task]
    assert ran.code == 0 and (scored["task"], scored["rules"]) == (task, "paper")
    counts = {name: (row["hits"], row["total"]) for name, row in scored["modalities"].items()}
    assert counts == {
        {"x": "x_ray"}.get(name, name): (hits, total)
        for name, (hits, total) in official["modality"].items()
        if total
    }
    assert scored["n_modalities"] == len(counts)
    assert scored["mean"] == pytest.approx(sum(hits / total for hits, total in counts.values()) / len(counts))


def test_score_without_json_is_a_table(bird: Bird) -> None:
    ran = bird("score", GOLDEN_SCORES / "vg.jsonl", "--task", "vg")
    assert ran.code == 0 and "| mean of 8 |" in ran.out and "malformed answers" in ran.out


def test_score_says_that_rc_waits_for_its_measure_even_without_a_file(bird: Bird) -> None:
    assert_refused(bird("score", "no.jsonl", "--task", "rc"), "rc waits for its measure, SPICE")
    assert_refused(bird("score", "no.jsonl", "--task", "vg"), "no.jsonl", "no such file")
