"""DICOM files that are damaged, too large or compressed are refused without quoting them."""

from __future__ import annotations

import io
import struct

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.pixels import get_decoder
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from bird_hf.data.sources.dicom import files
from bird_hf.data.sources.dicom.display import open_dicom_image
from bird_hf.data.sources.dicom.files import is_dicom
from bird_hf.data.sources.dicom.images import read_series, read_values
from bird_hf.data.sources.dicom.source import DicomFolder
from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.data.sources.open import open_source

from .example_files import assert_sides, listed, read_all, segmentation, series


def test_a_compression_without_its_decoder_names_the_package(tmp_path, monkeypatch):
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
def test_a_segmentation_that_announces_too_much_is_counted(tmp_path, tag, value):
    made = segmentation(series(tmp_path))
    setattr(made, tag, value)
    made.save_as(tmp_path / "seg.dcm")
    candidates, left_out = listed(tmp_path)
    source = open_source(tmp_path)
    for candidate in candidates:
        with pytest.raises(FaultyImageError, match="unreadable_mask"):
            source.read(candidate)
    assert candidates or left_out


def test_the_error_of_a_truncated_image_does_not_quote_it(tmp_path):
    segmentation(series(tmp_path)).save_as(tmp_path / "seg.dcm")
    path = tmp_path / "9.dcm"
    path.write_bytes(path.read_bytes()[:-900])
    source = open_source(tmp_path)
    faulty = next(item for item in listed(tmp_path)[0] if item.where["image"] == "9.dcm")
    with pytest.raises(FaultyImageError, match=r"^unreadable_image: \w+$"):
        source.read(faulty)


def dataset_start(content: bytes) -> int:
    """Where the dataset begins behind the file meta group, whose first element holds its length."""
    return 128 + 4 + 12 + struct.unpack_from("<I", content, 140)[0]


@pytest.mark.parametrize("kind", ["with file meta", "explicit", "implicit"])
def test_files_without_a_preamble_are_read(tmp_path, kind):
    images = series(tmp_path)
    segmentation(images).save_as(tmp_path / "seg.dcm")
    wanted = {path.name: read_values(path)[1] for path in sorted(tmp_path.glob("[0-9].dcm"))}
    for image, path in zip(images, sorted(tmp_path.glob("[0-9].dcm"), reverse=True), strict=True):
        if kind == "implicit":
            image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            image.save_as(path, implicit_vr=True, little_endian=True)
        content = path.read_bytes()
        path.write_bytes(content[132 if kind == "with file meta" else dataset_start(content) :])
        assert content[128:132] == b"DICM" and path.read_bytes()[128:132] != b"DICM"
        assert np.array_equal(read_values(path)[1], wanted[path.name])
    seen = read_all(tmp_path)
    assert len(seen) == 3
    assert_sides(next(image for image in seen if image.info.slice_index == 1))


def element(tag: tuple[int, int], vr: bytes, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HH2sH", *tag, vr, len(value) if length is None else length) + value


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (element((8, 5), b"CS", b"ISO_IR 100") + element((8, 8), b"CS", b"ORIGINAL"), True),
        (element((8, 5), b"CS", b"ISO_IR 100"), False),  # one element is no evidence
        (element((8, 8), b"CS", b"ORIGINAL") + element((8, 5), b"CS", b"ISO_IR 100"), False),  # not in order
        (element((8, 5), b"QQ", b"ISO_IR 100") + element((8, 8), b"CS", b"ORIGINAL"), False),  # no such type
        (element((8, 5), b"CS", b"", 60_000) + element((8, 8), b"CS", b"ORIGINAL"), False),  # too long
        (element((9, 5), b"CS", b"ISO_IR 100") + element((9, 8), b"CS", b"ORIGINAL"), False),  # another group
        (b"", False),
        (bytes(400), False),
        (b"\x08\x00" * 200, False),
        (b"a text that goes on for a while\n" * 20, False),
    ],
)
def test_a_file_without_a_preamble_is_recognised_by_two_elements(tmp_path, content, expected):
    (tmp_path / "file").write_bytes(content)
    assert is_dicom(tmp_path / "file") is expected


def test_other_files_are_not_taken_for_dicom(tmp_path):
    path = tmp_path / "file"
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    contents = [np.random.default_rng(seed).bytes(300) for seed in range(300)]
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "TGA"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        contents.append(stream.getvalue())
    contents.append(nib.Nifti1Image(pixels[None].astype(np.int16), np.eye(4)).to_bytes())
    for content in contents:
        path.write_bytes(content)
        assert not is_dicom(path)


def test_without_pydicom_one_line_says_what_to_install(tmp_path, monkeypatch):
    series(tmp_path)
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    for opened in (DicomFolder, open_source, read_series, lambda folder: open_dicom_image(folder / "9.dcm")):
        with pytest.raises(ValueError, match=r'pip install -e ".\[medical\]"$') as caught:
            opened(tmp_path)
        assert "\n" not in str(caught.value)
