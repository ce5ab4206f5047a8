"""DICOM files that are damaged, too large or compressed are refused without quoting them."""

from __future__ import annotations

import pytest
from pydicom.pixels import get_decoder
from pydicom.uid import RLELossless

from bird_hf.data.sources.faults import Drop, FaultyImageError
from bird_hf.data.sources.open import open_source

from .example_files import listed, segmentation, series


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
