"""The builder yields the published rows, joins the user's own images, and never opens a path from a row."""

from __future__ import annotations

import io
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from bird_hf.data.folder.publish import image_cell, png_bytes, publish, rows_of
from bird_hf.data.folder.shards import write_shards
from bird_hf.data.masks import record_of
from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.records import SINGLE_TASKS, Modality, Task, row_features
from bird_hf.data.teachers.templates import write_dialogue

datasets = pytest.importorskip("datasets")

from bird_hf.data.med_grit import ImageNotJoinedError, MedGrit  # noqa: E402 (needs `datasets`)

IMAGES = [
    draw_phantom(modality, seed, 64)
    for seed, modality in enumerate((Modality.CT, Modality.FUNDUS, Modality.PET))
]
DIALOGUES = [
    write_dialogue(record_of(image), np.random.default_rng(seed), dict.fromkeys(SINGLE_TASKS, 1), absent=1)
    for seed, image in enumerate(IMAGES)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("published") / "med-grit"
    splits = {
        "train": [(DIALOGUES[0], image_cell(IMAGES[0]))],
        "test": [(dialogue, None) for dialogue in DIALOGUES[1:]],
    }
    publish(splits, out, "# Three phantoms\n")
    return out


@pytest.fixture(scope="module")
def own_images(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("own") / "images"
    out.mkdir()
    for image in IMAGES:
        (out / f"{image.info.image_id}.png").write_bytes(png_bytes(image.pixels))
    return out


@pytest.fixture
def build(tmp_path):
    def build(split: str, data_dir: Any, config_name: str = "vg", **options: Any) -> Any:
        builder = MedGrit(
            config_name=config_name,
            data_dir=None if data_dir is None else str(data_dir),
            cache_dir=str(tmp_path / "cache"),
            **{name: str(value) for name, value in options.items()},
        )
        builder.download_and_prepare()
        return builder.as_dataset(split=split)

    return build


def folder_of(tmp_path: Path, **changed: Any) -> Path:
    """A Med-GRIT folder with one `vg` row of the test split, some of its columns changed."""
    (row,) = rows_of(DIALOGUES[1], None)[Task.VISUAL_GROUNDING][:1]
    write_shards([row | changed], tmp_path / "changed" / "data" / "vg", "test", 1)
    return tmp_path / "changed"


def without_image(rows: Any) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "image"} for row in rows]


# --- rows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_are_those_that_load_dataset_gives(build, folder, tmp_path, task, split):
    built = build(split, folder, task.value)
    loaded = datasets.load_dataset(str(folder), task.value, split=split, cache_dir=str(tmp_path / "other"))
    assert built.features == loaded.features == row_features()
    assert without_image(built) == without_image(loaded)
    assert len(built) > 0


def test_a_stream_gives_the_same(build, folder, own_images, tmp_path):
    options = {"data_dir": str(folder), "images_dir": str(own_images), "cache_dir": str(tmp_path / "cache")}
    streamed = list(MedGrit(config_name="roc", **options).as_streaming_dataset(split="test"))
    built = build("test", folder, "roc", images_dir=own_images)
    assert without_image(streamed) == without_image(built)
    assert [row["image"].tobytes() for row in streamed] == [row["image"].tobytes() for row in built]


def test_a_rewritten_folder_is_read_again(build, tmp_path):
    assert build("test", folder_of(tmp_path, region="abdomen"))["region"] == ["abdomen"]
    assert build("test", folder_of(tmp_path, region="chest"))["region"] == ["chest"]


# --- images ---------------------------------------------------------------------------------------------------


def test_images_that_are_missing_in_the_rows_come_from_the_users_folder(build, folder, own_images):
    rows = build("test", folder, "chat", images_dir=own_images)
    for row, image in zip(rows, IMAGES[1:], strict=True):
        assert row["image_id"] == image.info.image_id
        assert np.array_equal(np.asarray(row["image"]), image.pixels)


def test_without_images_dir_images_are_none(build, folder):
    assert build("test", folder, "chat")["image"][:] == [None, None]


def test_pixels_of_a_row_take_precedence_over_the_users_file(build, folder, own_images, tmp_path):
    others = shutil.copytree(own_images, tmp_path / "others")
    (others / f"{IMAGES[0].info.image_id}.png").write_bytes(b"no image")
    (row,) = build("train", folder, "chat", images_dir=others)
    assert np.array_equal(np.asarray(row["image"]), IMAGES[0].pixels)


def test_another_folder_of_images_is_another_dataset(build, folder, own_images, tmp_path, monkeypatch):
    inverted = tmp_path / "place" / "images"
    inverted.mkdir(parents=True)
    for image in IMAGES:
        (inverted / f"{image.info.image_id}.png").write_bytes(png_bytes(255 - image.pixels))
    monkeypatch.chdir(own_images.parent)  # both relative paths are `images`
    first = build("test", folder, "chat", images_dir="images")[0]["image"]
    monkeypatch.chdir(inverted.parent)
    second = build("test", folder, "chat", images_dir="images")[0]["image"]
    assert np.array_equal(255 - np.asarray(first), np.asarray(second))


def test_a_path_in_a_row_is_never_opened(build, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("L", (64, 64)).save(secret)
    hostile = folder_of(tmp_path, image={"bytes": None, "path": str(secret)})
    assert build("test", hostile)["image"][:] == [None]


@pytest.mark.parametrize(
    "image_id",
    [
        "../secret",
        "images/../../secret",
        "{root}/secret",
        "..\\secret",
        "C:secret",
        "..",
        ".hidden",
        "",
        "a\0b",
    ],
)
def test_an_image_id_that_is_no_plain_name_is_refused(build, own_images, tmp_path, image_id):
    width, height = record_of(IMAGES[1]).image_wh
    Image.new("L", (width, height)).save(tmp_path / "secret.png")
    images = shutil.copytree(own_images, tmp_path / "images")
    hostile = folder_of(tmp_path, image_id=image_id.replace("{root}", str(tmp_path)))
    with pytest.raises(ImageNotJoinedError, match="not a plain file name"):
        build("test", hostile, images_dir=images)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "is missing or cannot be read", id="missing"),
        pytest.param(b"no image", "is missing or cannot be read", id="not an image"),
        pytest.param(
            png_bytes(np.zeros((9, 8), np.uint8)), r"has \(8, 9\) pixels, and its row", id="another"
        ),
    ],
)
def test_an_image_that_cannot_be_the_rows_is_refused(build, folder, own_images, tmp_path, content, message):
    images = shutil.copytree(own_images, tmp_path / "images")
    path = images / f"{IMAGES[2].info.image_id}.png"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        build("test", folder, images_dir=images)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


# --- images with an EXIF orientation --------------------------------------------------------------------------


def exif_header(exif: int) -> Image.Exif:
    header = Image.Exif()
    header[0x0112] = exif
    return header


def photograph(exif: int, wh: tuple[int, int], kind: str) -> tuple[bytes, np.ndarray]:
    """An image file with an EXIF orientation, and its upright pixels by Pillow's own function."""
    stored = np.random.default_rng(exif).integers(0, 256, (wh[1], wh[0]), dtype=np.uint8)
    files = {}
    for name, options in (("PNG", {"exif": exif_header(exif)}), ("TIFF", {"tiffinfo": {0x0112: exif}})):
        stream = io.BytesIO()
        Image.fromarray(stored).save(stream, name, **options)
        files[name] = stream
    upright = np.asarray(ImageOps.exif_transpose(Image.open(files["PNG"])))
    return files[kind].getvalue(), upright


def test_joined_images_are_upright_whatever_their_exif_orientation(build, tmp_path):
    (row,) = rows_of(DIALOGUES[1], None)[Task.VISUAL_GROUNDING][:1]
    rows, shown = [], {}
    images = tmp_path / "images"
    images.mkdir()
    for exif, wh, kind in product(range(1, 9), [(24, 16), (20, 20)], ["PNG", "TIFF"]):
        image_id = f"{exif}-{wh[0]}-{kind}"
        content, upright = photograph(exif, wh, kind)
        (images / f"{image_id}.png").write_bytes(content)
        size = [upright.shape[1], upright.shape[0]]
        rows += [row | {"image_id": image_id, "image_wh": size}] * 2
        shown[image_id] = upright
    write_shards(rows, tmp_path / "turned" / "data" / "vg", "test", 1)
    built = build("test", tmp_path / "turned", images_dir=images)
    raw = built.cast_column("image", datasets.Image(decode=False))
    assert len(built) == 2 * len(shown) == 64
    for decoded, cell in zip(built, raw, strict=True):
        upright = shown[decoded["image_id"]]
        assert np.array_equal(np.asarray(decoded["image"]), upright)
        if cell["image"]["bytes"] is not None:  # read without `datasets`, whose versions differ in this
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(cell["image"]["bytes"]))), upright)
        else:
            assert decoded["image_id"].startswith("1-")


@pytest.mark.parametrize("wh", [(24, 16), (48, 32)], ids=["stored", "larger"])
def test_a_joined_image_is_compared_by_its_upright_size(build, tmp_path, wh):
    changed = folder_of(tmp_path, image_id="a", image_wh=list(wh))
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(photograph(6, (24, 16), "PNG")[0])  # 16 x 24 upright
    with pytest.raises(ImageNotJoinedError, match=r"a.png has \((16, 24|24, 16)\) pixels, and its row says"):
        build("test", changed, images_dir=images)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_a_turned_image_of_any_mode_is_handed_out(build, tmp_path, mode):
    changed = folder_of(tmp_path, image_id="a", image_wh=[16, 24])
    images = tmp_path / "images"
    images.mkdir()
    grey = Image.new("L", (24, 16), 30)
    picture = Image.new("I;16", (24, 16), 3000) if mode == "I;16" else grey.convert(mode)
    kind, options = (
        ("TIFF", {"tiffinfo": {0x0112: 6}}) if mode == "CMYK" else ("PNG", {"exif": exif_header(6)})
    )
    picture.save(images / "a.png", kind, **options)
    assert build("test", changed, images_dir=images)["image"][0].size == (16, 24)


# --- wrong folders --------------------------------------------------------------------------------------------


def damaged(folder: Path, tmp_path: Path, change) -> Path:
    copy = shutil.copytree(folder, tmp_path / "damaged")
    change(copy / "data" / "vg")
    return copy


def first_shard(vg: Path, split: str) -> Path:
    return min(vg.glob(f"{split}-*.parquet"))


def remove_a_shard(vg: Path) -> None:
    first_shard(vg, "test").unlink()


def break_a_shard(vg: Path) -> None:
    first_shard(vg, "train").write_bytes(b"PAR1 no more")


def put_another_table(vg: Path) -> None:
    table = datasets.Dataset.from_dict({"image_id": ["a"], "text": ["b"]})
    table.to_parquet(str(first_shard(vg, "train")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove_a_shard, "files of test are missing or left over"),
        (break_a_shard, r"train-00000-of-0000\d.parquet is not a Parquet file"),
        (put_another_table, "lacks the columns image, image_wh, messages"),
        (shutil.rmtree, "contains no Parquet files"),
    ],
)
def test_a_damaged_folder_is_refused(build, folder, tmp_path, change, message):
    with pytest.raises(ValueError, match=message) as error:
        build("test", damaged(folder, tmp_path, change))
    assert "\n" not in str(error.value)


def test_wrong_arguments_are_refused(build, folder, tmp_path):
    with pytest.raises(ValueError, match="data_dir is missing"):
        build("test", None)
    with pytest.raises(ValueError, match="'captions' not found"):
        build("test", folder, "captions")
    with pytest.raises(ValueError, match=r"images_dir .* is not a folder"):
        build("test", folder, images_dir=tmp_path / "nowhere")
