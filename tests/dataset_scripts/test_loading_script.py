"""dataset_scripts/med_grit.py under datasets 3.6, the last version that runs scripts, in an environment of its own.

The environment is made once, from PyPI (about a minute), and kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bird_hf.data.folder import publish as publishing
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import SINGLE_TASKS, Modality, Task, row_features
from bird_hf.data.teachers.templates import write_dialogue

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "dataset_scripts" / "med_grit.py"
REQUIREMENTS = ("datasets==3.6.*", "pillow")

IMAGES = [draw_phantom(modality, seed, 64) for seed, modality in enumerate((Modality.CT, Modality.FUNDUS))]
DIALOGUES = [
    write_dialogue(record_of(image), np.random.default_rng(seed), dict.fromkeys(SINGLE_TASKS, 1), absent=1)
    for seed, image in enumerate(IMAGES)
]

# Runs in the environment of datasets 3.6: prints version, columns and rows, with pixels as a hash.
LOAD = """
import hashlib, json, sys
import datasets

arguments = json.loads(sys.argv[1])
loaded = datasets.load_dataset(trust_remote_code=True, **arguments)

def plain(row):
    image = row.pop("image")
    pixels = image and hashlib.sha256(image.tobytes()).hexdigest()
    return row | {"pixels": pixels}

print(json.dumps({
    "version": datasets.__version__,
    "columns": {split: rows.column_names for split, rows in loaded.items()},
    "rows": {split: [plain(row) for row in rows] for split, rows in loaded.items()},
}))
"""


def test_the_script_is_the_packages_builder():
    """A script cannot import the package, so there are two copies: cp src/bird_hf/data/med_grit.py dataset_scripts/"""
    assert SCRIPT.read_bytes() == (ROOT / "src" / "bird_hf" / "data" / "med_grit.py").read_bytes()


@pytest.fixture(scope="module")
def python_of_3_6() -> Path:
    """A Python with datasets 3.6 and without bird_hf."""
    if sys.version_info >= (3, 14):
        pytest.skip("datasets 3.6 does not run on Python 3.14")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bird-hf"
    home = caches / "datasets-3.6-python-{}.{}".format(*sys.version_info[:2])
    if not (home / "bin" / "python").exists():
        caches.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=".making-", dir=caches))
        try:
            venv.create(making, symlinks=True, with_pip=True)
            install(making / "bin" / "python")
            if not home.exists():  # another run may have made it meanwhile
                making.rename(home)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return home / "bin" / "python"


def install(python: Path) -> None:
    """Install datasets 3.6. Without a package index the tests are skipped, but in CI they fail."""
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS]
    result = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=600)
    if result.returncode:
        leave = pytest.fail if os.environ.get("CI") else pytest.skip
        leave(f"datasets 3.6 cannot be installed: {result.stderr[-500:]}")


def clean_environment() -> dict[str, str]:
    """The environment of this test without the variables that make bird_hf importable."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def load(
    python: Path, config: str, folder: Path, cache: Path, **options: str
) -> subprocess.CompletedProcess[str]:
    arguments = {
        "path": str(SCRIPT),
        "name": config,
        "data_dir": str(folder),
        "cache_dir": str(cache),
    } | options
    return subprocess.run(
        [python, "-c", LOAD, json.dumps(arguments)],
        env=clean_environment(),
        cwd=cache,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Training rows hold their pixels, test rows do not."""
    out = tmp_path_factory.mktemp("published") / "med-grit"
    splits = {
        "train": [(DIALOGUES[0], publishing.image_cell(IMAGES[0]))],
        "test": [(DIALOGUES[1], None)],
    }
    publishing.publish(splits, out, "# Two phantoms\n")
    return out


def expected(number: int, config: str, with_pixels: bool) -> list[dict[str, Any]]:
    digest = hashlib.sha256(IMAGES[number].pixels.tobytes()).hexdigest() if with_pixels else None
    rows = publishing.rows_of(DIALOGUES[number], None)[Task(config)]
    return [
        {name: value for name, value in row.items() if name != "image"} | {"pixels": digest} for row in rows
    ]


@pytest.mark.slow
@pytest.mark.parametrize("config", ["vg", "roc", "rc", "mia"])
def test_rows_are_those_that_were_published(python_of_3_6, folder, tmp_path, config):
    result = load(python_of_3_6, config, folder, tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    loaded = json.loads(result.stdout)
    assert loaded["version"].startswith("3.6.")
    assert loaded["columns"] == {split: list(row_features()) for split in ("train", "test")}
    assert loaded["rows"] == {"train": expected(0, config, True), "test": expected(1, config, False)}


@pytest.mark.slow
def test_the_users_own_images_are_joined(python_of_3_6, folder, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    (images / f"{IMAGES[1].info.image_id}.png").write_bytes(publishing.png_bytes(IMAGES[1].pixels))
    result = load(python_of_3_6, "vg", folder, tmp_path, images_dir=str(images))
    assert result.returncode == 0, result.stderr[-2000:]
    loaded = json.loads(result.stdout)
    assert loaded["rows"] == {"train": expected(0, "vg", True), "test": expected(1, "vg", True)}


@pytest.mark.slow
def test_a_missing_image_ends_in_a_line_that_says_so(python_of_3_6, folder, tmp_path):
    (tmp_path / "images").mkdir()
    result = load(python_of_3_6, "vg", folder, tmp_path, images_dir=str(tmp_path / "images"))
    assert result.returncode == 1
    assert f"{IMAGES[1].info.image_id}.png is missing or cannot be read" in result.stderr.splitlines()[-1]
