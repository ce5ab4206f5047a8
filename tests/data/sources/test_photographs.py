"""Photographs with an EXIF orientation: picture and marks in one frame, in every source, or left out by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bird_hf.data.masks import record_of
from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.data.sources.open import open_source

from .example_photographs import RECTANGLE, box_of, encoded, pixels, rectangle, turned, write
from .example_sources import STEM, listed, sa_med2d

EXIF = range(1, 9)
SIZES = {"oblong": (24, 16), "square": (20, 20)}
COCO_MARKS = ("outline", "box", "run lengths")
ABOUT = "dataset: photos\nmodality: dermoscopy\nregion: skin\nlabels: {1: mole}\n"


def marked_wh(exif: int, wh: tuple[int, int], made_on: str) -> tuple[int, int]:
    """Width and height of the pixels that marks were made on."""
    return wh[::-1] if made_on == "upright" and exif >= 5 else wh


def expected(exif: int, wh: tuple[int, int], sized: bool, declared: str | None, made_on: str) -> object:
    """The upright box of the rectangle, or the reason why the image is left out."""
    if exif == 1:
        return RECTANGLE
    size_tells = sized and exif >= 5 and wh[0] != wh[1]
    if size_tells and declared not in (None, made_on):
        return Drop.SIZE_MISMATCH
    if not size_tells and declared is None:
        return Drop.ORIENTATION_UNKNOWN
    return box_of(turned(rectangle(wh), exif)) if made_on == "stored" else RECTANGLE


def coco_entry(marks: str, wh: tuple[int, int]) -> dict:
    x1, y1, x2, y2 = RECTANGLE
    if marks == "box":
        return {"bbox": [x1, y1, x2 - x1, y2 - y1]}
    if marks == "outline":
        return {"segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]}
    values = np.concatenate([[False], rectangle(wh).T.ravel()])
    starts = np.flatnonzero(values[1:] != values[:-1])
    runs = np.diff(starts, prepend=0, append=wh[0] * wh[1]).tolist()
    return {"segmentation": {"size": [wh[1], wh[0]], "counts": runs}}


def write_coco(root: Path, content: bytes, marks: str, wh: tuple[int, int], sized: bool) -> None:
    write(root / "images" / "a.png", content)
    size = {"width": wh[0], "height": wh[1]} if sized else {}
    (root / "coco.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png", **size}],
                "categories": [{"id": 1, "name": "mole"}],
                "annotations": [{"id": 5, "image_id": 1, "category_id": 1} | coco_entry(marks, wh)],
            }
        )
    )


def check(root: Path, outcome: object, upright: np.ndarray) -> None:
    """Read the only image of a source, and compare picture and box with what must come out."""
    source = open_source(root)
    [candidate] = listed(source)[0].values()
    if isinstance(outcome, Drop):
        with pytest.raises(FaultyImageError) as caught:
            source.read(candidate)
        assert caught.value.reason is outcome
        return
    image = source.read(candidate)
    assert np.array_equal(image.pixels, upright)
    record = record_of(image)
    [instance] = record.instances
    assert record.image_wh == (upright.shape[1], upright.shape[0])
    assert instance.box.to_pixels(record.image_wh) == pytest.approx(outcome)


def labels_yaml(root: Path, declared: str | None, more: str = "") -> None:
    (root / "labels.yaml").write_text(ABOUT + more + (f"orientation: {declared}\n" if declared else ""))


# If neither a size nor the user tells, marks of both kinds look alike; `made_on` is then what the user says.
CASES = [
    pytest.param(exif, wh, sized, declared, made_on, id=f"{exif}-{shape}-{sized}-{declared}-{made_on}")
    for exif in EXIF
    for shape, wh in SIZES.items()
    for sized in (True, False)
    for declared in (None, "stored", "upright")
    for made_on in ("stored", "upright")
    if declared in (None, made_on) or (sized and exif >= 5 and shape == "oblong")
]


@pytest.mark.parametrize("marks", COCO_MARKS)
@pytest.mark.parametrize(("exif", "wh", "sized", "declared", "made_on"), CASES)
def test_coco_marks_and_picture_are_in_one_frame(tmp_path, exif, wh, sized, declared, made_on, marks):
    labels_yaml(tmp_path, declared, "annotations: coco.json\n")
    stored, size = pixels(wh), marked_wh(exif, wh, made_on)
    write_coco(tmp_path, encoded(stored, exif), marks, size, sized)
    told = sized or marks == "run lengths"  # run lengths have a size of their own
    check(tmp_path, expected(exif, wh, told, declared, made_on), turned(stored, exif))


@pytest.mark.parametrize(
    ("exif", "wh", "sized", "declared", "made_on"), [case for case in CASES if case.values[2]]
)
def test_a_label_map_and_its_picture_are_in_one_frame(tmp_path, exif, wh, sized, declared, made_on):
    labels_yaml(tmp_path, declared)
    stored, size = pixels(wh), marked_wh(exif, wh, made_on)
    write(tmp_path / "images" / "a.png", encoded(stored, exif))
    write(tmp_path / "masks" / "a.png", encoded(rectangle(size).astype(np.uint8)))
    check(tmp_path, expected(exif, wh, sized, declared, made_on), turned(stored, exif))


@pytest.mark.parametrize("made_on", ["stored", "upright"])
@pytest.mark.parametrize("wh", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("exif", EXIF)
def test_single_masks_and_their_picture_are_in_one_frame(tmp_path, exif, wh, made_on):
    stored, size = pixels(wh), marked_wh(exif, wh, made_on)
    sa_med2d(tmp_path, {"0001_000": rectangle(size)}, image=None)
    write(tmp_path / "images" / f"{STEM}.png", encoded(stored, exif))
    check(tmp_path, expected(exif, wh, True, None, made_on), turned(stored, exif))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("exif", EXIF)
def test_every_kind_of_picture_is_turned(tmp_path, exif, kind):
    labels_yaml(tmp_path, "stored")
    stored = np.kron(pixels((8, 8)), np.ones((2, 3), np.uint8))  # (16, 24), in patches
    write(tmp_path / "images" / f"a.{kind.lower()}", encoded(stored, exif, kind))
    write(tmp_path / "masks" / "a.png", encoded(rectangle((24, 16)).astype(np.uint8)))
    source = open_source(tmp_path)
    [candidate] = listed(source)[0].values()
    image = source.read(candidate)
    [(_, mask)] = image.masks
    upright = turned(stored, exif)
    grey = image.pixels if image.pixels.ndim == 2 else image.pixels.mean(axis=2)
    assert grey.shape == upright.shape and np.corrcoef(grey.ravel(), upright.ravel())[0, 1] > 0.9
    assert np.array_equal(mask, turned(rectangle((24, 16)), exif))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("of_mask", EXIF)
@pytest.mark.parametrize("of_picture", [1, 2, 3, 6, 8])
def test_a_mask_with_an_orientation_of_its_own(tmp_path, of_picture, of_mask, kind):
    # The same orientation as the picture's: both turn together. Another one: it is not known what is meant.
    labels_yaml(tmp_path, None)
    stored = pixels((24, 16))
    write(tmp_path / "images" / "a.png", encoded(stored, of_picture))
    mask = encoded(rectangle((24, 16)).astype(np.uint8), of_mask, kind)
    write(tmp_path / "masks" / f"a.{kind.lower()}", mask)
    upright_box = box_of(turned(rectangle((24, 16)), of_picture))
    if of_mask in (1, of_picture):
        unsure = of_mask == 1 and of_picture in (2, 3)
        outcome: object = Drop.ORIENTATION_UNKNOWN if unsure else upright_box
    else:
        outcome = Drop.ORIENTATION_UNKNOWN
    check(tmp_path, outcome, turned(stored, of_picture))


@pytest.mark.parametrize(
    ("exif", "size", "says"),
    [
        (1, (48, 32), "marks of 48x32, picture of 24x16"),  # annotated on a larger copy
        (1, (16, 24), "marks of 16x24, picture of 24x16"),  # the sides exchanged
        (6, (48, 32), "marks of 48x32, picture of 16x24"),
        (3, (16, 24), "marks of 16x24, picture of 24x16"),
    ],
)
@pytest.mark.parametrize("source", ["coco", "label map", "single masks"])
def test_marks_of_another_size_are_left_out_with_both_sizes(tmp_path, source, exif, size, says):
    content = encoded(pixels((24, 16)), exif)
    if source == "single masks":
        sa_med2d(tmp_path, {"0001_000": rectangle(size)}, image=None)
        write(tmp_path / "images" / f"{STEM}.png", content)
    elif source == "coco":
        labels_yaml(tmp_path, "stored", "annotations: coco.json\n")
        write_coco(tmp_path, content, "outline", size, sized=True)
    else:
        labels_yaml(tmp_path, "stored")
        write(tmp_path / "images" / "a.png", content)
        write(tmp_path / "masks" / "a.png", encoded(rectangle(size).astype(np.uint8)))
    opened = open_source(tmp_path)
    [candidate] = listed(opened)[0].values()
    with pytest.raises(FaultyImageError) as caught:
        opened.read(candidate)
    assert caught.value.reason is Drop.SIZE_MISMATCH
    assert says in caught.value.detail


def test_an_unknown_orientation_is_said_with_its_value(tmp_path):
    labels_yaml(tmp_path, None)
    write(tmp_path / "images" / "a.png", encoded(pixels((20, 20)), 8))
    write(tmp_path / "masks" / "a.png", encoded(rectangle((20, 20)).astype(np.uint8)))
    source = open_source(tmp_path)
    [candidate] = listed(source)[0].values()
    with pytest.raises(FaultyImageError, match="EXIF orientation 8, 20x20 upright"):
        source.read(candidate)
