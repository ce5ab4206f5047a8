"""Images and masks under BiomedParse's file names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bird_hf.data.build.pipeline import BuildSettings, build
from bird_hf.data.folder.publish import open_folder
from bird_hf.data.records import Modality
from bird_hf.data.sources.biomedparse import modality_of
from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.data.sources.open import open_source

from .example_sources import SIDE, details, listed, photograph, save

BLOB = np.zeros((SIDE, SIDE), np.uint8)
BLOB[8:30, 20:44] = 255


def pair(root: Path, image: str, targets: tuple[str, ...], split: str = "train", seed: int = 0) -> None:
    photograph(root / split / f"{image}.png", seed=seed)
    for target in targets:
        save(root / f"{split}_mask" / f"{image}_{target}.png", BLOB)


def test_names_say_modality_region_and_labels(tmp_path: Path) -> None:
    pair(tmp_path, "TCGA_HT_7856_8_MRI-FLAIR_brain", ("lower-grade+glioma",))
    pair(tmp_path, "T0340_fundus_retinal", ("optic+disc", "optic+cup"), "test", seed=1)
    source = open_source(tmp_path)
    candidates, left_out = listed(source)
    assert not left_out and not source.pixels_are_free
    glioma, fundus = (
        candidates.values() if "flair" in next(iter(candidates)) else [*candidates.values()][::-1]
    )
    assert glioma.info.image_id == "mr_flair--biomedparse--TCGA_HT_7856_8--2d_none"
    assert (glioma.info.modality, glioma.info.modality_detail) == (Modality.MR, "flair")
    assert (glioma.info.region, glioma.labels) == ("brain", ("lower-grade glioma",))
    assert (fundus.info.modality, fundus.info.region) == (Modality.FUNDUS, "retinal")
    image = source.read(fundus)
    assert sorted(label for label, _ in image.masks) == ["optic cup", "optic disc"] and image.absent == ()
    assert all(np.array_equal(mask, BLOB > 0) for _, mask in image.masks)


@pytest.mark.parametrize(
    ("name", "modality", "detail"),
    [
        ("CT", Modality.CT, "00"),
        ("MRI", Modality.MR, "00"),
        ("MRI-T1-Gd", Modality.MR, "t1gd"),
        ("MRI-FLAIR", Modality.MR, "flair"),
        ("T2", Modality.MR, "t2"),  # a sequence alone
        ("ADC", Modality.MR, "adc"),
        ("X-Ray", Modality.X_RAY, "00"),
        ("xray", Modality.X_RAY, "00"),
        ("PET", Modality.PET, "00"),
        ("endoscope", Modality.ENDOSCOPY, "00"),
        ("dermoscopy", Modality.DERMOSCOPY, "00"),
        ("fundus", Modality.FUNDUS, "00"),
        ("ultrasound", Modality.ULTRASOUND, "00"),
    ],
)
def test_modalities(name: str, modality: Modality, detail: str) -> None:
    assert modality_of(name) == (modality, detail)


@pytest.mark.parametrize("name", ["OCT", "pathology", "ray", "", "CTA", "unknown"])
def test_other_modalities_are_left_out_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(FaultyImageError) as caught:
        modality_of(name)
    assert caught.value.reason is Drop.UNKNOWN_MODALITY and caught.value.detail == name


def test_what_is_left_out(tmp_path: Path) -> None:
    pair(tmp_path, "a_CT_lung", ("nodule",))
    pair(tmp_path, "b_OCT_retinal", ("edema",), seed=1)
    pair(tmp_path, "c_CT_lung", ("class3",), seed=2)
    pair(tmp_path, "d_CT_lung", (), seed=3)
    pair(tmp_path, "CT_lung", ("nodule",), seed=4)
    pair(tmp_path, "f_CT_<box>", ("nodule",), seed=5)
    save(tmp_path / "train_mask" / "e_CT_lung_nodule.png", BLOB)
    save(tmp_path / "train_mask" / "absent.png", BLOB)
    source = open_source(tmp_path)
    assert listed(source)[1] == {
        "b_OCT_retinal": Drop.UNKNOWN_MODALITY,
        "c_CT_lung": Drop.UNNAMED_CLASS,
        "d_CT_lung": Drop.NO_MASKS,
        "CT_lung": Drop.BAD_NAME,
        "f_CT_<box>": Drop.BAD_NAME,
        "e_CT_lung_nodule": Drop.MISSING_IMAGE,
        "absent": Drop.MISSING_IMAGE,
    }
    assert details(source)["e_CT_lung_nodule"] == "train_mask/e_CT_lung_nodule.png"


def test_folders_of_datasets_name_the_dataset_and_its_patients(tmp_path: Path) -> None:
    pair(tmp_path / "ACDC" / "ACDC", "patient001_frame01_3_MRI_heart", ("left+heart+ventricle",))
    pair(tmp_path / "amos22" / "amos22" / "CT", "amos_0004_27_CT_abdomen", ("liver",), "test", 1)
    infos = [candidate.info for candidate in listed(open_source(tmp_path))[0].values()]
    assert {(info.dataset, info.case_id) for info in infos} == {
        ("ACDC", "ACDC/patient001"),
        ("amos22_CT", "amos22_CT/amos_0004"),
    }


@pytest.mark.parametrize(
    ("names", "cases"),
    [
        (("vol1_001_CT_lung", "vol1_002_CT_lung"), {"biomedparse/vol1"}),  # slices of a volume
        (("vol-1-001_PET_body", "vol-1-002_PET_body"), {"biomedparse/vol-1"}),
        (("02_CT_lung", "03_CT_lung"), {"biomedparse/02", "biomedparse/03"}),
        (("covid_1_X-Ray_chest", "covid_2_X-Ray_chest"), {"biomedparse/covid_1", "biomedparse/covid_2"}),
    ],
)
def test_slices_of_a_volume_are_one_case(tmp_path: Path, names: tuple[str, str], cases: set[str]) -> None:
    for seed, name in enumerate(names):
        pair(tmp_path, name, ("nodule",), seed=seed)
    assert {candidate.info.case_id for candidate in listed(open_source(tmp_path))[0].values()} == cases


@pytest.mark.parametrize("exif", range(1, 9))
def test_masks_on_the_stored_pixels_of_a_photograph(tmp_path: Path, exif: int) -> None:
    photograph(tmp_path / "train" / "a_dermoscopy_skin.png", exif, 40, 60)
    values = np.zeros((40, 60), np.uint8)
    values[5:20, 10:30] = 255
    save(tmp_path / "train_mask" / "a_dermoscopy_skin_melanoma.png", values)
    source = open_source(tmp_path)
    [candidate] = listed(source)[0].values()
    if 1 < exif < 5:
        with pytest.raises(FaultyImageError, match="orientation_unknown"):
            source.read(candidate)
    else:
        image = source.read(candidate)
        assert image.masks[0][1].shape == image.pixels.shape[:2] and image.masks[0][1].sum() == 15 * 20


def test_a_given_modality_is_refused(tmp_path: Path) -> None:
    pair(tmp_path, "a_CT_lung", ("nodule",))
    with pytest.raises(ValueError, match="says its modality itself; leave --modality out"):
        open_source(tmp_path, Modality.CT)


def test_folders_without_such_names_are_no_source(tmp_path: Path) -> None:
    photograph(tmp_path / "train" / "a.png")
    save(tmp_path / "train_mask" / "a.png", BLOB)
    with pytest.raises(ValueError, match="BiomedParse: train/NAME_MODALITY_SITE") as caught:
        open_source(tmp_path)
    assert "\n" not in str(caught.value)


def test_it_is_built(tmp_path: Path) -> None:
    for number in range(12):
        pair(tmp_path / "src", f"covid_{number}_X-Ray_chest", ("COVID-19+infection",), seed=number)
    manifest = build(tmp_path / "src", tmp_path / "out", BuildSettings(pixels=True), workers=1)
    assert not manifest["dropped"] and manifest["source"]["kind"] == "BiomedParse"
    built = [row for split in ("train", "test") for row in open_folder(tmp_path / "out", "vg", split)]
    assert {thing["label"] for row in built for thing in row["objects"]} == {"COVID-19 infection"}
    boxes = [thing["box"] for row in built for thing in row["objects"]]
    assert np.allclose(boxes, (20 / SIDE, 8 / SIDE, 44 / SIDE, 30 / SIDE), atol=1e-6)
