"""`bird ...` through its entry point: help, version, wrong usage, and how commands refuse."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

import bird_hf
from bird_hf import cli

ROOT = Path(__file__).parents[2]
Bird = Callable[..., Any]


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


def test_help_costs_no_heavy_import(tmp_path: Path, python: Bird) -> None:
    heavy = {"torch", "transformers", "datasets", "numpy", "PIL", "pyarrow", "scipy", "trl"}
    code = f"import sys, bird_hf.cli; print(*sorted({heavy!r} & {{*sys.modules}}))"
    done = python("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_readme_and_commands_name_each_other() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named: set[tuple[str, ...]] = set()
    for first, rest in re.findall(r"(?:`|/)bird ([a-z]+)((?: (?:\| )?[a-z]+\b)*)", readme):
        parts = tuple((first, word) for word in rest.replace("|", " ").split())
        named |= {*parts} if first in ("data", "setup") else {(first,)}
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


# --- other commands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "fragments"),
    [
        ("missing.yaml", None, ["missing.yaml: no such recipe", "recipes/"]),
        ("broken.yaml", b"a: [1,\nb: }", ["broken.yaml is not a YAML file", "recipes/nano.yaml"]),
        ("binary.yaml", b"\xff\xfe\x00", ["binary.yaml is not a YAML file"]),
        ("words.yaml", b"just words", ["words.yaml is not a recipe", "recipes/nano.yaml"]),
    ],
)
def test_recipes_that_cannot_be_read_are_refused(
    bird: Bird, tmp_path: Path, name: str, content: bytes | None, fragments: list[str], assert_refused: Bird
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert_refused(bird("train", "--config", name), *fragments)


def test_showing_what_is_no_dataset_is_refused(bird: Bird, tmp_path: Path, assert_refused: Bird) -> None:
    (tmp_path / "README.md").write_text("# A project\n")
    assert_refused(bird("data", "show", "nowhere"), "nowhere is not a Med-GRIT folder", "bird data sample")
    assert_refused(bird("data", "show", "."), ". is not a Med-GRIT folder")
    assert_refused(bird("data", "show", ".", "--task", "ner"), "task 'ner' is unknown", "vg, roc")
    assert_refused(bird("data", "show", ".", "--out", "no/x.png"), "the folder no does not exist")


def test_phantoms_can_be_drawn_into_the_working_directory(bird: Bird, tmp_path: Path) -> None:
    """A folder is written beside its final place under a name made from its own, which "." does not have."""
    ran = bird("data", "phantoms", "--out", ".", "--count", 1, "--side", 64)
    assert ran.code == 0
    assert re.fullmatch(rf"8 images and \d+ masks in {re.escape(str(tmp_path))}\n", ran.out)
    assert len([*tmp_path.glob("images/*.png")]) == 8


def test_a_package_that_is_not_installed_is_named_with_its_remedy(
    bird: Bird, monkeypatch: Any, assert_refused: Bird
) -> None:
    monkeypatch.setitem(sys.modules, "bird_hf.data.phantoms.sa_med2d_folder", None)
    assert_refused(bird("data", "phantoms"), "sa_med2d", 'pip install -e ".[')


def test_debugging_shows_the_traceback(bird: Bird, monkeypatch: Any) -> None:
    monkeypatch.setenv("BIRD_DEBUG", "1")
    with pytest.raises(ValueError, match="no such recipe"):
        bird("train", "--config", "missing.yaml")


def test_the_version_is_that_of_the_package(bird: Bird) -> None:
    ran = bird("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"bird-hf {bird_hf.__version__}\n", "")


def test_the_module_is_the_command(python: Bird, tmp_path: Path) -> None:
    """`torchrun -m bird_hf.cli train` needs it."""
    done = python("-m", "bird_hf.cli", "--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"bird-hf {bird_hf.__version__}\n"), done.stderr
