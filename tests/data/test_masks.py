"""Masks become tight boxes, and an image with masks becomes its record."""

from __future__ import annotations

import numpy as np
import pytest

from bird_hf.data.masks import box_of, record_of
from bird_hf.data.records import Axis, ImageInfo, MaskedImage, Modality
from bird_hf.hub.boxes import Box

INFO = ImageInfo(
    "ct_00--d--case_1--x_0003", Modality.CT, "00", "abdomen", Axis.AXIAL, 3, "d", "case_1", False
)


def mask(rows: slice, columns: slice, shape: tuple[int, int] = (50, 100)) -> np.ndarray:
    drawn = np.zeros(shape, dtype=bool)
    drawn[rows, columns] = True
    return drawn


def masked(*masks: tuple[str, np.ndarray], absent: tuple[str, ...] = ()) -> MaskedImage:
    return MaskedImage(INFO, np.zeros((50, 100), np.uint8), masks, absent)


class TestBoxOf:
    def test_rows_are_y_columns_are_x_and_the_far_corner_is_outside(self):
        assert box_of(mask(slice(10, 20), slice(30, 80))) == Box(0.3, 0.2, 0.8, 0.4)

    @pytest.mark.parametrize(("y", "x"), [(0, 0), (0, 99), (49, 0), (49, 99), (25, 50)])
    def test_one_pixel_is_one_pixel_wide_and_high(self, y, x):
        box = box_of(mask(slice(y, y + 1), slice(x, x + 1)))
        assert box.to_pixels((100, 50)) == pytest.approx((x, y, x + 1, y + 1))

    def test_a_full_mask_is_the_whole_image(self):
        assert box_of(np.ones((50, 100), bool)) == Box(0, 0, 1, 1)

    def test_separate_pieces_share_one_box(self):
        both = mask(slice(0, 5), slice(0, 10)) | mask(slice(45, 50), slice(90, 100))
        assert box_of(both) == Box(0, 0, 1, 1)

    def test_it_is_tight(self):
        rng = np.random.default_rng(0)
        for _ in range(50):
            drawn = rng.random((20, 30)) < 0.01
            drawn[rng.integers(20), rng.integers(30)] = True
            x1, y1, x2, y2 = (round(value) for value in box_of(drawn).to_pixels((30, 20)))
            inside = drawn[y1:y2, x1:x2]
            assert inside.sum() == drawn.sum()
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()

    def test_an_empty_mask_has_no_box(self):
        with pytest.raises(ValueError, match=r"mask of shape \(50, 100\) is empty"):
            box_of(np.zeros((50, 100), bool))


class TestRecordOf:
    def test_boxes_areas_and_size(self):
        record = record_of(masked(("liver", mask(slice(0, 25), slice(0, 50)))))
        assert record.image_wh == (100, 50)
        assert record.info is INFO
        (liver,) = record.instances
        assert (liver.instance_id, liver.label, liver.box, liver.area) == (
            "liver_0",
            "liver",
            Box(0, 0, 0.5, 0.5),
            0.25,
        )

    def test_instances_of_a_label_are_numbered(self):
        one, two = mask(slice(0, 5), slice(0, 5)), mask(slice(9, 12), slice(9, 12))
        record = record_of(masked(("left cyst", one), ("liver", two), ("left cyst", two)))
        assert [item.instance_id for item in record.instances] == ["left_cyst_0", "liver_0", "left_cyst_1"]

    def test_absent_labels_come_last_without_a_box(self):
        record = record_of(
            masked(("liver", mask(slice(0, 5), slice(0, 5))), absent=("spleen", "left kidney"))
        )
        assert [item.label for item in record.present] == ["liver"]
        assert [(item.label, item.box, item.area, item.present) for item in record.absent] == [
            ("spleen", None, 0.0, False),
            ("left kidney", None, 0.0, False),
        ]

    def test_an_object_that_is_too_small_is_neither_present_nor_absent(self):
        small, big = mask(slice(0, 1), slice(0, 4)), mask(slice(0, 1), slice(0, 5))  # of 5000 pixels
        record = record_of(masked(("small", small), ("big", big)), min_area=0.001)
        assert [item.label for item in record.instances] == ["big"]

    def test_a_mask_of_another_size_is_refused_with_its_name(self):
        wrong = masked(("liver", np.ones((100, 50), bool)))
        with pytest.raises(
            ValueError, match=r"x_0003: the mask of 'liver' is \(100, 50\), the image \(50, 100\)"
        ):
            record_of(wrong)

    def test_a_colour_image_has_the_same_size(self):
        image = MaskedImage(INFO, np.zeros((50, 100, 3), np.uint8), (("a", np.ones((50, 100), bool)),), ())
        assert record_of(image).image_wh == (100, 50)
