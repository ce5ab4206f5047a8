"""`bird data check`: what it prints and writes, and that nothing of a build is published."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bird_hf.data.build.check import checked_source
from bird_hf.data.build.pipeline import BuildSettings, build
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import MaskedImage, Modality
from bird_hf.draw import MODEL_COLOURS
from bird_hf.hub.boxes import Box
from bird_hf.reports.check import picture_of, write_check

from .example_builds import COUNT, IMAGES, SETTINGS, manifest


def test_only_the_list_and_the_picture_are_written(source: Path, tmp_path: Path) -> None:
    write_check(source, tmp_path / "check", SETTINGS, 1)
    assert {path.name for path in (tmp_path / "check").iterdir()} == {"left_out.csv", "check.png"}
    assert min(Image.open(tmp_path / "check" / "check.png").size) > 1000


def test_it_takes_and_leaves_out_what_a_build_does(source: Path, built: Path, tmp_path: Path) -> None:
    found = write_check(source, tmp_path, SETTINGS, 1)
    assert found.dropped == manifest(built)["dropped"]
    assert (tmp_path / "left_out.csv").read_bytes() == (built / "left_out.csv").read_bytes()
    for modality, datasets in manifest(built)["images"].items():
        for dataset, splits in datasets.items():
            assert (
                f"| {modality} | {dataset.replace('_', chr(92) + '_')} | {sum(splits.values())} |"
                in found.taken
            )


def test_images_that_were_not_sampled_are_counted(source: Path, tmp_path: Path) -> None:
    with checked_source(source, tmp_path, BuildSettings(limit=16, seed=3), 1) as checked:
        assert sum(count for _, _, count in checked.images) == 16
        assert checked.dropped["not_sampled"] == IMAGES + 1 - 16 - sum(
            count for reason, count in checked.dropped.items() if reason != "not_sampled"
        )


def test_the_examples_are_of_different_modalities_and_always_the_same(source: Path, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        with checked_source(source, tmp_path / name, SETTINGS, 1) as checked:
            found.append([record.info.image_id for _, record in checked.examples(6)])
    assert found[0] == found[1] and len({name.split("_")[0] for name in found[0]}) == 6


def test_the_command_prints_tables_and_files(bird, source: Path, tmp_path: Path) -> None:
    code, out, _ = bird("check", source, "--out", tmp_path, "--workers", "1")
    assert code == 0
    assert f"| ct | phantom\\_ct | {COUNT - 1} |" in out and "| inverted_mask | 1 |" in out
    assert out.endswith(f"left out: see {tmp_path / 'left_out.csv'}\n{tmp_path / 'check.png'}\n")


def test_a_modality_that_does_not_exist_ends_in_one_line(bird, source: Path, tmp_path: Path) -> None:
    code, out, errors = bird("check", source, "--out", tmp_path / "out", "--modality", "xray")
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert "use one of ct, mr, x_ray" in errors and not (tmp_path / "out").exists()


def test_an_old_picture_does_not_stay_beside_a_refused_source(review_source: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(review_source, tmp_path / "source"))
    write_check(folder, tmp_path / "out", BuildSettings(), 1)
    for mask in folder.glob("masks/*"):
        Image.fromarray(np.zeros_like(Image.open(mask))).save(mask)
    with pytest.raises(ValueError, match="16 empty_mask"):
        write_check(folder, tmp_path / "out", BuildSettings(), 1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["left_out.csv"]


def test_a_running_check_is_not_disturbed(source: Path, tmp_path: Path) -> None:
    with checked_source(source, tmp_path, SETTINGS, 1):
        with pytest.raises(ValueError, match="another build is running"):
            write_check(source, tmp_path, SETTINGS, 1)
        assert (tmp_path / ".check" / ".build" / "state").is_dir()
    assert not (tmp_path / ".check").exists()


def colours(picture: Image.Image) -> set[str]:
    return {"#" + bytes(pixel).hex() for pixel in np.asarray(picture).reshape(-1, 3)[:, :3]}


def test_boxes_are_drawn_where_the_objects_are() -> None:
    """Of a mask the outline too; of a box without one, the box alone."""
    pixels = np.zeros((40, 80), np.uint8)
    pixels[0] = 90
    mask = np.zeros((40, 80), bool)
    mask[10:30, 20:30] = True
    info = draw_phantom(Modality.X_RAY, 0, 64).info
    image = MaskedImage(info, pixels, (("mass", mask),), (), (("nodule", Box(0.5, 0.25, 0.75, 0.75)),))
    picture = picture_of(image, record_of(image), 0.0)
    assert {*MODEL_COLOURS[:2]} <= colours(picture) and MODEL_COLOURS[2] not in colours(picture)
    drawn = np.asarray(picture)[:320]
    first = (drawn == [0xFF, 0x9F, 0x1C]).all(axis=-1)[100:220]  # below the label, above the lower edge
    assert np.flatnonzero(first.any(axis=0))[[0, -1]].tolist() == [160, 239]  # 8 times 20 and 30
    second = (drawn == [0x2E, 0xC4, 0xF1]).all(axis=-1)[110:220]
    assert np.flatnonzero(second.any(axis=0))[[0, -1]].tolist() == [320, 479]


def test_a_build_in_the_same_folder_is_not_touched(source: Path, tmp_path: Path) -> None:
    build(source, tmp_path, SETTINGS, 1)
    before = {path: path.read_bytes() for path in tmp_path.glob("data/*/*")}
    write_check(source, tmp_path, SETTINGS, 1)
    assert {path: path.read_bytes() for path in tmp_path.glob("data/*/*")} == before
