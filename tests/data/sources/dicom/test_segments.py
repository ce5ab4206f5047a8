"""DICOM segmentations: the right frame on the right image, and names for segments."""

from __future__ import annotations

import pydicom
import pytest
from pydicom.sr.codedict import codes

from bird_hf.data.sources.faults import Drop

from .example_files import SPLEEN, assert_sides, listed, read_all, segmentation, series


def test_frames_without_references_are_matched_by_their_planes(tmp_path):
    images = series(tmp_path)
    made = segmentation(images)
    del made.ReferencedSeriesSequence
    for frame in made.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence
    made.save_as(tmp_path / "seg.dcm")
    candidates, left_out = listed(tmp_path)
    assert (len(candidates), left_out) == (3, [])
    assert_sides(next(image for image in read_all(tmp_path) if image.info.slice_index == 1))


def test_of_several_series_only_the_segmented_one_is_taken(tmp_path):
    segmentation(series(tmp_path / "one")).save_as(tmp_path / "seg.dcm")
    series(tmp_path / "two")
    candidates, left_out = listed(tmp_path)
    assert (len(candidates), left_out) == (3, [Drop.NO_MASKS] * 3)
    assert len({item.info.case_id for item in candidates}) == 1


@pytest.mark.parametrize("named", [True, False])
def test_a_segmentation_off_its_images_drops_the_series(tmp_path, named):
    images = series(tmp_path)
    made = segmentation(images)
    for frame in made.PerFrameFunctionalGroupsSequence:
        at = frame.PlanePositionSequence[0]
        at.ImagePositionPatient = [v + 1.2 for v in at.ImagePositionPatient]
        if not named:
            del frame.DerivationImageSequence
    made.save_as(tmp_path / "seg.dcm")
    assert listed(tmp_path) == ([], [Drop.OFF_GRID] * 3)


def test_a_segmentation_without_images_is_counted(tmp_path):
    images = series(tmp_path / "gone")
    segmentation(images).save_as(tmp_path / "seg.dcm")
    for path in (tmp_path / "gone").iterdir():
        path.unlink()
    assert listed(tmp_path) == ([], [Drop.MISSING_IMAGE])


def test_a_meaningless_label_is_replaced_by_the_property_type(tmp_path):
    images = series(tmp_path)
    side = pydicom.Dataset()
    side.CodeValue, side.CodingSchemeDesignator, side.CodeMeaning = "24028007", "SCT", "Right"
    made = segmentation(images, segments=(("Segment 1", codes.SCT.Kidney), SPLEEN))
    kind = made.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    kind.SegmentedPropertyTypeModifierCodeSequence = [side]
    made.save_as(tmp_path / "seg.dcm")
    candidates, _ = listed(tmp_path)
    assert {label for item in candidates for label in item.labels} == {"right kidney", "spleen"}


def test_a_segment_without_any_name_drops_its_images(tmp_path):
    images = series(tmp_path)
    made = segmentation(images, segments=(("Segment 1", codes.SCT.Kidney),))
    made.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning = "unknown"
    made.save_as(tmp_path / "seg.dcm")
    assert listed(tmp_path)[1] == [Drop.UNNAMED_CLASS] * 3
