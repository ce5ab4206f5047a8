"""The house rules that a program can check: floors, the checkpoint's files, sizes, names, types, style."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "bird_hf"
SOURCES = sorted(PACKAGE.rglob("*.py"))
HUB = sorted((PACKAGE / "hub").glob("*.py"))
GRAMMAR = PACKAGE / "hub" / "grounding.py"
# Other models' grammars.
DIALECTS = sorted((PACKAGE / "dialects").rglob("*.py"))
# Repeats how the original scripts read boxes, faults included.
PAPER_RULES = PACKAGE / "eval" / "paper_rules.py"

LONGEST_FILE, LONGEST_MODEL_FILE, LONGEST_FUNCTION = 400, 700, 40
NOUNLESS = {"utils", "util", "common", "helpers", "helper", "constants", "misc"}

# How transformers finds the files that a checkpoint's code needs: line by line, docstrings included.
_RELATIVE_IMPORT = re.compile(r"^\s*from\s+\.(\S*)\s+import|^\s*import\s+\.(\S+)", re.MULTILINE)


def _named(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """(level, module) of every import of a file, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("-m", "ruff", "check", "."), id="ruff"),
        pytest.param(("-m", "ruff", "format", "--check", "."), id="ruff-format"),
        pytest.param(("-m", "mypy"), id="mypy"),
        pytest.param(
            ("-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"),
            id="import-linter",
        ),
    ],
)
def test_a_checker_finds_nothing(arguments):
    result = _run(*arguments)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


@pytest.mark.parametrize("path", _named(HUB))
def test_a_hub_file_imports_only_its_siblings_of_this_package(path):
    for level, module in _imports(path):
        assert module.split(".")[0] != "bird_hf", "an absolute import makes the package a requirement"
        if level:
            assert level == 1 and module, f"{module!r} at level {level}: write `from .sibling import Name`"
            assert path.with_name(f"{module}.py") in HUB, f".{module} is not a file beside this one"


@pytest.mark.parametrize("path", _named(HUB))
def test_transformers_sees_the_relative_imports_that_a_hub_file_has(path):
    seen = {first or second for first, second in _RELATIVE_IMPORT.findall(path.read_text("utf-8"))}
    assert seen == {module for level, module in _imports(path) if level}


@pytest.mark.parametrize("name", ["boxes.py", "grounding.py"])
def test_boxes_and_grammar_need_the_standard_library_only(name):
    for level, module in _imports(PACKAGE / "hub" / name):
        assert module == "boxes" if level else module.split(".")[0] in sys.stdlib_module_names


@pytest.mark.slow
def test_the_data_floor_loads_no_torch():
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in (PACKAGE / "data").rglob("*.py")
    ]
    code = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
    result = _run("-c", code + "sys.exit(sorted({'torch', 'transformers'} & {*sys.modules}) or 0)")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "path", _named([path for path in SOURCES if path not in (GRAMMAR, PAPER_RULES, *DIALECTS)])
)
def test_only_the_grammar_matches_boxes_and_tags_in_text(path):
    """A second regular expression for `(12,34),(56,78)` or `<box>` would drift from the first."""
    tree = ast.parse(path.read_text("utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            is_pattern = re.search(r"\\\(.*(\\d|\[0-9)|</?(ref|box)>.*[*+?\\]", node.value, re.DOTALL)
            assert not is_pattern, (
                f"line {node.lineno}: use bird_hf.hub.grounding.read instead of {node.value!r}"
            )


@pytest.mark.parametrize("path", _named(SOURCES))
def test_files_and_functions_stay_short(path):
    text = path.read_text("utf-8")
    limit = LONGEST_MODEL_FILE if path.name.startswith("modeling_") else LONGEST_FILE
    assert len(text.splitlines()) <= limit
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


def test_a_module_is_named_after_what_it_holds():
    assert not [str(path) for path in SOURCES if NOUNLESS & {path.stem, *path.relative_to(PACKAGE).parts}]


def test_no_file_of_the_repository_names_a_place_on_one_machine():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    machine_path = re.compile(rb"(?<![\w.~/-])/(?:work|root)(?![\w.-])")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert len(files) > len(SOURCES), "git lists fewer files than the package has"
    texts = {path: path.read_bytes() for path in files if path.is_file()}
    assert not [
        str(p) for p, content in texts.items() if b"\0" not in content and machine_path.search(content)
    ]


@pytest.mark.parametrize("page", ["docs/decisions.md", "docs/paper_map.md"])
def test_every_test_and_module_that_a_page_names_exists(page):
    text = (ROOT / page).read_text("utf-8")
    names = re.findall(r"`((?:tests|src|docs)/[\w./]+)((?:::\w+)*)`", text)
    assert len(names) > 10
    for file, parts in names:
        assert (ROOT / file).exists(), file
        scope: ast.AST = ast.parse((ROOT / file).read_text("utf-8")) if parts else ast.Module([], [])
        for part in parts.split("::")[1:]:
            inside = {getattr(node, "name", None): node for node in ast.iter_child_nodes(scope)}
            assert part in inside, f"{file}{parts}"
            scope = inside[part]
