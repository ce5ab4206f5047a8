"""What is checked of every image, the fingerprint of a source, and the files below a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bird_hf.data.records import Axis, ImageInfo, Modality
from bird_hf.data.sources.base import checked, files_below, fingerprint
from bird_hf.data.sources.description import Faulty
from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.hub.boxes import Box

from .example_sources import BLOB, NOISE, SIDE, sa_med2d, save

INFO = ImageInfo("a", Modality.CT, "00", "chest", Axis.PLANAR, None, "d", "d/a", False)
DOT = np.zeros_like(BLOB)
DOT[2, 2] = True


def test_the_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    root = sa_med2d(tmp_path, {"0001_000": BLOB})
    first = fingerprint(root)
    assert fingerprint(root) == first
    save(root / "masks" / "more.png", NOISE)
    assert fingerprint(root) != first


def test_hidden_folders_and_links_are_not_entered(tmp_path: Path) -> None:
    for name in ("top.png", "a/b/deep.png", ".hidden/secret.png"):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "source" / "loop").symlink_to(tmp_path / "source", target_is_directory=True)
    assert {entry.name for entry in files_below(tmp_path / "source")} == {"top.png", "deep.png"}
    assert [entry.name for entry in files_below(tmp_path / "source", deep=False)] == ["top.png"]


@pytest.mark.parametrize(
    ("masks", "boxes", "reason", "detail"),
    [
        ([("liver", BLOB), ("spleen", DOT)], [], Drop.FRAGMENT, "spleen"),
        ([("liver", BLOB), ("spleen", DOT & False)], [], Drop.EMPTY_MASK, "spleen"),
        (
            [("liver", BLOB), ("spleen", BLOB[:-1])],
            [],
            Drop.SHAPE_MISMATCH,
            "spleen: mask (63, 64), image (64, 64)",
        ),
        (
            [("liver", BLOB)],
            [("spleen", Box(0, 0, 0.5 / SIDE, 0.5))],
            Drop.UNREADABLE_BOX,
            "spleen: 0.5x32 pixels, less than one",
        ),
    ],
)
def test_a_faulty_object_drops_the_image_or_is_dropped_alone(masks, boxes, reason, detail):
    absent = ["spleen", "pancreas"]
    with pytest.raises(FaultyImageError) as caught:
        checked(INFO, NOISE, masks, absent, boxes)
    assert (caught.value.reason, caught.value.detail) == (reason, detail)
    image = checked(INFO, NOISE, masks, absent, boxes, Faulty.DROP_OBJECT)
    assert [label for label, _ in image.masks] == ["liver"] and image.boxes == ()
    assert image.absent == ("pancreas",)
    with pytest.raises(FaultyImageError) as caught:  # nothing else is there
        checked(INFO, NOISE, masks[1:], absent, boxes, Faulty.DROP_OBJECT)
    assert caught.value.reason is reason


def test_a_box_of_one_pixel_is_a_box():
    one = Box.from_pixels((SIDE - 1, 3, SIDE, 4), (SIDE, SIDE))
    assert checked(INFO, NOISE, [], [], [("nodule", one)]).boxes == (("nodule", one),)


def test_a_union_drops_the_image_whatever_is_done_with_single_objects():
    top, bottom = BLOB.copy(), BLOB.copy()
    top[18:], bottom[:18] = False, False
    masks = [("both", BLOB), ("top", top), ("bottom", bottom)]
    for faulty in Faulty:
        with pytest.raises(FaultyImageError) as caught:
            checked(INFO, NOISE, masks, [], faulty=faulty)
        assert caught.value.reason is Drop.UNION_CLASS
