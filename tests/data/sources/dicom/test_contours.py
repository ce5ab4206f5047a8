"""Structure sets: contours become masks of the images they were drawn on, with the right boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bird_hf.data.build.pipeline import BuildSettings, build
from bird_hf.data.masks import box_of
from bird_hf.data.sources.base import LeftOut
from bird_hf.data.sources.dicom import structures as structures_module
from bird_hf.data.sources.dicom.contours import fill_contours
from bird_hf.data.sources.dicom.planes import Plane
from bird_hf.data.sources.faults import Drop
from bird_hf.data.sources.open import open_source

from .example_files import AXIAL, BORN, NAME, NUMBER, SHAPE, read_all, series
from .example_frames import contour, enhanced, noise, published_rows, rectangle, structures

BOX = (20, 36, 8, 17)  # top, bottom, left, right edges in stored pixels
OBLIQUE = (0.96, 0.28, 0, -0.224, 0.768, 0.6)


def left_out(folder: Path) -> list[tuple[Drop, str]]:
    return [(item.reason, item.detail) for item in open_source(folder).listed() if isinstance(item, LeftOut)]


def unmarked(folder: Path) -> list[tuple[Drop, str]]:
    """What is left out besides the slices on which nothing is drawn."""
    return [(reason, detail) for reason, detail in left_out(folder) if reason is not Drop.NO_MASKS]


def stored_box() -> tuple[float, float, float, float]:
    """The box in unit coordinates of the stored image: x1, y1, x2, y2."""
    top, bottom, left, right = BOX
    return left / SHAPE[1], top / SHAPE[0], right / SHAPE[1], bottom / SHAPE[0]


def mirrored(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    return 1 - box[2], box[1], 1 - box[0], box[3]


def transposed(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    return box[1], box[0], box[3], box[2]


@pytest.mark.parametrize("spacing", [[1, 1], [2, 1], [0.7, 1.4]])  # between rows, between columns
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("orientation", "shown"),
    [
        (AXIAL, stored_box()),
        ((-1, 0, 0, 0, 1, 0), mirrored(stored_box())),  # stored with the patient's left on the left
        ((0, 1, 0, 1, 0, 0), transposed(stored_box())),  # rows and columns exchanged
        ((1, 0, 0, 0, 0, -1), stored_box()),  # coronal
        ((0, 1, 0, 0, 0, -1), stored_box()),  # sagittal
        (OBLIQUE, stored_box()),
    ],
)
def test_the_box_of_a_contour_is_the_box_that_was_drawn(tmp_path, orientation, shown, named, spacing):
    images = series(tmp_path, orientation=orientation, PixelSpacing=spacing)
    drawn = contour(rectangle(images[1], BOX), images[1] if named else None)
    structures(tmp_path / "rt.dcm", images[0], {"GTV-1": [drawn]})
    (image,) = read_all(tmp_path)
    ((label, mask),) = image.masks
    assert label == "GTV-1" and image.info.slice_index == 1
    box = box_of(mask)
    pixel = 1 / min(mask.shape)
    assert (box.x1, box.y1, box.x2, box.y2) == pytest.approx(shown, abs=pixel)
    assert mask.mean() == pytest.approx((36 - 20) * (17 - 8) / SHAPE[0] / SHAPE[1], rel=0.02)


@pytest.mark.parametrize(
    ("polygons", "expected"),
    [
        # one square
        ([[(2, 2), (8, 2), (8, 8), (2, 8)]], 36),
        # a hole as a contour of its own
        ([[(2, 2), (8, 2), (8, 8), (2, 8)], [(4, 4), (6, 4), (6, 6), (4, 6)]], 32),
        # an island in the hole
        (
            [
                [(0, 0), (9, 0), (9, 9), (0, 9)],
                [(2, 2), (8, 2), (8, 8), (2, 8)],
                [(4, 4), (5, 4), (5, 5), (4, 5)],
            ],
            46,
        ),
        # a keyhole: the channel runs to the hole and back on itself
        (
            [
                [
                    (2, 2),
                    (8, 2),
                    (8, 8),
                    (2, 8),
                    (2, 5),
                    (4, 5),
                    (4, 6),
                    (6, 6),
                    (6, 4),
                    (4, 4),
                    (4, 5),
                    (2, 5),
                ]
            ],
            32,
        ),
        # two pieces
        ([[(0, 0), (2, 0), (2, 2), (0, 2)], [(5, 5), (8, 5), (8, 8), (5, 8)]], 13),
        # the same contour twice
        ([[(2, 2), (8, 2), (8, 8), (2, 8)]] * 2, 0),
        # partly and wholly outside the image
        ([[(-5, -5), (3, -5), (3, 3), (-5, 3)], [(50, 50), (60, 50), (60, 60), (50, 60)]], 9),
        # corners at the centres of pixels: the centre on the left edge is inside, as for COCO polygons
        ([[(2.5, 2.5), (5.5, 2.5), (5.5, 5.5), (2.5, 5.5)]], 9),
    ],
)
@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
def test_contours_of_a_region_combine_by_the_even_odd_rule(polygons, expected, orientation):
    plane = Plane.of((-31.7, 12.3, 5.1), orientation, (1.7, 0.6), (12, 14))
    contours = []
    for polygon in polygons:
        at = np.array(polygon, float) - 0.5  # the first pixel's centre is at (0.5, 0.5) of the corners above
        contours.append(plane.origin + at[:, :1] * plane.column_step + at[:, 1:] * plane.row_step)
    mask = fill_contours(contours, plane)
    assert mask.shape == (12, 14) and mask.sum() == expected


def test_decreasing_slices_keep_their_contours(tmp_path):
    images = series(tmp_path, orientation=(1, 0, 0, 0, -1, 0), count=4)  # the normal points to the feet
    structures(tmp_path / "rt.dcm", images[0], {"lesion": [contour(rectangle(images[0], BOX))]})
    (image,) = read_all(tmp_path)
    heights = [float(each.ImagePositionPatient[2]) for each in images]
    assert heights[0] == max(heights) and image.info.slice_index == 3  # numbered from the feet
    assert image.masks[0][0] == "lesion" and box_of(image.masks[0][1]).y1 == pytest.approx(1 - 36 / 61)


@pytest.mark.parametrize(
    ("off_mm", "kept"), [(0, True), (1.4, True), (-1.4, True), (1.6, False), (-1.6, False)]
)
@pytest.mark.parametrize("named", [True, False])
def test_a_contour_belongs_to_a_slice_within_half_a_slice(tmp_path, off_mm, kept, named):
    images = series(tmp_path, count=2)  # 3 mm apart; away from the other slice below
    side = images[0] if off_mm < 0 else images[1]
    points = rectangle(side, BOX, off_mm)
    structures(tmp_path / "rt.dcm", side, {"lesion": [contour(points, side if named else None)]})
    assert len(read_all(tmp_path)) == kept
    faults = unmarked(tmp_path)
    assert [reason for reason, _ in faults] == [Drop.OFF_GRID] * (not kept)
    assert all(
        "lesion" in detail and "half a slice" in detail and "1.50 mm" in detail for _, detail in faults
    )


def faulty(images: list[Any], kind: str) -> tuple[dict[str, list[Any]], Drop, str, int]:
    """A structure set with a good contour and one fault: its regions, the reason, the detail, the images that stay."""
    good = contour(rectangle(images[0], BOX), images[0])
    away = series(images[0].folder.parent / "away", count=1)[0]
    tilted = rectangle(images[1], BOX)
    tilted[2] += 5
    return {
        "points": (
            {"lesion": [good], "marker": [contour([0, 0, 0], images[1], "POINT")] * 2},
            Drop.UNREADABLE_MASK, "2 contours of marker: POINT, not closed", 1,
        ),
        "open": (
            {"lesion": [good], "line": [contour(rectangle(images[1], BOX), images[1], "OPEN_PLANAR")]},
            Drop.UNREADABLE_MASK, "1 contour of line: OPEN_PLANAR, not closed", 1,
        ),
        "missing": (
            {"lesion": [good, contour(rectangle(images[1], BOX), away)]},
            Drop.MISSING_IMAGE, "1 contour of lesion: their images are not in the folder", 1,
        ),
        "tilted": ({"lesion": [good, contour(tilted)]}, Drop.OFF_GRID, "1 contour of lesion: not within 1.50 mm", 1),
        "tilted, named": (
            {"lesion": [good, contour(tilted, images[1])]}, Drop.OFF_GRID, "lesion: 5.00 mm from the plane", 1,
        ),
        "few": (
            {"lesion": [good, contour([0, 0, 0, 1, 1, 0], images[1])]},
            Drop.UNREADABLE_MASK, "lesion: a contour has fewer than 3 readable points", 1,
        ),
        "few, unnamed": (
            {"lesion": [good, contour([0, 0, 0, 1, 1, 0])]},
            Drop.UNREADABLE_MASK, "1 contour of lesion: a contour has fewer", 1,
        ),
        "nameless": (
            {"lesion": [good], "_": [contour(rectangle(images[1], BOX), images[1])]}, Drop.UNNAMED_CLASS, "ROI 2", 1,
        ),
    }[kind]  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["points", "open", "missing", "tilted", "tilted, named", "few", "few, unnamed", "nameless"]
)
def test_what_is_no_mask_is_left_out_by_name(tmp_path, kind):
    images = series(tmp_path / "ct", count=2)
    images[0].folder = tmp_path / "ct"
    rois, reason, detail, kept = faulty(images, kind)
    for path in (tmp_path / "away").iterdir():
        path.unlink()
    structures(tmp_path / "rt.dcm", images[0], rois)
    assert len(read_all(tmp_path)) == kept
    ((found, text),) = unmarked(tmp_path)
    assert found is reason and text.startswith(detail)


def test_two_series_in_one_place_are_not_guessed_between(tmp_path):
    images = series(tmp_path / "ct", count=2)
    other = series(tmp_path / "pet", count=2, FrameOfReferenceUID=images[0].FrameOfReferenceUID)
    rois = {"lesion": [contour(rectangle(images[0], BOX))]}
    structures(tmp_path / "rt.dcm", images[0], rois, named_series=False)
    assert read_all(tmp_path) == [] and len(other) == 2
    assert unmarked(tmp_path) == [
        (Drop.OFF_GRID, "1 contour of lesion: 2 series are in their place, and they name none")
    ]
    structures(tmp_path / "rt.dcm", images[0], rois)  # the series is named
    assert len(read_all(tmp_path)) == 1


def test_contours_on_frames_of_one_file(tmp_path):
    made = enhanced(tmp_path / "ct.dcm", noise(4, [1, 2]), spacing=(2, 1))
    plane = made.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0]
    plane.ImageOrientationPatient, plane.PixelSpacing = [*AXIAL], [2, 1]
    points = rectangle(plane, BOX)
    for drawn in (contour(points, made, frame=2), contour(points, made), contour(points)):
        structures(tmp_path / "rt.dcm", made, {"lesion": [drawn]})
        (image,) = read_all(tmp_path)
        assert image.info.slice_index == 2
        assert image.pixels[image.masks[0][1]].mean() > image.pixels[~image.masks[0][1]].mean() + 20
    structures(tmp_path / "rt.dcm", made, {"lesion": [contour(points, made, frame=1)]})
    ((reason, detail),) = unmarked(tmp_path)
    assert (reason, detail) == (
        Drop.OFF_GRID, "lesion: 3.00 mm from the plane of its image, half a slice is 1.50 mm",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "value", "detail"),
    [
        ("_MAX_FILE_BYTES", 100, "the limit is 100"),
        ("_MAX_ITEMS", 3, "the limit is 3"),
        ("_MAX_POINTS", 7, "more than 7 points"),
    ],
)
def test_a_structure_set_beyond_the_limits_is_named(tmp_path, monkeypatch, limit, value, detail):
    monkeypatch.setattr(structures_module, limit, value)
    images = series(tmp_path, count=2)
    rois = {"lesion": [contour(rectangle(image, BOX), image) for image in images]}
    structures(tmp_path / "rt.dcm", images[0], rois)
    ((reason, text),) = unmarked(tmp_path)
    assert reason is Drop.UNREADABLE_MASK and detail in text


@pytest.mark.parametrize("numbers", [b"1\\2", b"nan\\nan\\nan" * 4, b"a\\b\\c", b""])
def test_contour_data_that_is_no_points(tmp_path, numbers):
    images = series(tmp_path, count=2)
    drawn = contour(rectangle(images[0], BOX), images[0])
    structures(tmp_path / "rt.dcm", images[0], {"lesion": [drawn]})
    content = (tmp_path / "rt.dcm").read_bytes()
    texts = b"\\".join(str(value).encode() for value in drawn.ContourData)
    assert texts in content
    (tmp_path / "rt.dcm").write_bytes(content.replace(texts, numbers.ljust(len(texts), b" ")))
    ((reason, detail),) = unmarked(tmp_path)
    assert reason is Drop.UNREADABLE_MASK and "fewer than 3 readable points" in detail


def test_a_series_with_a_structure_set_is_built(tmp_path):
    source = tmp_path / "source"
    for number in range(3):
        images = series(source / f"s{number}", count=3, seed=number, PatientID=f"{NUMBER}-{number}")
        rois = {
            "BODY": [contour(rectangle(image, (3, 58, 3, 50)), image) for image in images],
            "Kidney_R": [contour(rectangle(image, BOX), image) for image in images],
        }
        structures(source / f"rt{number}.dcm", images[0], rois)
    manifest = build(source, tmp_path / "out", BuildSettings(seed=1), workers=1)
    assert manifest["images"]["ct"]["dicom"]
    rows = published_rows(tmp_path / "out")
    boxes = {item["label"]: item["box"] for row in rows for item in row["objects"]}
    assert boxes["right kidney"] == pytest.approx(stored_box())
    assert boxes["BODY"] == pytest.approx([3 / 53, 3 / 61, 50 / 53, 58 / 61])
    assert not any(secret in str(rows) for secret in (NAME, NUMBER, BORN))
