"""COCO instance files: polygons, run lengths, and files that are not to be trusted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bird_hf.data.masks import record_of
from bird_hf.data.records import MaskedImage
from bird_hf.data.sources.base import LeftOut
from bird_hf.data.sources.coco import fill_polygon, mask_of, unpack_runs
from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.data.sources.image_files import ImageFiles, NoFile
from bird_hf.data.sources.open import open_source

from .example_sources import NOISE, SIDE, listed, save


def coco(root: Path, annotations: list[dict], file_name: str = "a.png", about: str = "") -> Path:
    (root / "labels.yaml").write_text(
        "dataset: scopes\nmodality: endoscopy\nregion: colon\nannotations: coco.json\n" + about
    )
    save(root / "images" / "a.png", NOISE)
    content = {
        "images": [{"id": 7, "file_name": file_name, "width": SIDE, "height": SIDE}],
        "categories": [
            {"id": 1, "name": "polyp"},
            {"id": 2, "name": "instrument"},
            {"id": 3, "name": "bubble"},
            {"id": 4, "name": "class4"},
        ],
        "annotations": [{"id": n, "image_id": 7, "category_id": 1} | a for n, a in enumerate(annotations)],
    }
    (root / "coco.json").write_text(json.dumps(content))
    return root


RUNS = [SIDE * 10 + 5, 20, SIDE - 20, 20, SIDE * SIDE - SIDE * 11 - 25]  # two columns from row 5 to 25


def test_coco_instances(tmp_path: Path) -> None:
    outline = {"segmentation": [[30, 30, 50, 30, 50, 42, 30, 42]]}
    source = open_source(coco(tmp_path, [outline, {"segmentation": {"size": [SIDE, SIDE], "counts": RUNS}}]))
    [candidate] = listed(source)[0].values()
    first, second = (mask for _, mask in source.read(candidate).masks)
    assert first[30:42, 30:50].all() and first.sum() == 12 * 20
    assert second[5:25, 10:12].all() and second.sum() == 40


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, Drop.UNREADABLE_MASK),
        ([[1, 2, 3, 4]], Drop.UNREADABLE_MASK),
        ([["a", 2, 3, 4, 5, 6]], Drop.UNREADABLE_MASK),
        ([[float("nan"), 1, 5, 1, 5, 5]], Drop.UNREADABLE_MASK),
        ([[float("inf"), 1, 5, 1, 5, 5]], Drop.UNREADABLE_MASK),
        ([[1e300, 1, -1e300, 1, 5, 1e300]], Drop.UNREADABLE_MASK),
        ([[1, 2] * 100_001], Drop.UNREADABLE_MASK),
        ({"size": [SIDE, SIDE], "counts": "00"}, Drop.UNREADABLE_MASK),  # too few pixels
        ({"size": [SIDE, SIDE], "counts": [10**30]}, Drop.UNREADABLE_MASK),
        ({"size": [SIDE, SIDE], "counts": [[SIDE * SIDE]]}, Drop.UNREADABLE_MASK),
        ({"size": [SIDE, SIDE], "counts": [1, 2]}, Drop.UNREADABLE_MASK),
        ({"size": [SIDE, SIDE], "counts": [-1, SIDE * SIDE + 1]}, Drop.UNREADABLE_MASK),
        ({"size": [10**6, 10**6], "counts": [10**12]}, Drop.SHAPE_MISMATCH),
        ({"size": [SIDE, SIDE], "counts": "PPPP"}, Drop.UNREADABLE_MASK),
    ],
)
def test_an_invalid_segmentation_drops_the_image(tmp_path: Path, segmentation: object, reason: Drop) -> None:
    source = open_source(coco(tmp_path, [{"segmentation": segmentation}]))
    [candidate] = listed(source)[0].values()
    with pytest.raises(FaultyImageError) as caught:
        source.read(candidate)
    assert caught.value.reason is reason


def test_a_path_in_a_coco_file_is_never_opened(tmp_path: Path) -> None:
    source = open_source(coco(tmp_path, [{"segmentation": [[1, 1, 9, 1, 9, 9]]}], "../images/a.png"))
    assert listed(source) == ({}, {"../images/a.png": Drop.MISSING_IMAGE})


def test_compressed_runs_are_those_of_pycocotools() -> None:
    coders = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(200):
        shape = int(rng.integers(1, 80)), int(rng.integers(1, 80))
        mask = rng.random(shape) < rng.random()
        text = coders.encode(mask.astype(np.uint8, order="F"))["counts"].decode()
        assert np.array_equal(mask_of({"size": [*shape], "counts": text}, shape), mask)
        assert np.array_equal(mask_of({"size": [*shape], "counts": unpack_runs(text)}, shape), mask)
        assert sum(unpack_runs(text)) == mask.size


def test_a_polygon_covers_the_pixels_whose_centres_it_holds() -> None:
    assert fill_polygon([2, 3, 6, 3, 6, 8, 2, 8], (10, 10)).sum() == 4 * 5  # half-open, as boxes are
    assert fill_polygon([-50, -50, 50, -50, 50, 50, -50, 50], (10, 10)).all()  # cut off at the borders
    triangle = fill_polygon([0, 0, 100, 0, 0, 100], (100, 100))
    assert abs(triangle.mean() - 0.5) < 0.01


# --- boxes ----------------------------------------------------------------------------------------------------

OUTLINE = {"segmentation": [[30, 30, 50, 30, 50, 42, 30, 42]]}
LENIENT = "exhaustive: true\nfaulty: drop_object\n"


def read_only(root: Path) -> MaskedImage:
    source = open_source(root)
    [candidate] = listed(source)[0].values()
    return source.read(candidate)


def fault_of(root: Path) -> FaultyImageError:
    with pytest.raises(FaultyImageError) as caught:
        read_only(root)
    return caught.value


@pytest.mark.parametrize(
    ("bbox", "corners"),
    [
        ([2, 3, 20, 10], (2, 3, 22, 13)),
        ([2.25, 3.5, 20.5, 10.25], (2.25, 3.5, 22.75, 13.75)),  # boxes of many tools are no whole pixels
        ([0, 0, SIDE, SIDE], (0, 0, SIDE, SIDE)),  # the whole image
        ([-1, -0.5, 11, 10.5], (0, 0, 10, 10)),  # up to a pixel outside, by rounding
        ([SIDE - 9, SIDE - 9, 10, 9.75], (SIDE - 9, SIDE - 9, SIDE, SIDE)),
    ],
)
@pytest.mark.parametrize("segmentation", [None, [], [[]], {}], ids=str)
def test_a_box_is_enough(tmp_path: Path, bbox: list, corners: tuple, segmentation: object) -> None:
    image = read_only(coco(tmp_path, [{"bbox": bbox, "segmentation": segmentation}]))
    [(label, box)] = image.boxes
    assert label == "polyp" and not image.masks
    assert box.to_pixels((SIDE, SIDE)) == pytest.approx(corners)


@pytest.mark.parametrize(
    "bbox",
    [
        [2, 3, 20],
        [2, 3, 20, 10, 5],
        [2, 3, 0, 10],  # no width
        [2, 3, 20, -1],
        [0, 0, 0, 0],  # what some tools write for "none"
        [2, 3, 0.5, 10],  # less than a pixel
        ["2", 3, 20, 10],
        [2, 3, True, 10],
        [float("nan"), 3, 20, 10],
        [2, 3, float("inf"), 10],
        [2, 3, 10**400, 10],
        [-2, 3, 20, 10],  # two pixels outside
        [2, 3, SIDE, 10],
        [SIDE + 0.2, 3, 0.5, 10],  # nothing is left inside
        {"x": 1},
        "2 3 20 10",
        7,
    ],
    ids=lambda bbox: str(bbox)[:30],
)
def test_a_box_that_cannot_be_read_is_named(tmp_path: Path, bbox: object) -> None:
    fault = fault_of(coco(tmp_path, [OUTLINE, {"id": 41, "bbox": bbox}]))
    assert fault.reason is Drop.UNREADABLE_BOX
    assert fault.detail.startswith("annotation 41 (polyp): ") and len(fault.detail) < 200


def test_outlines_and_boxes_may_be_mixed(tmp_path: Path) -> None:
    box = {"bbox": [2, 3, 20, 10], "category_id": 2}
    image = read_only(
        coco(tmp_path, [OUTLINE, box, OUTLINE | {"bbox": [1, 1, 2, 2]}], about="exhaustive: true\n")
    )
    assert [label for label, _ in image.masks] == [
        "polyp",
        "polyp",
    ]  # an outline counts, not the box beside it
    assert [label for label, _ in image.boxes] == ["instrument"]
    assert image.absent == ("bubble",)
    names = [(each.label, each.present) for each in record_of(image).instances]
    assert names == [("polyp", True), ("polyp", True), ("instrument", True), ("bubble", False)]


def test_an_object_without_outline_and_box_is_named(tmp_path: Path) -> None:
    fault = fault_of(coco(tmp_path, [{"id": "a7"}]))
    assert fault.reason is Drop.UNREADABLE_MASK
    assert fault.detail == "annotation a7 (polyp): neither an outline nor a box"


# --- single faulty objects, and crowds ------------------------------------------------------------------------

DEGENERATE = [
    ({"segmentation": [[1, 2, 3, 4]]}, Drop.UNREADABLE_MASK),  # a line
    ({"segmentation": [[5, 5, 5, 5, 5, 5]]}, Drop.EMPTY_MASK),  # a point
    ({"segmentation": [[5, 5, 6, 5, 6, 6, 5, 6]]}, Drop.FRAGMENT),  # one pixel
    ({"segmentation": [[0, 0, SIDE, 0, SIDE, SIDE, 0, SIDE]]}, Drop.FULL_MASK),
    ({"segmentation": {"size": [8, 8], "counts": [64]}}, Drop.SHAPE_MISMATCH),
    ({"bbox": [0, 0, 0, 0]}, Drop.UNREADABLE_BOX),
    ({}, Drop.UNREADABLE_MASK),
    ({"segmentation": OUTLINE["segmentation"], "iscrowd": 1}, Drop.CROWD_REGION),
    ({"segmentation": {"size": [SIDE, SIDE], "counts": RUNS}, "iscrowd": True}, Drop.CROWD_REGION),
    ({"bbox": [2, 3, 20, 10], "iscrowd": "1"}, Drop.CROWD_REGION),
]


@pytest.mark.parametrize(("entry", "reason"), DEGENERATE)
def test_one_faulty_object_drops_the_image_and_is_named(tmp_path: Path, entry: dict, reason: Drop) -> None:
    fault = fault_of(coco(tmp_path, [OUTLINE, {"id": 12, "category_id": 2} | entry]))
    assert fault.reason is reason
    assert fault.detail.startswith("annotation 12 (instrument)")


@pytest.mark.parametrize(("entry", "reason"), DEGENERATE)
def test_or_it_is_dropped_alone_and_its_name_is_not_absent(tmp_path: Path, entry: dict, reason: Drop) -> None:
    image = read_only(coco(tmp_path, [OUTLINE, {"category_id": 2} | entry], about=LENIENT))
    assert [label for label, _ in (*image.masks, *image.boxes)] == ["polyp"]
    assert image.absent == ("bubble",)


@pytest.mark.parametrize(("entry", "reason"), DEGENERATE)
def test_an_image_of_which_nothing_is_left_has_the_reason(tmp_path: Path, entry: dict, reason: Drop) -> None:
    assert fault_of(coco(tmp_path, [entry], about=LENIENT)).reason is reason


def test_a_degenerate_object_leaves_others_of_its_name_and_a_crowd_does_not(tmp_path: Path) -> None:
    # A crowd is more objects of the name: the marked ones would pass for all of them.
    spoon = {"bbox": [2, 3, 20, 10], "category_id": 2}
    image = read_only(coco(tmp_path, [OUTLINE, spoon, {"segmentation": [[1, 2, 3, 4]]}], about=LENIENT))
    assert [label for label, _ in image.masks] == ["polyp"]
    image = read_only(coco(tmp_path, [OUTLINE, spoon, {"bbox": [1, 1, 9, 9], "iscrowd": 1}], about=LENIENT))
    assert not image.masks and [label for label, _ in image.boxes] == ["instrument"]
    assert image.absent == ("bubble",)


def test_an_object_without_a_usable_name_makes_nothing_absent(tmp_path: Path) -> None:
    nameless = {"segmentation": OUTLINE["segmentation"], "category_id": 4}
    assert read_only(coco(tmp_path, [OUTLINE, nameless], about=LENIENT)).absent == ()
    assert fault_of(coco(tmp_path, [OUTLINE, nameless])).reason is Drop.UNNAMED_CLASS


# --- ids ------------------------------------------------------------------------------------------------------


def with_ids(root: Path, image: object, of_annotation: object, category: object, of_category: object) -> Path:
    coco(root, [OUTLINE])
    content = json.loads((root / "coco.json").read_text())
    content["images"][0]["id"] = image
    content["annotations"][0] |= {"id": "A/1", "image_id": of_annotation, "category_id": of_category}
    content["categories"][0]["id"] = category
    (root / "coco.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    ("image", "of_annotation"),
    [
        (7, 7),
        (7, "7"),
        ("7", 7),
        (7.0, 7),
        ("p01/a", "p01/a"),
        ("5f3c-e1", "5f3c-e1"),
        (0, 0),
        (-3, -3),
        (2.5, 2.5),
        (10**40, 10**40),
        ("", ""),
        ("Größe", "Größe"),
    ],
)
def test_any_id_is_an_id(tmp_path: Path, image: object, of_annotation: object) -> None:
    [(label, _)] = read_only(with_ids(tmp_path, image, of_annotation, "x-1", "x-1")).masks
    assert label == "polyp"
    [(label, _)] = read_only(with_ids(tmp_path, 1, 1, 100.0, "100")).masks
    assert label == "polyp"


@pytest.mark.parametrize("identifier", [None, True, [7], {"a": 1}, float("inf"), float("nan")])
def test_what_is_no_id_is_refused_in_one_line(tmp_path: Path, identifier: object) -> None:
    with pytest.raises(ValueError, match="is not a COCO instance file") as caught:
        open_source(with_ids(tmp_path, identifier, identifier, 1, 1))
    assert "\n" not in str(caught.value)


def test_an_id_of_two_images_or_two_categories_is_refused(tmp_path: Path) -> None:
    coco(tmp_path, [OUTLINE])
    content = json.loads((tmp_path / "coco.json").read_text())
    for name, second in (
        ("images", {"id": "7", "file_name": "b.png"}),
        ("categories", {"id": 1.0, "name": "x"}),
    ):
        changed = content | {name: [*content[name], second]}
        (tmp_path / "coco.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=r"is used twice, for ('a.png' and 'b.png'|'polyp' and 'x')"):
            open_source(tmp_path)


@pytest.mark.parametrize("sides", [(None, None), (0, 0), (SIDE, None), ("", ""), (str(SIDE), float(SIDE))])
def test_a_size_that_is_not_stated_is_no_mismatch(tmp_path: Path, sides: tuple) -> None:
    coco(tmp_path, [OUTLINE])
    content = json.loads((tmp_path / "coco.json").read_text())
    content["images"][0] |= {"width": sides[0], "height": sides[1]}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    assert len(read_only(tmp_path).masks) == 1


@pytest.mark.parametrize("sides", [(-1, SIDE), ("wide", SIDE), (SIDE, 0.5), ([], SIDE), (float("inf"), SIDE)])
def test_a_size_that_is_none_is_refused(tmp_path: Path, sides: tuple) -> None:
    coco(tmp_path, [OUTLINE])
    content = json.loads((tmp_path / "coco.json").read_text())
    content["images"][0] |= {"width": sides[0], "height": sides[1]}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is not a COCO instance file"):
        open_source(tmp_path)


# --- file names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "files", "found"),
    [
        # file names in the JSON, files below images/, and which one each name means (None: it is missing)
        (["a.png"], ["a.png"], ["a.png"]),
        (["./a.png"], ["a.png"], ["a.png"]),
        (["images/a.png"], ["a.png"], ["a.png"]),
        (["data/train/a.png"], ["a.png"], ["a.png"]),
        (["C:\\export\\a.png"], ["a.png"], ["a.png"]),
        (["/home/x/a.png"], ["a.png"], ["a.png"]),
        (["p1\\a.png"], ["p1/a.png"], ["p1/a.png"]),
        (["A.PNG"], ["a.png"], ["a.png"]),
        (["a.png"], ["p1/a.png"], ["p1/a.png"]),
        (["a.png"], ["p1/q/A.png"], ["p1/q/A.png"]),
        (["p1/a.png", "p2/a.png"], ["p1/a.png", "p2/a.png"], ["p1/a.png", "p2/a.png"]),
        (["x/p1/a.png", "x/p2/a.png"], ["p1/a.png", "p2/a.png"], ["p1/a.png", "p2/a.png"]),
        (["a.png", "A.png"], ["a.png", "A.png"], ["a.png", "A.png"]),  # two files that differ in case
        (["a.png"], ["a.png", "p1/a.png"], ["a.png"]),  # the exact one
        (["a\u0308.png"], ["\u00e4.png"], ["\u00e4.png"]),  # the same letter, as macOS writes it
        (["with space & %41.png"], ["with space & %41.png"], ["with space & %41.png"]),
        (["aA.png"], ["aa.png", "AA.png"], [None]),  # two files fit
        (["a.png"], ["p1/a.png", "p2/a.png"], [None]),
        (["x/p1/a.png", "x/p2/a.png"], ["p1/a.png"], ["p1/a.png", None]),  # p1's picture is not that of p2
        (["x/a.png", "y/a.png"], ["a.png"], [None, None]),  # two names for one file
        (["a.png", "y/a.png"], ["a.png"], ["a.png", None]),
        (["b.png", "a.jpg", "", ".", "/"], ["a.png"], [None] * 5),
        (["../images/a.png", "p1/../a.png", "..\\a.png"], ["a.png"], [None] * 3),  # never a way out
    ],
)
def test_a_file_name_means_the_one_file_that_fits(
    tmp_path: Path, names: list[str], files: list[str], found: list[str | None]
) -> None:
    (tmp_path / "images").mkdir()
    for path in files:
        (tmp_path / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / path).touch()
    result = ImageFiles(tmp_path, "images").find(names)
    assert [None if isinstance(result[name], NoFile) else result[name] for name in names] == found


def test_why_an_image_is_missing_is_said(tmp_path: Path) -> None:
    coco(tmp_path, [OUTLINE], "x/b.png")
    for folder in ("p1", "p2"):
        save(tmp_path / "images" / folder / "c.png", NOISE)
    content = json.loads((tmp_path / "coco.json").read_text())
    content["images"].append({"id": 8, "file_name": "c.png"})
    (tmp_path / "coco.json").write_text(json.dumps(content))
    left_out = [item for item in open_source(tmp_path).listed() if isinstance(item, LeftOut)]
    assert [(item.name, item.detail) for item in left_out] == [
        ("x/b.png", "no file fits"),
        ("c.png", "2 files fit"),
    ]


def test_images_of_one_name_in_two_folders_are_two_images(tmp_path: Path) -> None:
    coco(tmp_path, [OUTLINE, OUTLINE | {"image_id": 8}], "p1/a.png")
    for folder, shift in (("p1", 0), ("p2", 5)):
        save(tmp_path / "images" / folder / "a.png", np.roll(NOISE, shift))
    content = json.loads((tmp_path / "coco.json").read_text())
    content["images"].append({"id": 8, "file_name": "p2\\a.png"})
    (tmp_path / "coco.json").write_text(json.dumps(content))
    source = open_source(tmp_path)
    candidates = listed(source)[0]
    first, second = (f"endoscopy_00--scopes--{folder}--a--2d_none" for folder in ("p1", "p2"))
    assert {*candidates} == {first, second}
    assert np.array_equal(source.read(candidates[second]).pixels, np.roll(NOISE, 5))
