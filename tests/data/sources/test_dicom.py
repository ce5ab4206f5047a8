"""DICOM images and segmentations: the patient's sides, the right frame on the right slice, and no identifier leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import get_decoder
from pydicom.sr.codedict import codes
from pydicom.uid import RLELossless, generate_uid

from bird_hf.data.build.pipeline import BuildSettings, build
from bird_hf.data.masks import box_of
from bird_hf.data.records import Axis, MaskedImage, Modality
from bird_hf.data.sources.base import Candidate, LeftOut, fingerprint
from bird_hf.data.sources.dicom.images import read_series, read_values
from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.data.sources.open import open_source
from bird_hf.data.sources.volume_files import read_volume

SHAPE = (61, 53)  # whose bits end inside a byte
NAME, NUMBER, BORN = "Doe^Jane", "SECRET-4711", "19610203"
AXIAL = (1, 0, 0, 0, 1, 0)
KIDNEY, SPLEEN = ("Kidney_R", codes.SCT.Kidney), ("spleen", codes.SCT.Spleen)
# Centres in millimetres to the patient's left, back and head: right and front; left and back.
CENTRES = {"right kidney": (-12, -9, 0), "spleen": (13, 12, 0)}


def example(name: str) -> Any:
    return pydicom.dcmread(get_testdata_file(name, download=False))


def positions(image: Any) -> np.ndarray:
    """(rows, columns, 3): where each pixel lies, in the patient's millimetres."""
    x, y = np.reshape(np.array(image.ImageOrientationPatient, float), (2, 3))
    down, across = np.array(image.PixelSpacing, float)
    rows, columns = np.mgrid[: image.Rows, : image.Columns]
    origin = np.array(image.ImagePositionPatient, float)
    return origin + columns[..., None] * across * x + rows[..., None] * down * y


def ball(image: Any, name: str, radius: float = 5) -> np.ndarray:
    return np.linalg.norm(positions(image) - CENTRES[name], axis=-1) < radius


def series(
    folder: Path, count: int = 3, orientation: tuple = AXIAL, seed: int = 0, **changed: Any
) -> list[Any]:
    """Slices around the origin, made of a real CT's header, with two balls of 100 HU in noise."""
    folder.mkdir(parents=True, exist_ok=True)
    x, y = np.array(orientation, float).reshape(2, 3)
    normal = np.cross(x, y)
    uid, study, frame = generate_uid(), generate_uid(), generate_uid()
    images = []
    for number in range(count):
        image = example("CT_small.dcm")
        image.PatientName, image.PatientID, image.PatientBirthDate = NAME, NUMBER, BORN
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, uid, frame
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.Rows, image.Columns = SHAPE
        image.ImageOrientationPatient, image.PixelSpacing = list(orientation), [1, 1]
        middle = x * (SHAPE[1] - 1) / 2 + y * (SHAPE[0] - 1) / 2
        image.ImagePositionPatient = (normal * 3 * (number - count // 2) - middle).round(4).tolist()
        image.BodyPartExamined, image.RescaleSlope, image.RescaleIntercept = "ABDOMEN", 2, -1000
        if "PixelPaddingValue" in image:
            del image.PixelPaddingValue
        for tag, value in changed.items():
            setattr(image, tag, value)
        units = np.random.default_rng([seed, number]).integers(-60, 20, SHAPE)
        units[ball(image, "right kidney") | ball(image, "spleen")] = 100
        image.PixelData = ((units + 1000) // 2).astype("<i2").tobytes()
        image.save_as(folder / f"{9 - number}.dcm")  # names against the order
        images.append(image)
    return images


def segmentation(images: list[Any], kind: str = "BINARY", segments: tuple = (KIDNEY, SPLEEN)) -> Any:
    masks = np.stack(
        [np.stack([ball(image, name) for name in [*CENTRES][: len(segments)]], -1) for image in images]
    )
    pixels: np.ndarray = masks.astype(np.uint8)
    if kind == "FRACTIONAL":
        pixels = masks * 0.9 + ~masks * 0.3
    if kind == "LABELMAP":
        pixels = (masks * np.arange(1, len(segments) + 1)).sum(-1).astype(np.uint8)
    return highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=[
            highdicom.seg.SegmentDescription(number, label, codes.SCT.Organ, code, "MANUAL")
            for number, (label, code) in enumerate(segments, start=1)
        ],
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="nobody",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    )


def listed(folder: Path) -> tuple[list[Candidate], list[Drop]]:
    items = [*open_source(folder).listed()]
    candidates = [item for item in items if isinstance(item, Candidate)]
    assert json.loads(json.dumps([item.where for item in candidates])) == [item.where for item in candidates]
    return candidates, sorted(item.reason for item in items if isinstance(item, LeftOut))


def read_all(folder: Path) -> list[MaskedImage]:
    source = open_source(folder)
    return [source.read(item) for item in source.listed() if isinstance(item, Candidate)]


def assert_sides(image: MaskedImage) -> None:
    """The right kidney on the picture's left, the spleen on its right, each at its 100 HU."""
    boxes = {label: box_of(mask) for label, mask in image.masks}
    assert {*boxes} == {*CENTRES}
    for label, mask in image.masks:
        assert image.pixels[mask].min() > image.pixels[~mask].mean() + 20, label
    kidney, spleen = boxes["right kidney"], boxes["spleen"]
    if image.info.axis is Axis.SAGITTAL:
        assert kidney.x2 < spleen.x1  # the front is on the left
    else:
        assert kidney.x2 < 0.5 < spleen.x1
    if image.info.axis is Axis.AXIAL:
        assert kidney.y2 < 0.5 < spleen.y1


class TestImages:
    @pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
    @pytest.mark.parametrize(
        "orientation", [AXIAL, (-1, 0, 0, 0, 1, 0), (0, 1, 0, 1, 0, 0), (0.98, 0.199, 0, -0.199, 0.98, 0)]
    )
    def test_sides_are_the_patients_however_the_slices_were_stored(self, tmp_path, kind, orientation):
        images = series(tmp_path / "a" / "b", orientation=orientation)
        segmentation(images, kind).save_as(tmp_path / "seg")
        candidates, left_out = listed(tmp_path)
        assert len(candidates) == 3 and not left_out
        middle = next(image for image in read_all(tmp_path) if image.info.slice_index == 1)
        assert_sides(middle)
        info = middle.info
        assert (info.modality, info.region, info.axis) == (Modality.CT, "abdomen", Axis.AXIAL)
        assert info.image_id.startswith("ct_00--dicom--") and info.image_id.endswith("--z_0001")

    @pytest.mark.parametrize(
        ("orientation", "axis"),
        [((1, 0, 0, 0, 0, -1), Axis.CORONAL), ((0, 1, 0, 0, 0, -1), Axis.SAGITTAL)],
    )
    def test_other_planes(self, tmp_path, orientation, axis, monkeypatch):
        normal = {Axis.CORONAL: 1, Axis.SAGITTAL: 0}[axis]
        for name, at in CENTRES.items():
            monkeypatch.setitem(CENTRES, name, tuple(0 if i == normal else v for i, v in enumerate(at)))
        images = series(tmp_path, orientation=orientation, Modality="MR", BodyPartExamined="")
        segmentation(images).save_as(tmp_path / "seg.dcm")
        middle = next(image for image in read_all(tmp_path) if image.info.slice_index == 1)
        assert (middle.info.axis, middle.info.modality) == (axis, Modality.MR)
        assert middle.info.region == "abdomen"  # by what is labelled
        assert_sides(middle)

    def test_slices_are_numbered_from_the_feet_and_shown_alike(self, tmp_path):
        images = series(tmp_path, count=4, Modality="PT")
        segmentation(images).save_as(tmp_path / "seg.dcm")
        source = open_source(tmp_path)
        candidates, _ = listed(tmp_path)
        paths = [item.where["image"] for item in sorted(candidates, key=lambda item: item.info.image_id)]
        assert paths == ["8.dcm", "7.dcm", "6.dcm"]  # the lowest shows nothing
        assert len({tuple(item.where["range"]) for item in candidates}) == 1
        assert source.read(candidates[0]).info.modality is Modality.PET

    def test_a_projection_is_shown_as_it_is_stored_and_dark_is_turned_bright(self, tmp_path):
        changed = {"Modality": "DX", "RescaleSlope": 1, "RescaleIntercept": 0, "BodyPartExamined": "CHEST"}
        (image,) = series(tmp_path, count=1, **changed)
        segmentation([image]).save_as(tmp_path / "seg.dcm")
        drawn = ball(image, "spleen")
        for tag in ("ImagePositionPatient", "ImageOrientationPatient"):
            delattr(image, tag)
        shown = []
        for photometric in ("MONOCHROME2", "MONOCHROME1"):
            image.PhotometricInterpretation = photometric
            image.save_as(tmp_path / "9.dcm")
            shown += read_all(tmp_path)
        assert shown[0].info.image_id.startswith("x_ray--dicom--")
        assert shown[0].info.image_id.endswith("--2d_none") and shown[0].info.region == "chest"
        assert np.array_equal(shown[0].pixels, 255 - shown[1].pixels)
        assert np.array_equal(dict(shown[0].masks)["spleen"], drawn)

    def test_colours_stay(self, tmp_path):
        image = example("SC_rgb_rle.dcm")
        image.Modality, image.StudyInstanceUID, image.SeriesInstanceUID = "ES", "1.2", "1.2.3"
        image.save_as(tmp_path / "photo.dcm")
        source = open_source(tmp_path)
        (item,) = source.listed()
        assert isinstance(item, LeftOut) and item.reason is Drop.NO_MASKS
        assert read_values(tmp_path / "photo.dcm")[1].shape == (image.Rows, image.Columns, 3)

    @pytest.mark.parametrize(
        "name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_bigendian.dcm"]
    )
    def test_other_transfer_syntaxes_hold_the_same_values(self, name):
        plain, other = (
            read_values(Path(get_testdata_file(n, download=False)))[1] for n in ("MR_small.dcm", name)
        )
        assert np.array_equal(plain, other)


class TestSegmentations:
    def test_frames_that_name_no_image_go_where_they_lie(self, tmp_path):
        images = series(tmp_path)
        made = segmentation(images)
        del made.ReferencedSeriesSequence
        for frame in made.PerFrameFunctionalGroupsSequence:
            del frame.DerivationImageSequence
        made.save_as(tmp_path / "seg.dcm")
        candidates, left_out = listed(tmp_path)
        assert (len(candidates), left_out) == (3, [])
        assert_sides(next(image for image in read_all(tmp_path) if image.info.slice_index == 1))

    def test_of_several_series_only_the_segmented_one_is_taken(self, tmp_path):
        segmentation(series(tmp_path / "one")).save_as(tmp_path / "seg.dcm")
        series(tmp_path / "two")
        candidates, left_out = listed(tmp_path)
        assert (len(candidates), left_out) == (3, [Drop.NO_MASKS] * 3)
        assert len({item.info.case_id for item in candidates}) == 1

    @pytest.mark.parametrize("named", [True, False])
    def test_one_that_lies_elsewhere_drops_its_series(self, tmp_path, named):
        images = series(tmp_path)
        made = segmentation(images)
        for frame in made.PerFrameFunctionalGroupsSequence:
            at = frame.PlanePositionSequence[0]
            at.ImagePositionPatient = [v + 1.2 for v in at.ImagePositionPatient]
            if not named:
                del frame.DerivationImageSequence
        made.save_as(tmp_path / "seg.dcm")
        assert listed(tmp_path) == ([], [Drop.OFF_GRID] * 3)

    def test_one_without_its_images_is_counted(self, tmp_path):
        images = series(tmp_path / "gone")
        segmentation(images).save_as(tmp_path / "seg.dcm")
        for path in (tmp_path / "gone").iterdir():
            path.unlink()
        assert listed(tmp_path) == ([], [Drop.MISSING_IMAGE])

    def test_a_label_that_says_nothing_is_replaced_by_what_the_segment_is_of(self, tmp_path):
        images = series(tmp_path)
        side = pydicom.Dataset()
        side.CodeValue, side.CodingSchemeDesignator, side.CodeMeaning = "24028007", "SCT", "Right"
        made = segmentation(images, segments=(("Segment 1", codes.SCT.Kidney), SPLEEN))
        kind = made.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [side]
        made.save_as(tmp_path / "seg.dcm")
        candidates, _ = listed(tmp_path)
        assert {label for item in candidates for label in item.labels} == {"right kidney", "spleen"}

    def test_a_segment_without_any_name_drops_its_images(self, tmp_path):
        images = series(tmp_path)
        made = segmentation(images, segments=(("Segment 1", codes.SCT.Kidney),))
        made.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning = "unknown"
        made.save_as(tmp_path / "seg.dcm")
        assert listed(tmp_path)[1] == [Drop.UNNAMED_CLASS] * 3


class TestHostile:
    def test_what_cannot_be_used_is_counted_by_reason(self, tmp_path):
        segmentation(series(tmp_path / "good")).save_as(tmp_path / "seg.dcm")
        (tmp_path / "text.dcm").write_text("no DICOM")
        (tmp_path / "README").write_text("not looked at")
        whole = (tmp_path / "good" / "9.dcm").read_bytes()
        (tmp_path / "twice").write_bytes(whole)
        (tmp_path / "cut.dcm").write_bytes(whole[:300])
        (tmp_path / "noise.dcm").write_bytes(bytes(128) + b"DICM" + np.random.default_rng(0).bytes(5000))
        for number, name in enumerate(("image_dfl.dcm", "SC_rgb_rle_2frame.dcm", "rtplan.dcm")):
            (tmp_path / f"sample{number}").write_bytes(
                Path(get_testdata_file(name, download=False)).read_bytes()
            )
        burned = example("MR_small.dcm")
        burned.BurnedInAnnotation = "YES"
        burned.save_as(tmp_path / "burned")
        burned.BurnedInAnnotation, burned.Modality, burned.SOPInstanceUID = "NO", "NM", "1.2.9"
        burned.save_as(tmp_path / "nuclear")
        candidates, left_out = listed(tmp_path)
        assert len(candidates) == 3
        assert left_out == sorted(
            [Drop.UNREADABLE_IMAGE] * 4  # text, cut, noise, a compressed header
            + [Drop.DUPLICATE_ID, Drop.MULTI_FRAME, Drop.BURNED_IN, Drop.UNKNOWN_MODALITY]
        )

    def test_a_compression_without_its_decoder_names_the_package(self, tmp_path, monkeypatch):
        images = series(tmp_path)
        segmentation(images).save_as(tmp_path / "seg.dcm")
        images[0].compress(RLELossless, generate_instance_uid=False)
        images[0].save_as(tmp_path / "9.dcm")
        monkeypatch.setattr(get_decoder(RLELossless), "_available", {})
        candidates, left_out = listed(tmp_path)
        assert (len(candidates), left_out) == (2, [Drop.NEEDS_PYLIBJPEG])

    @pytest.mark.parametrize(
        ("tag", "value"),
        [("Rows", 60_000), ("Columns", 2), ("NumberOfFrames", 40_000), ("SegmentSequence", [])],
    )
    def test_a_segmentation_that_announces_too_much_is_counted(self, tmp_path, tag, value):
        made = segmentation(series(tmp_path))
        setattr(made, tag, value)
        made.save_as(tmp_path / "seg.dcm")
        candidates, left_out = listed(tmp_path)
        source = open_source(tmp_path)
        for candidate in candidates:
            with pytest.raises(FaultyImageError, match="unreadable_mask"):
                source.read(candidate)
        assert candidates or left_out

    def test_an_image_that_is_cut_short_is_a_fault_without_its_words(self, tmp_path):
        segmentation(series(tmp_path)).save_as(tmp_path / "seg.dcm")
        path = tmp_path / "9.dcm"
        path.write_bytes(path.read_bytes()[:-900])
        source = open_source(tmp_path)
        faulty = next(item for item in listed(tmp_path)[0] if item.where["image"] == "9.dcm")
        with pytest.raises(FaultyImageError, match=r"^unreadable_image: \w+$"):
            source.read(faulty)


class TestVolume:
    def test_a_series_in_a_folder_is_a_volume(self, tmp_path):
        series(tmp_path, count=4)
        volume = read_volume(tmp_path)
        assert volume.voxels.shape == (SHAPE[1], SHAPE[0], 4) and volume.spacing_mm == pytest.approx(
            (1, 1, 3)
        )
        x, y = np.argwhere(volume.voxels[..., 2] == 100).mean(axis=0)
        assert volume.affine[:3, 2] == pytest.approx([0, 0, 3])
        assert (x, y) == pytest.approx((25.5, 28.5), abs=0.1)

    def test_it_takes_a_label_map_beside_it(self, tmp_path):
        images = series(tmp_path / "images" / "p01", count=4)
        volume = read_volume(tmp_path / "images" / "p01")
        (tmp_path / "masks").mkdir()
        labels = (volume.voxels == 100).astype(np.uint8)
        nib.Nifti1Image(labels, volume.affine).to_filename(tmp_path / "masks" / "p01.nii.gz")
        (tmp_path / "labels.yaml").write_text(
            "{dataset: mine, modality: ct, region: abdomen, labels: {1: organ}, window: soft tissue}"
        )
        seen = read_all(tmp_path)
        shown = [bool(ball(image, "spleen").any()) for image in images]
        assert len(seen) == sum(shown) > 0 and seen[0].info.image_id.startswith("ct_00--mine--p01--z_")

    @pytest.mark.parametrize("fault", ["gap", "two", "one", "none"])
    def test_anything_else_is_refused_in_a_line(self, tmp_path, fault):
        if fault == "none":
            (tmp_path / "a.txt").touch()
        else:
            series(tmp_path, count=1 if fault == "one" else 5)
        if fault == "gap":
            (tmp_path / "8.dcm").unlink()
        if fault == "two":
            series(tmp_path, count=2)
        with pytest.raises(ValueError, match=r"DICOM series|evenly apart|where they lie") as caught:
            read_series(tmp_path)
        assert "\n" not in str(caught.value)


def test_nothing_that_is_published_names_the_patient(tmp_path):
    source = tmp_path / "source"
    images = []
    for number in range(4):
        changed = {"PatientID": f"{NUMBER}-{number}", "AccessionNumber": "ACC-99", "StudyDate": "20040119"}
        images += (made := series(source / f"s{number}", count=3, seed=number, **changed))
        segmentation(made).save_as(source / f"seg{number}.dcm")
    before = fingerprint(source)
    manifest = build(source, tmp_path / "out", BuildSettings(seed=1), workers=1)
    assert manifest["source"]["kind"] == "DICOM" and manifest["images"]["ct"]["dicom"]["train"]
    tables = []
    for path in sorted((tmp_path / "out").rglob("*.parquet")):
        tables.append(json.dumps(pq.read_table(path).drop_columns("image").to_pylist()))
    card = (tmp_path / "out" / "README.md").read_text()
    published = "".join(tables) + card + json.dumps(manifest)
    uids = [getattr(i, f"{kind}InstanceUID") for i in images for kind in ("SOP", "Series", "Study")]
    for secret in (NAME, "Doe", NUMBER, BORN, "ACC-99", "20040119", *uids):
        assert secret not in published
        for path in (tmp_path / "out").rglob("*.sqlite"):
            assert str(secret).encode() not in path.read_bytes()
    assert "no name, number or date of a patient" in card
    (source / "s0" / "9.dcm").unlink()
    assert fingerprint(source) != before
