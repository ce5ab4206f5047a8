"""nnU-Net's raw datasets and the Decathlon's tasks are read as they come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bird_hf.data.records import Modality
from bird_hf.data.sources.faults import Drop
from bird_hf.data.sources.open import open_source

from ..example_volumes import SHAPE, built_labels, left_out, noise, read_all, two_blocks, write_volume

NNUNET: dict[str, Any] = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "Kidney_L": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
DECATHLON: dict[str, Any] = {
    "name": "BRATS",
    "modality": {"0": "FLAIR", "1": "T1w"},
    "labels": {"0": "background", "1": "edema", "2": "enhancing tumor"},
    "training": [{"image": "../../secret.nii.gz", "label": "/etc/passwd"}],  # paths are never opened
}


def describe(folder: Path, content: dict[str, Any], about: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))
    if about:
        (folder / "labels.yaml").write_text(about)


def nnunet(folder: Path, content: dict[str, Any] = NNUNET, about: str = "", channels: int = 1) -> Path:
    describe(folder, content, about)
    for case in (1, 2):
        for channel in range(channels):
            write_volume(folder / "imagesTr" / f"c{case}_{channel:04d}.nii.gz", noise(10 * case + channel))
        write_volume(folder / "labelsTr" / f"c{case}.nii.gz", two_blocks())
    write_volume(folder / "imagesTs" / "c3_0000.nii.gz", noise(9))
    return folder


def decathlon(folder: Path, content: dict[str, Any] = DECATHLON, about: str = "", channels: int = 2) -> Path:
    describe(folder, content, about)
    for case in (1, 2):
        film = np.stack([noise(10 * case + channel) for channel in range(channels)], axis=-1)
        write_volume(folder / "imagesTr" / f"BRATS_{case:03d}.nii.gz", film if channels > 1 else film[..., 0])
        write_volume(folder / "labelsTr" / f"BRATS_{case:03d}.nii.gz", two_blocks())
        for name in ("imagesTr", "labelsTr"):  # resource forks of macOS are in the Decathlon's archives
            (folder / name / f"._BRATS_{case:03d}.nii.gz").write_bytes(b"Mac OS X")
    return folder


def test_an_nnunet_dataset_is_read_without_a_description(tmp_path: Path) -> None:
    source = open_source(nnunet(tmp_path / "Dataset007_Abdomen"))
    found = read_all(source)
    assert source.kind == "nnU-Net" and len(found) == 2 * 8
    image = found["ct_00--Abdomen--c1--z_0006"]
    assert {name for name, _ in image.masks} == {"liver", "left kidney"} and image.absent == ()
    assert (image.info.region, image.info.case_id) == ("abdomen", "Abdomen/c1")


def test_nnunet_is_built(tmp_path: Path) -> None:
    found = built_labels(nnunet(tmp_path / "Dataset007_Abdomen"), tmp_path / "out")
    assert found == {f"Abdomen/c{case}": {"liver", "left kidney"} for case in (1, 2)}


def test_the_decathlon_is_built(tmp_path: Path) -> None:
    source = decathlon(tmp_path / "Task01_BrainTumour", about="channel: 1\n")
    found = built_labels(source, tmp_path / "out")
    assert found == {f"BRATS/BRATS_{case:03d}": {"edema", "enhancing tumor"} for case in (1, 2)}


def test_a_channel_of_the_decathlon_is_chosen_and_says_the_sequence(tmp_path: Path) -> None:
    source = open_source(decathlon(tmp_path / "four", about="channel: 1\n"))
    found = read_all(source)
    assert source.kind == "Medical Segmentation Decathlon"
    alone = {**DECATHLON, "modality": {"0": "T1w"}}
    expected = decathlon(tmp_path / "three", alone, channels=1)
    for case in (1, 2):
        write_volume(expected / "imagesTr" / f"BRATS_{case:03d}.nii.gz", noise(10 * case + 1))
    expected_images = read_all(open_source(expected))
    assert {*found} == {*expected_images} and "mr_t1w--BRATS--BRATS_001--z_0004" in found
    for image_id, image in found.items():
        assert np.array_equal(image.pixels, expected_images[image_id].pixels)


def test_without_a_choice_a_volume_with_channels_is_left_out(tmp_path: Path) -> None:
    items = left_out(open_source(decathlon(tmp_path)))
    assert {*items} == {"BRATS_001", "BRATS_002"}
    for item in items.values():
        assert item.reason is Drop.CHANNEL_UNKNOWN
        assert "(20, 24, 12, 2)" in item.detail and "`channel`" in item.detail


PET_CT = {**NNUNET, "channel_names": {"0": "CT", "1": "PET"}}


@pytest.mark.parametrize(
    ("about", "prefix", "seed"), [("channel: 0\n", "ct_00", 10), ("channel: 1\n", "pet_00", 11)]
)
def test_one_of_the_files_of_a_case_is_chosen(tmp_path: Path, about: str, prefix: str, seed: int) -> None:
    folder = nnunet(tmp_path / "pair", PET_CT, about + "window: bone\n", channels=2)
    found = read_all(open_source(folder))
    image = found[f"{prefix}--pair--c1--z_0004"]
    alone = nnunet(tmp_path / "alone", NNUNET, f"modality: {prefix[:-3]}\nwindow: bone\n")
    write_volume(alone / "imagesTr" / "c1_0000.nii.gz", noise(seed))
    expected = read_all(open_source(alone))[f"{prefix}--alone--c1--z_0004"]
    assert np.array_equal(image.pixels, expected.pixels)


@pytest.mark.parametrize("about", ["", "channel: 5\n"])
def test_an_unknown_file_of_several_is_left_out_with_the_names(tmp_path: Path, about: str) -> None:
    item = left_out(open_source(nnunet(tmp_path, PET_CT, about, channels=2)))["c1"]
    assert item.reason is Drop.CHANNEL_UNKNOWN and "channels 0 CT, 1 PET; choose one" in item.detail


@pytest.mark.parametrize(
    ("channel", "modality", "prefix"),
    [
        ("CT", None, "ct_00"),
        ("ct ", None, "ct_00"),
        ("MRI", None, "mr_00"),
        ("T1", None, "mr_t1"),
        ("T2_FLAIR", None, "mr_t2flair"),
        ("MR T1Gd", None, "mr_t1gd"),
        ("ADC", None, "mr_adc"),
        ("PET", None, "pet_00"),
        ("US", None, "ultrasound_00"),
        ("X-Ray", None, "x_ray_00"),
        ("noNorm", Modality.CT, "ct_00"),
        ("rescale_to_0_1", Modality.MR, "mr_00"),
        ("T1", Modality.CT, "mr_t1"),  # the source counts more than the argument
    ],
)
def test_the_modality_is_that_of_the_channel(tmp_path: Path, channel, modality, prefix) -> None:
    content = {**NNUNET, "channel_names": {"0": channel}}
    images = open_source(nnunet(tmp_path / "set", content), modality).listed()
    assert next(iter(images)).info.image_id == f"{prefix}--set--c1--z_0003"


@pytest.mark.parametrize("channel", ["noNorm", "zscore", "R", "PET/CT", ""])
def test_an_unknown_modality_is_refused_with_the_remedy(tmp_path: Path, channel: str) -> None:
    content = {**NNUNET, "channel_names": {"0": channel}}
    with pytest.raises(ValueError, match="names no modality; give --modality") as caught:
        open_source(nnunet(tmp_path, content))
    assert "\n" not in str(caught.value)


ADDED = """
dataset: mine
region: brain
labels: {1: spleen}
exhaustive: true
axes: [axial, coronal]
window: brain
detail: c
"""


def test_a_description_beside_it_counts_more(tmp_path: Path) -> None:
    found = read_all(open_source(nnunet(tmp_path, about=ADDED)))
    image = found["ct_c--mine--c1--z_0004"]
    assert [name for name, _ in image.masks] == ["spleen"] and image.info.region == "brain"
    assert "ct_c--mine--c1--y_0010" in found


@pytest.mark.parametrize(
    ("name", "absent"),
    [("Dataset218_Amos2022", ("left kidney",)), ("Dataset218_Mine", ())],  # of AMOS all labels are known
)
def test_a_name_is_absent_only_where_the_dataset_is_known_to_be_exhaustive(tmp_path: Path, name, absent):
    found = read_all(open_source(nnunet(tmp_path / name)))
    images = [image for image in found.values() if image.info.slice_index == 3]
    assert [image.absent for image in images] == [absent, absent]


def test_regions_share_values_and_the_ignore_label_is_nothing(tmp_path: Path) -> None:
    labels = {"background": 0, "whole organ": [1, 2], "tumor": 2, "ignore": 3}
    folder = nnunet(tmp_path / "set", {**NNUNET, "labels": labels}, "exhaustive: true\n")
    values = two_blocks()
    values[0, 0, 4] = 3
    write_volume(folder / "labelsTr" / "c1.nii.gz", values)
    found = read_all(open_source(folder))
    masks = dict(found["ct_00--set--c1--z_0006"].masks)
    assert masks["whole organ"].sum() > masks["tumor"].sum() > 0
    assert not (masks["tumor"] & ~masks["whole organ"]).any()
    assert found["ct_00--set--c1--z_0003"].absent == ("tumor",)
    assert found["ct_00--set--c1--z_0004"].absent == ()  # a voxel there is ignored


def test_a_case_without_its_other_half_is_left_out(tmp_path: Path) -> None:
    folder = nnunet(tmp_path)
    (folder / "labelsTr" / "c1.nii.gz").unlink()
    (folder / "imagesTr" / "c2_0000.nii.gz").unlink()
    items = left_out(open_source(folder))
    assert {name: item.reason for name, item in items.items()} == {
        "c1": Drop.NO_MASKS,
        "c2": Drop.MISSING_IMAGE,
    }
    assert "labelsTr/c1" in items["c1"].detail and "imagesTr/c2_0000" in items["c2"].detail


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "dataset.json"),
        ("[" * 100_000, "dataset.json"),
        ("[]", "has no `labels`"),
        ("{}", "has no `labels`"),
        ({**NNUNET, "labels": {"background": 0}}, "nothing but the background"),
        ({**NNUNET, "labels": {"liver": 70000}}, "'liver' must have values from 1"),
        ({**NNUNET, "labels": {"liver": []}}, "'liver' must have values from 1"),
        ({**NNUNET, "labels": {"liver": [0, 1]}}, "'liver' must have values from 1"),
        ({**NNUNET, "labels": {"liver": {}}}, "dataset.json"),
        ({**NNUNET, "labels": {"class2": 1}}, "unnamed_class"),
        ({**NNUNET, "labels": {"1": "liver", "2": "liver"}}, "have one name"),
        ({**NNUNET, "channel_names": 3}, "dataset.json"),
        ({**NNUNET, "file_ending": ".mha"}, "'.mha' are not read"),
    ],
)
def test_an_invalid_dataset_json_is_refused_in_one_line(tmp_path: Path, content, says: str) -> None:
    folder = nnunet(tmp_path)
    (folder / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=says) as caught:
        open_source(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_an_nnunet_dataset_of_images_is_read(tmp_path: Path) -> None:
    content = {**NNUNET, "channel_names": {"0": "R", "1": "G", "2": "B"}, "file_ending": ".png"}
    describe(tmp_path / "set", content)
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / "set" / name).mkdir()
    Image.fromarray(noise()[..., :3].astype(np.uint8)).save(tmp_path / "set" / "imagesTr" / "c1_0000.png")
    Image.fromarray(two_blocks()[..., 6]).save(tmp_path / "set" / "labelsTr" / "c1.png")
    found = read_all(open_source(tmp_path / "set", Modality.DERMOSCOPY))
    (image,) = found.values()
    assert image.info.modality is Modality.DERMOSCOPY and image.pixels.shape == (*SHAPE[:2], 3)
    assert {name for name, _ in image.masks} == {"liver", "left kidney"}
