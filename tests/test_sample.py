"""`bird quickstart`: which files it writes, which images it asks about, and that it keeps the user's files."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bird_hf import cli, sample
from bird_hf.data.embedded import sample_set
from bird_hf.data.folder.publish import image_cell, publish
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import SINGLE_TASKS, MaskedImage, Modality
from bird_hf.data.teachers.templates import write_dialogue

pytestmark = pytest.mark.slow

datasets = pytest.importorskip("datasets")

TASKS = [task.value for task in SINGLE_TASKS]


@pytest.fixture(autouse=True)
def embedded(monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path) -> None:
    monkeypatch.setattr(sample, "embedded_checkpoint", lambda: tiny_checkpoint)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the checkpoint ------------------------------------------------------------------------------------------


def test_a_new_folder_is_a_copy_of_the_checkpoint(tmp_path: Path, tiny_checkpoint: Path) -> None:
    sample.install_checkpoint(tmp_path / "deep" / "bird")
    assert files(tmp_path / "deep") == {f"bird/{name}": data for name, data in files(tiny_checkpoint).items()}


def test_an_older_folder_gets_new_files_and_keeps_foreign_ones(tmp_path: Path, tiny_checkpoint: Path) -> None:
    out = tmp_path / "bird"
    out.mkdir()
    (out / "config.json").write_text("old")
    (out / "notes.txt").write_text("mine")
    (tmp_path / ".bird.making").mkdir()  # of a run that was interrupted
    sample.install_checkpoint(out)
    assert files(tmp_path) == {
        "bird/notes.txt": b"mine",
        **{f"bird/{name}": data for name, data in files(tiny_checkpoint).items()},
    }
    assert [path.name for path in tmp_path.iterdir()] == ["bird"]


def test_a_file_in_the_place_of_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "bird").write_text("mine")
    with pytest.raises(ValueError, match="bird is a file; give the name of a folder"):
        sample.install_checkpoint(tmp_path / "bird")
    assert (tmp_path / "bird").read_text() == "mine"


# --- which images --------------------------------------------------------------------------------------------


def picture(modality: Modality, name: str, objects: int, synthetic: bool) -> MaskedImage:
    """A phantom under another name, with its first `objects` objects."""
    phantom = next(
        found for seed in range(50) if len((found := draw_phantom(modality, seed, 64)).masks) >= objects
    )
    info = replace(phantom.info, image_id=name, synthetic=synthetic)
    return replace(phantom, info=info, masks=phantom.masks[:objects], absent=())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = [
        picture(Modality.CT, "ct_phantom_rich", 4, synthetic=True),
        picture(Modality.CT, "ct_real_poor", 1, synthetic=False),
        picture(Modality.CT, "ct_real_rich", 2, synthetic=False),
        picture(Modality.FUNDUS, "fundus_poor", 1, synthetic=True),
        picture(Modality.FUNDUS, "fundus_rich", 2, synthetic=True),
    ]
    rng = np.random.default_rng(0)
    wanted = dict.fromkeys(SINGLE_TASKS, 2)
    dialogues = [
        (write_dialogue(record_of(image), rng, wanted, absent=0), image_cell(image)) for image in pictures
    ]
    out = tmp_path_factory.mktemp("sample") / "med-grit"
    publish({"test": dialogues}, out, "# Test\n", shards=1)
    return out


def test_one_image_a_modality_a_real_one_first_and_of_these_the_richest(data: Path) -> None:
    rows = sample.example_rows(data)
    assert list(dict.fromkeys(row["image_id"] for row in rows)) == ["ct_real_rich", "fundus_rich"]


def test_each_image_is_asked_the_first_question_of_each_task(data: Path) -> None:
    rows = sample.example_rows(data)
    assert [row["task"] for row in rows] == TASKS * 2
    for row in rows:
        all_rows = datasets.load_dataset(str(data), row["task"], split="test")
        first = next(each for each in all_rows if each["image_id"] == row["image_id"])
        assert row["messages"] == first["messages"]


# --- the whole way -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_quickstart_puts_everything_into_place_and_keeps_what_is_the_users(
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cases = tuple(
        replace(case, axes=case.axes[:1]) for case in sample_set.EMBEDDED_CASES if case.name == "brain2"
    )
    monkeypatch.setattr(sample_set, "EMBEDDED_CASES", cases)
    for sizes in ("PHANTOMS_PER_MODALITY", "SLICES_PER_PLANE"):
        monkeypatch.setattr(sample_set, sizes, {"train": 1, "test": 1})
    for name in ("bird", "med-grit", "quickstart"):  # as after an earlier run
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")
    (tmp_path / "bird" / "config.json").write_text("old")
    monkeypatch.setattr(sys, "argv", ["bird", "quickstart", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    printed = capsys.readouterr().out
    assert not stop.value.code

    assert {path.name for path in tmp_path.iterdir()} == {"bird", "med-grit", "quickstart"}
    assert all(
        (tmp_path / name / "notes.txt").read_text() == "mine" for name in ("bird", "med-grit", "quickstart")
    )
    assert files(tmp_path / "bird").items() >= files(tiny_checkpoint).items()
    for task in TASKS:
        found = datasets.load_dataset(str(tmp_path / "med-grit"), task)
        assert {*found} == {"train", "test"}
        assert f"  [{task}] " in printed

    chosen = {path.stem for path in (tmp_path / "quickstart").glob("*.png")} - {"all"}
    assert {name for name in chosen if name in printed} == chosen
    assert len(chosen) == len(Modality)
    assert len([name for name in chosen if "--phantom_" in name]) == len(Modality) - 1  # MR is real
    sizes_wh = [Image.open(tmp_path / "quickstart" / f"{name}.png").size for name in chosen]
    whole = Image.open(tmp_path / "quickstart" / "all.png")
    assert whole.size == (max(width for width, _ in sizes_wh), sum(height for _, height in sizes_wh))
    asked = re.findall(rf"^  \[(?:{'|'.join(TASKS)})\] ", printed, re.MULTILINE)
    assert printed.count("model: ") == printed.count("reference: ") == len(asked) >= 2 * len(Modality)
    assert "research only" in printed
