"""Every kind of source gives the same kind of images; what is listed and faulty is named, never opened by a path."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bird_hf.data.phantoms import draw_phantom
from bird_hf.data.phantoms.sa_med2d_folder import CLASSES_TABLE, IMAGES_TABLE, write_phantoms
from bird_hf.data.records import Axis, MaskedImage, Modality
from bird_hf.data.sources.base import Candidate, LeftOut, Source, fingerprint
from bird_hf.data.sources.coco import fill_polygon, mask_of, unpack_runs
from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.data.sources.open import open_source
from bird_hf.data.sources.sa_med2d import modality_of, parse_stem

from .test_archives import split_zip

SIDE = 64
NOISE = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("source") / "phantoms"
    write_phantoms(out, 2, 0, SIDE)
    return out


def zipped(folder: Path, path: Path, prefix: str = "SAMed2Dv1/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, prefix + str(file.relative_to(folder)))
    return path


def listed(source: Source) -> tuple[dict[str, Candidate], dict[str, Drop]]:
    items = [*source.listed()]
    return (
        {item.info.image_id: item for item in items if isinstance(item, Candidate)},
        {item.name: item.reason for item in items if isinstance(item, LeftOut)},
    )


def assert_phantoms(source: Source) -> None:
    """The source holds the phantoms exactly, region and class order apart."""
    candidates, left_out = listed(source)
    assert not left_out
    drawn = [draw_phantom(modality, seed, SIDE) for modality in Modality for seed in range(2)]
    assert {*candidates} == {image.info.image_id for image in drawn}
    for image in drawn:
        candidate = candidates[image.info.image_id]
        read = source.read(candidate)
        info = read.info
        assert (info.modality, info.modality_detail) == (image.info.modality, image.info.modality_detail)
        assert (info.axis, info.slice_index, info.dataset) == (
            image.info.axis,
            image.info.slice_index,
            image.info.dataset,
        )
        assert info.synthetic
        assert np.array_equal(read.pixels, image.pixels)
        assert masks_by_name(read) == masks_by_name(image)
        assert {*read.absent} == {*image.absent}
        assert {*candidate.labels} == {label for label, _ in image.masks}
        assert json.loads(json.dumps(candidate.where)) == candidate.where


def masks_by_name(image: MaskedImage) -> list[tuple[str, bytes]]:
    return sorted((label, mask.tobytes()) for label, mask in image.masks)


def test_a_folder(phantoms: Path) -> None:
    assert_phantoms(open_source(phantoms))


def test_a_folder_that_holds_the_folder(phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms, tmp_path / "SAMed2Dv1")
    assert_phantoms(open_source(tmp_path))


@pytest.mark.parametrize("prefix", ["", "SAMed2Dv1/"])
def test_a_zip(phantoms: Path, tmp_path: Path, prefix: str) -> None:
    assert_phantoms(open_source(zipped(phantoms, tmp_path / "a.zip", prefix)))


def test_a_zip_in_parts_by_its_name_or_its_folder(phantoms: Path, tmp_path: Path) -> None:
    path = split_zip(zipped(phantoms, tmp_path / "SA-Med2D-16M.zip"), 30_000)
    assert path.with_suffix(".z03").is_file()
    assert_phantoms(open_source(path))
    assert_phantoms(open_source(tmp_path))


STEM = "ct_00--LIDC--a.b--c--y_0042"


@pytest.mark.parametrize(
    ("stem", "parts"),
    [
        (STEM, ("ct_00", "LIDC", "a.b--c", Axis.CORONAL, 42)),
        ("mr_t1ce--BraTS--01--x_0000", ("mr_t1ce", "BraTS", "01", Axis.SAGITTAL, 0)),
        ("x_ray--covid_19--16660_5_1--2d_none", ("x_ray", "covid_19", "16660_5_1", Axis.PLANAR, None)),
    ],
)
def test_names_are_taken_apart_from_both_ends(stem: str, parts: tuple) -> None:
    assert parse_stem(stem) == parts


@pytest.mark.parametrize(
    "stem", ["", "photo", "ct--x_0001", "ct--d--x_0001", "ct--d--o--w_0001", "ct--d--o--x_", "ct----o--x_1"]
)
def test_other_names_are_refused(stem: str) -> None:
    with pytest.raises(FaultyImageError, match="bad_name"):
        parse_stem(stem)


@pytest.mark.parametrize(
    ("prefix", "modality", "detail"),
    [
        ("ct_00", Modality.CT, "00"),
        ("mr_t1ce", Modality.MR, "t1ce"),
        ("x_ray", Modality.X_RAY, ""),
        ("fundus_photography", Modality.FUNDUS, "photography"),
    ],
)
def test_the_modality_is_the_prefix(prefix: str, modality: Modality, detail: str) -> None:
    assert modality_of(prefix) == (modality, detail)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def sa_med2d(
    root: Path, masks: dict[str, np.ndarray], image: np.ndarray | None = NOISE, stem: str = STEM
) -> Path:
    """A folder with one image; masks: `CLASS_INSTANCE` -> mask."""
    (root / "images").mkdir(exist_ok=True)
    (root / "masks").mkdir(exist_ok=True)
    if image is not None:
        save(root / "images" / f"{stem}.png", image)
    for ids, mask in masks.items():
        save(root / "masks" / f"{stem}--{ids}.png", mask.astype(np.uint8) * 255)
    names = {"liver": "0001", "class2": "0002", "union_all": "0003", "spleen": "0004"}
    (root / CLASSES_TABLE).write_text(json.dumps({"LIDC": names}))
    return root


BLOB = np.zeros((SIDE, SIDE), bool)
BLOB[8:30, 20:44] = True


@pytest.mark.parametrize(
    ("masks", "image", "stem", "reason"),
    [
        pytest.param({"0001_000": ~BLOB}, NOISE, STEM, Drop.INVERTED_MASK, id="inverted"),
        pytest.param(
            {"0001_000": BLOB}, BLOB.astype(np.uint8) * 255, STEM, Drop.IMAGE_IS_MASK, id="image is a mask"
        ),
        pytest.param({"0001_000": BLOB[:-2]}, NOISE, STEM, Drop.SHAPE_MISMATCH, id="shape"),
        pytest.param({"0001_000": BLOB, "0002_000": BLOB}, NOISE, STEM, Drop.UNNAMED_CLASS, id="class2"),
        pytest.param(
            {"0001_000": BLOB, "0009_000": BLOB}, NOISE, STEM, Drop.UNNAMED_CLASS, id="no such class"
        ),
        pytest.param({"0001_000": BLOB, "0003_000": BLOB}, NOISE, STEM, Drop.UNION_CLASS, id="union"),
        pytest.param({"0001_000": BLOB, "0004_000": BLOB & False}, NOISE, STEM, Drop.EMPTY_MASK, id="empty"),
        pytest.param({}, NOISE, STEM, Drop.NO_MASKS, id="no masks"),
        pytest.param({"0001_000": BLOB}, None, STEM, Drop.MISSING_IMAGE, id="no image"),
        pytest.param(
            {"0001_000": BLOB}, NOISE, "xx_00--LIDC--1--2d_none", Drop.UNKNOWN_MODALITY, id="modality"
        ),
        pytest.param({"0001_000": BLOB}, NOISE, "photo", Drop.BAD_NAME, id="name"),
    ],
)
def test_a_fault_drops_the_image_whole(
    tmp_path: Path, masks: dict, image: np.ndarray | None, stem: str, reason: Drop
) -> None:
    source = open_source(sa_med2d(tmp_path, masks, image, stem))
    candidates, left_out = listed(source)
    if candidates:
        with pytest.raises(FaultyImageError) as caught:
            source.read(candidates[stem])
        assert caught.value.reason is reason
    else:
        assert left_out == {stem: reason}


def test_a_listed_mask_that_is_not_there_is_missed(tmp_path: Path) -> None:
    root = sa_med2d(tmp_path, {"0001_000": BLOB})
    table = {f"images/{STEM}.png": [f"masks/{STEM}--0001_000.png", f"masks/{STEM}--0001_001.png"]}
    (root / IMAGES_TABLE).write_text(json.dumps(table, indent=1))
    assert listed(open_source(root))[1] == {STEM: Drop.MISSING_MASK}
    table[f"images/{STEM}.png"].pop()
    (root / IMAGES_TABLE).write_text(json.dumps(table, indent=1))
    assert {*listed(open_source(root))[0]} == {STEM}


def test_a_file_that_is_cut_short_is_unreadable(tmp_path: Path) -> None:
    root = sa_med2d(tmp_path, {"0001_000": BLOB})
    path = root / "images" / f"{STEM}.png"
    path.write_bytes(path.read_bytes()[:200])
    source = open_source(root)
    with pytest.raises(FaultyImageError, match="unreadable_image"):
        source.read(listed(source)[0][STEM])


def test_names_in_an_archive_are_never_paths(phantoms: Path, tmp_path: Path) -> None:
    path = zipped(phantoms, tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        for name in (
            "../../images/../ct_00--d--x--2d_none.png",
            "/images/\nx.png",
            "images/" + "y" * 5000 + ".png",
        ):
            archive.writestr(name, b"")
    before = {*tmp_path.rglob("*")}
    candidates, left_out = listed(open_source(path))
    assert len(candidates) == 2 * len(Modality) and len(left_out) == 2
    assert {*tmp_path.rglob("*")} == before


def test_without_class_names_a_source_is_refused(tmp_path: Path) -> None:
    (sa_med2d(tmp_path, {"0001_000": BLOB}) / CLASSES_TABLE).unlink()
    with pytest.raises(ValueError, match="classes would have no names; add it"):
        [*open_source(tmp_path).listed()]


@pytest.mark.parametrize("name", ["nowhere", "empty", "text.zip"])
def test_what_is_no_source_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(ValueError, match=name):
        open_source(tmp_path / name)


def test_the_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    root = sa_med2d(tmp_path, {"0001_000": BLOB})
    first = fingerprint(root)
    assert fingerprint(root) == first
    save(root / "masks" / "more.png", NOISE)
    assert fingerprint(root) != first


ABOUT = """
dataset: hospital
modality: ct
region: chest
labels: {1: left lung, 2: Lung_R, 5: nodule}
exhaustive: true
lesions: [nodule]
patient: "^(p[0-9]+)"
"""


def label_map() -> np.ndarray:
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[10:40, 5:25] = 1
    values[12:15, 8:12] = values[30:34, 8:12] = 5
    return values


def test_images_with_label_maps(tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text(ABOUT)
    save(tmp_path / "images" / "p01_a.png", NOISE)
    save(tmp_path / "masks" / "p01_a.png", label_map())
    save(tmp_path / "images" / "p02.png", NOISE)
    source = open_source(tmp_path)
    candidates, left_out = listed(source)
    assert left_out == {"p02": Drop.NO_MASKS}
    [(image_id, candidate)] = candidates.items()
    assert image_id == "ct_00--hospital--p01_a--2d_none" and candidate.info.case_id == "hospital/p01"
    image = source.read(candidate)
    assert [label for label, _ in image.masks] == ["left lung", "nodule", "nodule"]
    assert image.absent == ("right lung",)


def test_volumes_with_label_maps(tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text(ABOUT + "axes: [axial, coronal]\n")
    rng = np.random.default_rng(0)
    voxels = rng.integers(-900, 900, (20, 24, 12)).astype(np.int16)
    labels = np.zeros(voxels.shape, np.uint8)
    labels[2:8, 5:20, 3:9] = 1
    for folder, array in (("images", voxels), ("masks", labels)):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(array, np.diag([2, 2, 2, 1])), tmp_path / folder / "p07_ct.nii.gz")
    source = open_source(tmp_path)
    candidates, left_out = listed(source)
    assert not left_out and len(candidates) == 6 + 15  # slices that show a label
    image = source.read(candidates["ct_00--hospital--p07_ct--z_0004"])
    assert image.info.case_id == "hospital/p07"
    [(label, mask)] = image.masks
    assert label == "left lung" and mask.sum() == 6 * 15
    assert image.absent == ("right lung", "nodule")


def coco(root: Path, annotations: list[dict], file_name: str = "a.png") -> Path:
    (root / "labels.yaml").write_text(
        "dataset: scopes\nmodality: endoscopy\nregion: colon\nannotations: coco.json\n"
    )
    save(root / "images" / "a.png", NOISE)
    content = {
        "images": [{"id": 7, "file_name": file_name, "width": SIDE, "height": SIDE}],
        "categories": [{"id": 1, "name": "polyp"}],
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
        ({"size": [SIDE, SIDE], "counts": [1, 2]}, Drop.UNREADABLE_MASK),
        ({"size": [SIDE, SIDE], "counts": [-1, SIDE * SIDE + 1]}, Drop.UNREADABLE_MASK),
        ({"size": [10**6, 10**6], "counts": [10**12]}, Drop.SHAPE_MISMATCH),
        ({"size": [SIDE, SIDE], "counts": "PPPP"}, Drop.UNREADABLE_MASK),
    ],
)
def test_an_outline_that_is_none_drops_the_image(tmp_path: Path, segmentation: object, reason: Drop) -> None:
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
    for _ in range(20):
        mask = np.asfortranarray(rng.random((17, 23)) < rng.random())
        text = coders.encode(mask.astype(np.uint8, order="F"))["counts"].decode()
        assert np.array_equal(mask_of({"size": [17, 23], "counts": text}, (17, 23)), mask)
        assert sum(unpack_runs(text)) == mask.size


def test_a_polygon_covers_the_pixels_whose_centres_it_holds() -> None:
    assert fill_polygon([2, 3, 6, 3, 6, 8, 2, 8], (10, 10)).sum() == 4 * 5  # half-open, as boxes are
    assert fill_polygon([-50, -50, 50, -50, 50, 50, -50, 50], (10, 10)).all()  # cut off at the borders
    triangle = fill_polygon([0, 0, 100, 0, 0, 100], (100, 100))
    assert abs(triangle.mean() - 0.5) < 0.01


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "must hold dataset, modality and region"),
        ("dataset: a", "must hold dataset, modality and region"),
        (ABOUT + "colour: red", "may hold"),
        (ABOUT.replace("ct", "xray"), "'xray' is not a valid Modality"),
        (ABOUT.replace("hospital", "../x"), "must be a plain name"),
        (ABOUT.replace("Lung_R", "class2"), "unnamed_class"),
        (ABOUT + "window: skin", "window must be one of"),
        (ABOUT + "axes: [2d]", "axes must be of"),
        (ABOUT + "detail: ../t1", "must be letters and digits"),
        (ABOUT.replace("true", "'no'"), "must be true or false"),
        (ABOUT.replace("[0-9]+)", "("), "labels.yaml"),
        ("{", "is no YAML"),
    ],
)
def test_a_wrong_description_says_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "labels.yaml").write_text(text)
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=says) as caught:
        open_source(tmp_path)
    assert "\n" not in str(caught.value)
