"""Masks in a folder per class, and masks named as their image with a suffix or a prefix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bird_hf.data.build.pipeline import BuildSettings, build
from bird_hf.data.folder.publish import open_folder
from bird_hf.data.masks import record_of
from bird_hf.data.records import MaskedImage, Modality
from bird_hf.data.sources.base import Source
from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.data.sources.open import open_source

from .example_sources import details, listed, photograph, save

ABOUT = "dataset: clinic\nmodality: endoscopy\nregion: colon\n"
POLYP = ABOUT + "labels: {1: polyp}\n"
HEIGHT, WIDTH = 40, 60


def mask(x1: int, y1: int, x2: int, y2: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    values = np.zeros((height, width), np.uint8)
    values[y1:y2, x1:x2] = 255
    return values


def folders(root: Path, about: str = ABOUT, exif: int = 1) -> Path:
    """a has a polyp and an instrument, b a polyp."""
    root.mkdir(exist_ok=True)
    if about:
        (root / "labels.yaml").write_text(about)
    for seed, name in enumerate(("a", "b")):
        photograph(root / "images" / f"{name}.png", exif, HEIGHT, WIDTH, seed)
    save(root / "masks" / "polyp" / "a.png", mask(10, 5, 30, 20))
    save(root / "masks" / "polyp" / "b.png", mask(5, 5, 9, 9))
    save(root / "masks" / "Instrument_tip" / "a.png", mask(40, 5, 50, 20))
    return root


def read(source: Source, name: str = "a", prefix: str = "endoscopy_00--clinic") -> MaskedImage:
    return source.read(listed(source)[0][f"{prefix}--{name}--2d_none"])


def boxes_of(image: MaskedImage) -> list[tuple[str, tuple[int, ...]]]:
    record = record_of(image)
    return [
        (each.label, tuple(round(v) for v in each.box.to_pixels(record.image_wh)))
        for each in record.instances
        if each.box is not None
    ]


def reason_of(source: Source, name: str = "a") -> tuple[Drop, str]:
    with pytest.raises(FaultyImageError) as caught:
        read(source, name)
    return caught.value.reason, caught.value.detail


@pytest.mark.parametrize(
    ("more", "absent"),
    [
        ("", ()),
        ("exhaustive: true\n", ("instrument tip",)),
        ("exhaustive: true\nlabels: {1: polyp, 2: instrument tip, 3: ulcer}\n", ("instrument tip", "ulcer")),
    ],
)
def test_the_folder_is_the_label(tmp_path: Path, more: str, absent: tuple[str, ...]) -> None:
    source = open_source(folders(tmp_path, ABOUT + more))
    assert sorted(boxes_of(read(source))) == [("instrument tip", (40, 5, 50, 20)), ("polyp", (10, 5, 30, 20))]
    image = read(source, "b")
    assert boxes_of(image) == [("polyp", (5, 5, 9, 9))] and image.absent == absent


def test_without_a_description_the_user_gives_the_modality(tmp_path: Path) -> None:
    folders(tmp_path, about="")
    with pytest.raises(ValueError, match=r"give --modality, one of ct, mr, .*, or add labels\.yaml"):
        open_source(tmp_path)
    image = read(open_source(tmp_path, Modality.ENDOSCOPY), prefix="endoscopy_00--mask_folders")
    assert image.info.region == "digestive tract" and len(image.masks) == 2 and image.absent == ()
    ct = listed(open_source(tmp_path, Modality.CT))[0]
    assert {candidate.info.region for candidate in ct.values()} == {"colon"}  # of the labels: a polyp


def test_a_modality_that_contradicts_the_description_is_refused(tmp_path: Path) -> None:
    folders(tmp_path)
    assert open_source(tmp_path, Modality.ENDOSCOPY).kind == "masks in a folder per class"
    with pytest.raises(ValueError, match="says endoscopy, and --modality ct; remove one"):
        open_source(tmp_path, Modality.CT)


def test_a_folder_that_is_not_among_the_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'instrument tip', which is not among the labels"):
        open_source(folders(tmp_path, POLYP))


def test_what_is_left_out_of_mask_folders(tmp_path: Path) -> None:
    folders(tmp_path)
    photograph(tmp_path / "images" / "c.png", seed=2)
    save(tmp_path / "masks" / "polyp" / "d.png", mask(1, 1, 9, 9))
    save(tmp_path / "masks" / "class3" / "b.png", mask(1, 1, 9, 9))
    (tmp_path / "masks" / "polyp" / "Thumbs.db").write_bytes(b"no image")
    source = open_source(tmp_path)
    assert listed(source)[1] == {
        "c": Drop.NO_MASKS,
        "d": Drop.MISSING_IMAGE,
        "b": Drop.UNNAMED_CLASS,
    }
    assert details(source)["d"] == "masks/polyp/d.png" and details(source)["b"] == "masks/class3/b.png"


def test_lesions_are_an_object_for_each_piece(tmp_path: Path) -> None:
    about = ABOUT + "labels: {1: polyp, 2: instrument tip}\nlesions: [polyp]\n"
    source = open_source(folders(tmp_path, about))
    two = mask(10, 5, 30, 20) | mask(40, 25, 50, 35)
    save(tmp_path / "masks" / "polyp" / "b.png", two)
    assert boxes_of(read(source, "b")) == [("polyp", (10, 5, 30, 20)), ("polyp", (40, 25, 50, 35))]
    noise = np.random.default_rng(0).random((400, 400)) < 0.1  # thousands of pieces
    photograph(tmp_path / "images" / "b.png", height=400, width=400)
    save(tmp_path / "masks" / "polyp" / "b.png", noise.astype(np.uint8) * 255)
    reason, detail = reason_of(source, "b")
    assert reason is Drop.FRAGMENT and detail.endswith("pieces")


@pytest.mark.parametrize(
    ("values", "reason", "detail"),
    [
        (mask(1, 1, 9, 9, 80, 120), Drop.SIZE_MISMATCH, "marks of 120x80, picture of 60x40"),
        (mask(1, 1, 9, 9, WIDTH, HEIGHT), Drop.SIZE_MISMATCH, "marks of 40x60, picture of 60x40"),
        (mask(0, 0, 0, 0), Drop.EMPTY_MASK, ""),
        (255 - mask(10, 5, 30, 20), Drop.INVERTED_MASK, ""),
        (mask(0, 0, WIDTH, HEIGHT), Drop.FULL_MASK, ""),
        (
            mask(10, 5, 30, 20) // np.arange(1, 61, dtype=np.uint8),
            Drop.NOT_BINARY,
            "b.png: values 0, 8, 9, 10, 11 and 9 more",
        ),
    ],
)
@pytest.mark.parametrize("faulty", ["drop_image", "drop_object"])
def test_a_faulty_mask(tmp_path: Path, values: np.ndarray, reason: Drop, detail: str, faulty: str) -> None:
    source = open_source(folders(tmp_path, ABOUT + f"faulty: {faulty}\nexhaustive: true\n"))
    save(tmp_path / "masks" / "polyp" / "b.png", values)
    save(tmp_path / "masks" / "Instrument_tip" / "b.png", mask(40, 5, 50, 20))
    save(tmp_path / "masks" / "ulcer" / "a.png", mask(1, 1, 5, 5))
    source = open_source(tmp_path)
    if faulty == "drop_image" or reason is Drop.SIZE_MISMATCH:  # another size is a fault of the whole image
        found, says = reason_of(source, "b")
        assert found is reason and detail in says
    else:
        image = read(source, "b")
        assert boxes_of(image) == [("instrument tip", (40, 5, 50, 20))]
        assert image.absent == ("ulcer",)  # the polyp is neither present nor absent


def test_jpeg_masks_are_left_out(tmp_path: Path) -> None:
    folders(tmp_path)
    (tmp_path / "masks" / "polyp" / "a.png").unlink()
    save(tmp_path / "masks" / "polyp" / "a.jpg", mask(10, 5, 30, 20))
    assert reason_of(open_source(tmp_path)) == (
        Drop.UNREADABLE_MASK,
        "a.jpg: JPEG changes values; save masks as PNG",
    )


# The polyp at (10, 5, 30, 20) of the 60 x 40 stored pixels, on the upright picture.
UPRIGHT = {
    1: (10, 5, 30, 20),
    2: (30, 5, 50, 20),
    3: (30, 20, 50, 35),
    4: (10, 20, 30, 35),
    5: (5, 10, 20, 30),
    6: (20, 10, 35, 30),
    7: (20, 30, 35, 50),
    8: (5, 30, 20, 50),
}


@pytest.mark.parametrize("exif", UPRIGHT)
@pytest.mark.parametrize("declared", [None, "stored", "upright"])
def test_masks_are_brought_onto_the_upright_picture(tmp_path: Path, exif: int, declared: str | None) -> None:
    about = ABOUT + (f"orientation: {declared}\n" if declared else "")
    source = open_source(folders(tmp_path, about, exif))
    turned = exif >= 5  # only then does the size of the mask tell
    if exif > 1 and not turned and declared is None:
        assert reason_of(source)[0] is Drop.ORIENTATION_UNKNOWN
    elif turned and declared == "upright":
        assert reason_of(source)[0] is Drop.SIZE_MISMATCH
    else:
        expected = UPRIGHT[1] if declared == "upright" else UPRIGHT[exif]
        assert ("polyp", expected) in boxes_of(read(source))


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    source = open_source(folders(tmp_path))
    photograph(tmp_path / "images" / "a.jpg")
    with pytest.raises(ValueError, match=r"images/a.png and a.jpg have one name; rename one of them"):
        [*source.listed()]


def suffixed(
    root: Path, masks: dict[str, np.ndarray], images: tuple[str, ...] = ("a", "b"), where: str = ""
) -> Path:
    """Images in `images` (or the folder itself, if `where` is "."), and masks in `where`."""
    root.mkdir(exist_ok=True)
    (root / "labels.yaml").write_text(POLYP)
    for seed, name in enumerate(images):
        photograph(root / ("" if where == "." else "images") / f"{name}.png", 1, HEIGHT, WIDTH, seed)
    for name, values in masks.items():
        save(root / (where or "masks") / f"{name}.png", values)
    return root


ONE, OTHER = mask(10, 5, 30, 20), mask(5, 5, 9, 9)


@pytest.mark.parametrize(
    "names",
    [
        ("a_mask", "b_mask"),
        ("a_segmentation", "b_segmentation"),  # ISIC
        ("a-mask", "b-mask"),
        ("a mask", "b mask"),
        ("a_GT", "b_GT"),
        ("a_ground_truth", "b_ground_truth"),
        ("mask_a", "mask_b"),
    ],
)
@pytest.mark.parametrize("where", ["masks", "images", "."])
def test_a_suffix_or_prefix_is_found(tmp_path: Path, names: tuple[str, str], where: str) -> None:
    source = open_source(suffixed(tmp_path, dict(zip(names, (ONE, OTHER), strict=True)), where=where))
    assert source.kind == "masks with a suffix"
    assert boxes_of(read(source)) == [("polyp", (10, 5, 30, 20))]
    assert boxes_of(read(source, "b")) == [("polyp", (5, 5, 9, 9))]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (("a", "b"), ("a_out", "b_out")),  # any suffix, in a folder of its own
        (("a", "b"), ("seen-a", "seen-b")),
        (("a", "a_1"), ("a_mask", "a_1_mask")),  # the name of an image begins as that of another one
        (("a", "a_1"), ("a_x", "a_1_x")),
        (("a.b", "a.c"), ("a.b.mask", "a.c.mask")),  # dots in names
    ],
)
def test_the_suffix_is_what_all_masks_share(
    tmp_path: Path, images: tuple[str, str], masks: tuple[str, str]
) -> None:
    source = open_source(suffixed(tmp_path, dict(zip(masks, (ONE, OTHER), strict=True)), images))
    assert boxes_of(read(source, images[0])) == [("polyp", (10, 5, 30, 20))]
    assert boxes_of(read(source, images[1])) == [("polyp", (5, 5, 9, 9))]


@pytest.mark.parametrize("where", ["masks", "images", "."])
def test_several_masks_of_an_image_are_numbered(tmp_path: Path, where: str) -> None:
    names = {"a (1)_mask": ONE, "a (1)_mask_1": OTHER, "a (2)_mask": OTHER}  # as in BUSI
    source = open_source(suffixed(tmp_path, names, ("a (1)", "a (2)"), where))
    assert len(read(source, "a (1)").masks) == 2 and len(read(source, "a (2)").masks) == 1


@pytest.mark.parametrize("value", [1, 7, 128, 255])
def test_any_value_of_a_two_valued_mask_is_the_class(tmp_path: Path, value: int) -> None:
    source = open_source(suffixed(tmp_path, {"a_mask": ONE // 255 * value, "b_mask": OTHER}))
    assert boxes_of(read(source)) == [("polyp", (10, 5, 30, 20))]


@pytest.mark.parametrize(
    ("masks", "where", "says"),
    [
        (("a_mask", "b_seg"), "masks", "masks are named NAME_mask, NAME_seg; name all of them"),
        (("a_mask", "b_seg"), "images", "masks are named NAME_mask, NAME_seg; name all of them"),
        (("a_mask", "mask_b"), "masks", "masks are named NAME_mask, mask_NAME; name all of them"),
    ],
)
def test_different_suffixes_are_refused(
    tmp_path: Path, masks: tuple[str, str], where: str, says: str
) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        open_source(suffixed(tmp_path, dict.fromkeys(masks, ONE), where=where))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", ["", "labels: {1: polyp, 2: ulcer}\n"])
def test_masks_with_a_suffix_show_one_class(tmp_path: Path, labels: str) -> None:
    suffixed(tmp_path, {"a_mask": ONE})
    (tmp_path / "labels.yaml").write_text(ABOUT + labels)
    with pytest.raises(ValueError, match=r"write `labels: \{1: NAME\}`"):
        open_source(tmp_path)


def test_what_is_left_out_of_masks_with_a_suffix(tmp_path: Path) -> None:
    source = open_source(suffixed(tmp_path, {"a_mask": ONE, "c_mask": OTHER}))
    assert listed(source)[1] == {"b": Drop.NO_MASKS, "c": Drop.MISSING_IMAGE}
    assert details(source)["c"] == "masks/c_mask.png"


def test_label_maps_named_as_their_images_stay_label_maps(tmp_path: Path) -> None:
    source = open_source(suffixed(tmp_path, {"a": ONE // 255, "b_mask": OTHER}))
    assert source.kind == "images and label maps"


@pytest.mark.parametrize("kind", ["folders", "suffix"])
def test_masks_are_built(tmp_path: Path, kind: str) -> None:
    src = tmp_path / "src"
    names = [f"n{number}" for number in range(10, 22)]
    if kind == "suffix":
        suffixed(src, {f"{name}_mask": ONE for name in names}, tuple(names), ".")
    else:
        for seed, name in enumerate(names):
            photograph(src / "images" / f"{name}.png", 1, HEIGHT, WIDTH, seed)
            save(src / "masks" / "polyp" / f"{name}.png", ONE)
        (src / "labels.yaml").write_text(ABOUT)
    manifest = build(src, tmp_path / "out", BuildSettings(), workers=1)
    assert not manifest["dropped"] and manifest["source"]["images"] == len(names)
    built = [row for split in ("train", "test") for row in open_folder(tmp_path / "out", "vg", split)]
    boxes = [thing["box"] for row in built for thing in row["objects"]]
    assert len(boxes) >= len(names) and built[0]["image"].size == (WIDTH, HEIGHT)
    assert np.allclose(boxes, (10 / 60, 5 / 40, 30 / 60, 20 / 40), atol=1e-6)


def test_a_mask_that_is_no_image_is_left_out(tmp_path: Path) -> None:
    source = open_source(folders(tmp_path))
    (tmp_path / "masks" / "polyp" / "a.png").write_bytes(b"no image")
    assert reason_of(source)[0] is Drop.UNREADABLE_MASK
    Image.new("RGB", (WIDTH, HEIGHT), (9, 0, 0)).save(tmp_path / "masks" / "polyp" / "a.png")
    assert reason_of(source) == (Drop.NOT_BINARY, "a.png: a mask in colour: colours #090000")
