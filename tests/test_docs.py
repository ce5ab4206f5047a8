"""The pages of docs/ run as they stand: every block of Python and shell, in order, in one folder for each page."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import pytest
import yaml

from bird_hf.data.embedded.sample_set import sample_dialogues
from bird_hf.data.folder.publish import publish
from bird_hf.data.sources.description import Description, read_description
from bird_hf.dialects import read_dialect
from bird_hf.sample import install_checkpoint

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.md"))
_BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page_text(page: str) -> str:
    return (DOCS / f"{page}.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, str, int]]:
    """Language, text and first line of each block."""
    return [(found[1], found[2], text.count("\n", 0, found.start(2)) + 1) for found in _BLOCK.finditer(text)]


@pytest.fixture
def folder(tmp_path, monkeypatch, forked_python):
    """A folder to run a page in, with `bird` and `python` on the path, and folders of the repository."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, arguments in {"bird": " -m bird_hf.cli", "python": ""}.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(str(forked_python))}{arguments} "$@"\n')
        program.chmod(0o755)
    place = tmp_path / "page"
    place.mkdir()
    for name in ("recipes", "benchmarks", "metrics"):
        (place / name).symlink_to(ROOT / name)
    monkeypatch.chdir(place)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    environment = dict(os.environ)
    yield place
    os.environ.clear()  # training arguments set some variables
    os.environ.update(environment)


def run(name: str, text: str, smaller: Mapping[str, str] | None = None) -> dict:
    """Run a page's blocks in the working directory; returns the names that its Python has made.

    smaller: words of the page -> what a test runs in their place, to take less time.
    """
    for words, fewer in (smaller or {}).items():
        assert words in text, f"{name} does not say {words!r}"
        text = text.replace(words, fewer)
    names: dict = {"__name__": "__main__"}
    for language, code, line in blocks(text):
        if language == "bash":
            ran = subprocess.run(["bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True)
            assert ran.returncode == 0, f"{name}, line {line}: {ran.stderr[-2000:]}"
        else:
            # Empty lines in front make a traceback show the line of the page.
            exec(compile("\n" * (line - 1) + code, name, "exec"), names)
    return names


def run_page(page: str, smaller: Mapping[str, str] | None = None) -> dict:
    return run(f"docs/{page}.md", page_text(page), smaller)


def make_data(folder: Path, rows: int) -> None:
    """A small `med-grit`, of the first images of each split."""
    splits = {split: islice(sample_dialogues(split), rows) for split in ("train", "test")}
    publish(splits, folder / "med-grit", "# Four\n")


@pytest.mark.slow
def test_loading(folder):
    install_checkpoint(folder / "bird")
    _, cell = next(sample_dialogues("test"))
    (folder / "scan.png").write_bytes(cell["bytes"])
    names = run_page("load")
    assert len(names["answers"]) == 3 and names["grounded"].text and not names["grounded"].issues
    assert (names["grounded"].spans[0].boxes_px[0][2] > 1) and names["output"].shape[1] > names["read"]


@pytest.mark.slow
def test_converting(folder):
    shutil.copytree(ROOT / "tests" / "golden" / "qwen_vl_tiny", folder / "Qwen-VL-Chat")
    assert run_page("convert")["model"].config.num_queries == 256


@pytest.mark.slow
def test_fine_tuning(folder):
    install_checkpoint(folder / "bird")
    make_data(folder, 4)
    names = run_page("fine_tune", {"--output_dir runs/lora": "--output_dir runs/lora --max_steps 2"})
    losses = [entry["loss"] for entry in names["trainer"].state.log_history if "loss" in entry]
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert (folder / "mine" / "final" / "model.safetensors").is_file()
    assert (folder / "runs" / "lora" / "final" / "adapter_model.safetensors").is_file()
    assert "Nothing was measured" in (folder / "to-publish" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_own_images(folder):
    install_checkpoint(folder / "bird")
    names = run_page(
        "own_images",
        {"--images 240": "--images 16", "--output_dir runs/own": "--output_dir runs/own --max_steps 2"},
    )
    report = json.loads((folder / "runs" / "own-scores" / "report.json").read_text(encoding="utf-8"))
    assert names["answer"].text and "phantom" in report["sources"]
    described = read_description(folder / "hands" / "labels.yaml")
    assert described.exhaustive and len(described.labels) == 5


_ON_CPU = "--use_cpu true --bf16 false --dtype float32"
_TWO_STEPS = "--max_steps 2 --eval_steps 2 --eval_questions 2 --max_new_tokens 8"


@pytest.mark.slow
def test_any_model(folder, load_script):
    pytest.importorskip("torchvision")  # Qwen's processor needs it
    load_script(ROOT / "tests" / "dialects" / "tiny_models.py").make_tiny("qwen3-vl", folder / "stand-in")
    text = page_text("any_model")
    assert len(re.findall(r"^bird ", "".join(code for _, code, _ in blocks(text)), re.MULTILINE)) == 8
    smaller = {
        "Qwen/Qwen3-VL-4B-Instruct": "stand-in",
        "--images 240": "--images 16",
        "--output_dir runs/qwen": f"--output_dir runs/qwen {_ON_CPU} {_TWO_STEPS}",
        "--task vg --out": "--task vg --max-new-tokens 8 --out",
        "--draw answer.png": "--draw answer.png --max-new-tokens 8",
    }
    run("docs/any_model.md", text, smaller)
    final = folder / "runs" / "qwen" / "final"
    assert read_dialect(final).name == "qwen3-vl" and (final / "adapter_model.safetensors").is_file()
    state = json.loads((folder / "runs" / "qwen" / "checkpoint-2" / "trainer_state.json").read_text("utf-8"))
    assert any("eval_vg_recall@0.5" in entry for entry in state["log_history"])


@pytest.mark.slow
def test_scoring(folder):
    install_checkpoint(folder / "bird")
    make_data(folder, 2)
    assert run_page("score")["scores"] == {"recall": 1.0, "hits": 1, "total": 1}
    assert (folder / "runs" / "bird" / "report.md").is_file()


@pytest.mark.slow
def test_exporting(folder):
    install_checkpoint(folder / "bird")
    names = run_page("export")
    assert names["model"].num_parameters() > 9e6
    assert "Nothing was measured" in (folder / "with-card" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_exporting_for_trainers(folder):
    make_data(folder, 2)
    run_page("export_for_trainers")
    assert {"data_dict.json", "dialect.json"} <= {path.name for path in Path("for-qwen").iterdir()}
    assert Path("for-llama-factory/dataset_info.json").is_file()


@pytest.mark.slow
def test_asking_as_the_readme_does(folder):
    install_checkpoint(folder / "bird")
    make_data(folder, 2)
    _, cell = next(sample_dialogues("test"))
    (folder / "IMAGE.png").write_bytes(cell["bytes"])
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names = run("README.md", re.sub(r"^```bash\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    assert names["answer"].text and set(names["data"]) == {"train", "test"}


def test_the_description_on_the_page_is_the_one_of_the_drawn_images(load_script):
    assert f"```yaml\n{load_script(ROOT / 'benchmarks' / 'own_images.py').DESCRIPTION}```" in page_text(
        "own_images"
    )


def test_the_table_of_own_images_is_what_the_script_printed(load_script):
    report = DOCS / "own_images.json"
    if report.exists():
        table = load_script(ROOT / "benchmarks" / "own_images.py").table(
            json.loads(report.read_text("utf-8"))
        )
        assert table in page_text("own_images")
    else:
        assert "Not measured yet." in page_text("own_images")


def test_the_full_size_page_is_what_the_script_wrote(load_script):
    report = json.loads((DOCS / "full_size.json").read_text(encoding="utf-8"))
    assert load_script(ROOT / "benchmarks" / "full_size.py").as_markdown(report) == page_text("full_size")


def test_every_key_of_labels_yaml_is_documented():
    rows = re.findall(r"^\| `(\w+)` \| (yes|no|unless)", page_text("data"), re.MULTILINE)
    fields = {field.name: field for field in dataclasses.fields(Description)}
    assert {key for key, _ in rows} == fields.keys()
    optional = {key for key, required in rows if required == "no"}
    none = dataclasses.MISSING
    has_default = {
        name
        for name, field in fields.items()
        if not (field.default is none and field.default_factory is none)
    }
    assert optional == has_default


def test_every_field_of_a_recipe_that_is_ours_is_documented():
    from trl import SFTConfig

    from bird_hf.train.any_vlm.config import AnyVlmConfig
    from bird_hf.train.recipe import BirdSFTConfig

    ours, trls, others = (
        {field.name for field in dataclasses.fields(kind) if field.init}
        for kind in (BirdSFTConfig, SFTConfig, AnyVlmConfig)
    )
    own = (ours - trls) | {"packing"}  # which packs images too
    section = page_text("train_on_gpus").partition("## What a recipe may set")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == own
    assert set(re.findall(r"^\| `(\w+)` \|", page_text("train_any_model"), re.MULTILINE)) == others - trls


def test_the_example_of_labels_yaml_can_be_read(tmp_path):
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", page_text("data"), re.MULTILINE | re.DOTALL)
    (tmp_path / "labels.yaml").write_text(example, encoding="utf-8")
    about = read_description(tmp_path / "labels.yaml")
    assert about.labels[3] == "nodule" and about.lesions == ("nodule",) and about.exhaustive


def test_the_cli_page_is_the_commands_own_help(load_script):
    assert load_script(DOCS / "make_cli_page.py").page() == page_text("cli"), "run docs/make_cli_page.py"


def test_the_tables_of_dialects_are_the_codes(load_script):
    script = load_script(DOCS / "make_dialects_table.py")
    assert f"{script.START}{script.tables()}{script.END}" in page_text("dialects"), (
        "run docs/make_dialects_table.py"
    )


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    reference = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    assert "from_thousandths" in reference
    assert not re.findall(r"<(?:ref|box|img|imgpad)>", reference), "put tags in docstrings between backticks"
    html = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html"))
    assert not re.findall(r'<(?:link|script|img)[^>]*(?:href|src)="(https?:[^"]*)"[^>]*>', html)


def test_every_page_is_in_the_navigation():
    def pages(entries: list) -> list[str]:
        found = []
        for entry in entries:
            (target,) = entry.values()
            found += [target] if isinstance(target, str) else pages(target)
        return found

    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(pages(site["nav"])) == [f"{page}.md" for page in PAGES]


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_exists(page):
    text = page_text(page)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (DOCS / target).exists(), target
    for name in re.findall(
        r"`((?:tests|benchmarks|recipes|src|dataset_scripts|metrics|docs)/[\w./]+)`", text
    ):
        assert (ROOT / name).exists(), name
