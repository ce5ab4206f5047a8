"""`bird data build`: a whole dataset with the same bytes, however it was interrupted and with any number of workers."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import time
import tracemalloc
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bird_hf.data.build.pipeline import BuildSettings, build
from bird_hf.data.folder.publish import open_folder
from bird_hf.data.records import Modality
from bird_hf.data.teachers.base import Refusal
from bird_hf.data.teachers.templates import TemplateTeacher
from bird_hf.data.teachers.wordings import Wordings

from .example_builds import COUNT, IMAGES, SETTINGS, published, run


def test_every_image_is_taken_or_counted(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["source"]["images"] == IMAGES + 1
    assert manifest["dropped"] == {"inverted_mask": 1, "near_duplicate": 1}
    images = Counter(
        row["image_id"] for split in ("train", "test") for row in open_folder(built, "chat", split)
    )
    assert images.total() == len(images) == IMAGES - 1
    splits = [splits for of_modality in manifest["images"].values() for splits in of_modality.values()]
    assert sum(sum(counts.values()) for counts in splits) == IMAGES - 1


def test_no_case_is_on_both_sides(built: Path) -> None:
    sides = [{row["case_id"] for row in open_folder(built, "chat", split)} for split in ("train", "test")]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_nothing_depends_on_workers_paths_or_the_order_of_files(
    source: Path, built: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere"
    (copy / "images").mkdir(parents=True)
    (copy / "masks").mkdir()
    for path in sorted(source.rglob("*.*"), reverse=True):
        shutil.copyfile(path, copy / path.relative_to(source))
    build(copy, tmp_path / "out", SETTINGS, workers=2)
    assert published(tmp_path / "out") == published(built)


def test_ray_gives_the_same_bytes(source: Path, built: Path, tmp_path: Path) -> None:
    import ray

    build(source, tmp_path, SETTINGS, workers=2, engine="ray")
    assert published(tmp_path) == published(built)
    assert not ray.is_initialized()


def stages_done(out: Path) -> set[str]:
    """Return the stages that a running build has done, read from its database by another process."""
    path = out / ".build" / "state" / "build.sqlite"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            reads = database.execute("SELECT COUNT(*) FROM reads").fetchone()[0]
            return {name for (name,) in database.execute("SELECT name FROM stages")} | (
                {"reads"} if reads else set()
            )
    except sqlite3.Error:
        return set()


@pytest.mark.parametrize("moment", ["start", "list", "reads", "read", "choose", "words", "publish"])
def test_a_killed_build_goes_on_and_ends_the_same(
    source: Path, built: Path, tmp_path: Path, moment: str
) -> None:
    out = tmp_path / "out"
    process = run(source, "--out", out, "--seed", 3, "--workers", 2)
    while process.poll() is None and moment not in stages_done(out):
        if moment == "start" and (out / ".build").exists():
            break
        time.sleep(0.002)
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, "workers outlive a killed build"
    build(source, out, SETTINGS, workers=1)
    assert published(out) == published(built)


class DyingTeacher(TemplateTeacher):
    """Fails after `lives` dialogues; `asked` lists the images that it wrote about."""

    def __init__(self, seed: int, lives: int) -> None:
        super().__init__(seed)
        self.lives, self.asked = lives, []

    def dialogues(self, records, wordings=Wordings.PLAIN):  # type: ignore[no-untyped-def]
        for record in records:
            if len(self.asked) == self.lives:
                raise ValueError("no connection")
            self.asked.append(record.info.image_id)
            yield from super().dialogues([record], wordings)


def test_what_a_teacher_wrote_is_not_asked_for_again(source: Path, built: Path, tmp_path: Path) -> None:
    first = DyingTeacher(SETTINGS.seed, lives=35)
    with pytest.raises(ValueError, match="no connection"):
        build(source, tmp_path, SETTINGS, 1, first)
    second = DyingTeacher(SETTINGS.seed, lives=1000)
    build(source, tmp_path, SETTINGS, 1, second)
    assert len(second.asked) == IMAGES - 1 - 32  # 32 are committed together
    assert published(tmp_path) == published(built)


class ChoosyTeacher(TemplateTeacher):
    """Refuses every CT image."""

    def dialogues(self, records, wordings=Wordings.PLAIN):  # type: ignore[no-untyped-def]
        for answer in super().dialogues(records, wordings):
            info = answer.record.info
            yield Refusal(info.image_id, "unknown_id") if info.modality is Modality.CT else answer


def test_what_a_teacher_refuses_is_left_out_and_counted(source: Path, tmp_path: Path) -> None:
    manifest = build(source, tmp_path, SETTINGS, 1, ChoosyTeacher(0))
    assert manifest["refused"] == {"unknown_id": COUNT - 1}
    assert manifest["dropped"]["refused_by_teacher"] == COUNT - 1
    assert "ct" not in manifest["images"]


def test_a_limit_takes_so_many_and_counts_the_rest(source: Path, built: Path, tmp_path: Path) -> None:
    manifest = build(source, tmp_path, BuildSettings(limit=16, seed=3), 1)
    images = [row["image_id"] for split in ("train", "test") for row in open_folder(tmp_path, "chat", split)]
    assert len(images) == 16 and Counter(name.split("_")[0] for name in images).most_common()[-1][1] >= 1
    assert sum(manifest["dropped"].values()) == IMAGES + 1 - 16


def test_a_finished_build_is_not_done_again_and_a_changed_source_is(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "source"
    shutil.copytree(source, copy)
    out = tmp_path / "out"
    first = build(copy, out, SETTINGS, 1)
    written = {path: path.stat().st_mtime_ns for path in out.glob("data/*/*")}
    assert build(copy, out, SETTINGS, 1) == first
    assert {path: path.stat().st_mtime_ns for path in out.glob("data/*/*")} == written
    for path in copy.glob("*/ultrasound*"):
        path.unlink()
    assert "ultrasound" not in build(copy, out, SETTINGS, 1)["images"]


def test_a_folder_of_something_else_is_not_written_over(source: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"holds a README\.md that is not of a build; give another folder"):
        build(source, tmp_path, SETTINGS, 1)
    assert [*tmp_path.iterdir()] == [tmp_path / "README.md"]


def test_memory_does_not_grow_with_what_the_source_lists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A small run of benchmarks/build_scale.py: three times the records, and as many images of them."""
    path = Path(__file__).parents[3] / "benchmarks" / "build_scale.py"
    spec = importlib.util.spec_from_file_location("build_scale", path)
    assert spec and spec.loader
    scale = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scale)
    peaks = []
    for count in (300, 2000, 6000):  # the first run imports modules
        tracemalloc.start()
        scale.build_once(count, 40 / count, monkeypatch.setattr)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[1]


def test_two_builds_in_one_folder_do_not_meet(source: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / ".build").mkdir()
    with FileLock(tmp_path / ".build" / "lock"), pytest.raises(ValueError, match="another build is running"):
        build(source, tmp_path, SETTINGS, 1)


def test_the_command_prints_what_was_taken_and_dropped(source: Path, tmp_path: Path) -> None:
    process = run(source, "--out", tmp_path / "out", "--limit", 9)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "| modality | dataset | train | test |" in out and "| not_sampled |" in out and "vg: " in out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "is not a source of images"),
        (("--teacher", "parrot"), "teacher 'parrot' is unknown; use templates or openai"),
        (("--teacher", "openai"), "the teacher has no model name"),
    ],
)
def test_bad_input_ends_in_one_line(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    process = run(tmp_path, "--out", tmp_path / "out", *options)
    out, errors = process.communicate(timeout=300)
    assert (process.returncode, out) == (2, "")
    assert errors.count("\n") == 1 and says in errors
    assert not os.path.exists(tmp_path / "out")


def test_wordings_vary_in_the_training_split_only(source: Path, built: Path, tmp_path: Path) -> None:
    plain = build(source, tmp_path, replace(SETTINGS, wordings="plain"), 1)
    files, varied = plain["files"], json.loads((built / "manifest.json").read_text())["files"]
    assert {name: files[name] for name in files if "/test-" in name} == {
        name: varied[name] for name in varied if "/test-" in name
    }
    for folder, split, is_varied in (
        (built, "train", True),
        (built, "test", False),
        (tmp_path, "train", False),
    ):
        forms = [form for row in open_folder(folder, "chat", split) for form in row["forms"]]
        assert forms and all(forms)
        assert any("/plain/" not in form for form in forms) == is_varied


def test_columns_other_than_messages_and_forms_do_not_depend_on_the_wordings(
    source: Path, built: Path, tmp_path: Path
) -> None:
    build(source, tmp_path, replace(SETTINGS, wordings="plain"), 1)
    rows = [open_folder(folder, "chat", "train") for folder in (built, tmp_path)]
    for column in ("image_id", "image_wh", "caption", "case_id", "teacher"):
        assert rows[0][column][:] == rows[1][column][:]
