"""Model cards, recipes and metrics have one copy, which a checkout and the wheel both find."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import bird_hf
from bird_hf import repository_folders
from bird_hf.repository_folders import find_recipe, repository_folder

ROOT = Path(__file__).parents[1]
FOLDERS = ("model_card", "recipes", "metrics")
FIND = """
import json
import bird_hf
from bird_hf.checkpoint.model_card import known_origins, read_origin
from pathlib import Path
from bird_hf.repository_folders import find_recipe, repository_folder
found = {name: str(repository_folder(name)) for name in %r}
names = ("grounding_recall", "mbmr", "object_hallucination", "referring_recall", "scene_graph_f1", "spice")
found |= {name: bird_hf.metric(name) for name in names}
found["recipe"] = str(find_recipe(Path("recipes/nano.yaml")))
origins = {name: read_origin(name).license for name in known_origins()}
print(json.dumps(dict(package=bird_hf.__file__, found=found, origins=origins)))
"""


@pytest.fixture(scope="module")
def wheel_files() -> dict[str, Path]:
    """What a wheel contains, by the path in it, without building one."""
    return {
        file.distribution_path: Path(file.path) for file in WheelBuilder(str(ROOT)).recurse_included_files()
    }


@pytest.mark.parametrize("name", FOLDERS)
def test_a_checkout_finds_the_folder_at_its_top(name):
    assert repository_folder(name) == ROOT / name


@pytest.mark.parametrize("name", FOLDERS)
def test_the_wheel_contains_every_file_of_the_folder(wheel_files, name):
    tracked = subprocess.run(
        ["git", "ls-files", "-z", name], cwd=ROOT, capture_output=True, text=True, check=True
    )
    expected = {f"bird_hf/assets/{path}": ROOT / path for path in tracked.stdout.split("\0") if path}
    assert len(expected) > 3
    assert {path: file for path, file in wheel_files.items() if f"assets/{name}/" in path} == expected


def test_the_wheel_contains_the_package_and_says_that_it_is_typed(wheel_files):
    package = ROOT / "src" / "bird_hf"
    for file in (*package.rglob("*.py"), package / "py.typed", *(package / "assets").rglob("*.safetensors")):
        assert wheel_files[str(file.relative_to(package.parent))] == file
    assert all(path.startswith("bird_hf/") for path in wheel_files)


def test_an_installed_wheel_finds_its_folders_and_reads_the_origins(wheel_files, tmp_path):
    """The files as pip would place them, by links, outside the repository."""
    for path, file in wheel_files.items():
        place = tmp_path / "site" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(file)
    ran = subprocess.run(
        [sys.executable, "-c", FIND % (FOLDERS,)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(ran.stdout)
    package = tmp_path / "site" / "bird_hf"
    assert said["package"] == str(package / "__init__.py")
    assets = package / "assets"
    metrics = {
        name: str(assets / "metrics" / name)
        for name in (
            "grounding_recall",
            "mbmr",
            "object_hallucination",
            "referring_recall",
            "scene_graph_f1",
            "spice",
        )
    }
    recipe = {"recipe": str(assets / "recipes" / "nano.yaml")}
    assert said["found"] == {name: str(assets / name) for name in FOLDERS} | metrics | recipe
    assert said["origins"]["qwen-vl"] == "other" and len(said["origins"]) == 5


def test_a_broken_install_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(repository_folders, "_PACKAGE", tmp_path / "lib" / "bird_hf")
    with pytest.raises(
        FileNotFoundError, match="was installed without its model_card folder; install bird-hf"
    ):
        repository_folder("model_card")


def test_an_unknown_metric_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'recall' is not a metric; use one of grounding_recall, mbmr, obj"):
        bird_hf.metric("recall")


def test_a_recipe_of_ones_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = find_recipe(Path("recipes/nano.yaml"))
    assert packaged == ROOT / "recipes" / "nano.yaml"
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "nano.yaml").write_text("seed: 1")
    assert find_recipe(Path("recipes/nano.yaml")) == Path("recipes/nano.yaml")


@pytest.mark.parametrize(
    "path", ["recipes/unknown.yaml", "nano.yaml", "other/nano.yaml", "recipes/../nano.yaml"]
)
def test_a_recipe_that_does_not_exist_is_refused_with_the_known_ones(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no such recipe; give your file, or one of .*recipes/nano\.yaml"):
        find_recipe(Path(path))
