"""A box means one thing everywhere: frames convert there and back, and a bad box says what is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bird_hf.hub.boxes import THOUSAND, Box

settings.register_profile("no deadline", deadline=None)  # the machine may be busy
settings.load_profile("no deadline")


@st.composite
def intervals(draw: st.DrawFn, least: float = 0.0) -> tuple[float, float]:
    """An interval of the unit line, often a sliver and often at an edge."""
    near = draw(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.0005, 0.4995, 0.9995, 1 - 1e-9])))
    size = draw(st.one_of(st.floats(1e-9, 1), st.sampled_from([1e-9, 1e-6, 0.0004, 0.0005, 0.001])))
    near, far = (near, near + size) if near + size <= 1 else (max(0.0, 1 - size), 1.0)
    return (near, far) if far - near > least else (0.0, 1.0)


@st.composite
def boxes(draw: st.DrawFn, least: float = 0.0) -> Box:
    (x1, x2), (y1, y2) = draw(intervals(least)), draw(intervals(least))
    return Box(x1, y1, x2, y2)


@st.composite
def grid_intervals(draw: st.DrawFn) -> tuple[int, int]:
    near = draw(st.integers(0, THOUSAND - 1))
    return near, draw(st.integers(near + 1, THOUSAND))


class TestThousandths:
    @given(grid_intervals(), grid_intervals())
    def test_every_grid_box_comes_back_as_it_was(self, xs, ys):
        grid = (xs[0], ys[0], xs[1], ys[1])
        assert Box.from_thousandths(grid).to_thousandths() == grid

    def test_every_narrow_grid_box_comes_back_as_it_was(self):
        for near in range(THOUSAND):
            grid = (near, 0, near + 1, THOUSAND)
            assert Box.from_thousandths(grid).to_thousandths() == grid

    @given(boxes())
    def test_a_quantised_box_is_in_range_and_never_empty(self, box):
        x1, y1, x2, y2 = box.to_thousandths()
        assert 0 <= x1 < x2 <= THOUSAND
        assert 0 <= y1 < y2 <= THOUSAND

    @given(boxes())
    def test_quantising_moves_an_edge_by_half_a_thousandth_unless_it_widens_a_sliver(self, box):
        quantised = box.to_thousandths()
        for low, high, near, far in zip(
            quantised[:2], quantised[2:], box.xyxy[:2], box.xyxy[2:], strict=True
        ):
            off = (abs(low - 1000 * near), abs(high - 1000 * far))
            widened = high - low == 1 and 1000 * (far - near) < 1
            assert max(off) <= (1.0 if widened else 0.5) + 1e-9

    @given(boxes())
    def test_quantising_twice_changes_nothing(self, box):
        once = box.to_thousandths()
        assert Box.from_thousandths(once).to_thousandths() == once

    @pytest.mark.parametrize(
        ("near", "far", "expected"),
        [
            (0.0, 1e-9, (0, 1)),  # a sliver at the near edge grows inward
            (1 - 1e-9, 1.0, (999, 1000)),  # and one at the far edge too
            (math.nextafter(1.0, 0.0), 1.0, (999, 1000)),  # the thinnest one there is
            (0.5001, 0.5003, (500, 501)),  # its middle lies above the grid line
            (0.4997, 0.4999, (499, 500)),  # ... and below
            (0.4995, 0.5004, (499, 500)),  # the middle decides: 499.95
            (0.4997, 0.5004, (500, 501)),  # the middle decides: 500.05
            (0.0, 1.0, (0, 1000)),  # edges, not bins
        ],
    )
    def test_an_interval_on_the_grid(self, near, far, expected):
        assert Box(near, 0, far, 1).to_thousandths()[0::2] == expected
        assert Box(0, near, 1, far).to_thousandths()[1::2] == expected

    @pytest.mark.parametrize(
        ("value", "expected"),
        [(0.0625, 63), (0.1875, 188), (0.3125, 313), (0.4375, 438), (0.5625, 563), (0.8125, 813)],
    )
    def test_halves_go_up_whatever_the_parity(self, value, expected):
        assert 1000 * value % 1 == 0.5  # exact in binary, so that rounding is all that is tested
        assert Box(value, 0, 1, 1).to_thousandths()[0] == expected
        assert Box(0, 0, value, 1).to_thousandths()[2] == expected

    def test_thousandths_are_plain_ints(self):
        assert all(type(number) is int for number in Box(0.1, 0.2, 0.3, 0.4).to_thousandths())

    def test_the_papers_kidney(self):
        assert Box.from_thousandths((281, 437, 399, 525)) == Box(0.281, 0.437, 0.399, 0.525)


class TestPixels:
    @given(boxes(least=1e-6), st.integers(1, 20_000), st.integers(1, 20_000))
    def test_pixels_come_back_as_they_were(self, box, width, height):
        back = Box.from_pixels(box.to_pixels((width, height)), (width, height))
        assert back.xyxy == pytest.approx(box.xyxy, abs=1e-9, rel=0)

    def test_width_scales_x_and_height_scales_y(self):
        box = Box.from_pixels((20, 10, 100, 40), (200, 50))
        assert box == Box(0.1, 0.2, 0.5, 0.8)
        assert box.to_pixels((400, 100)) == (40, 20, 200, 80)

    @given(st.integers(1, 4000), st.integers(1, 4000), st.data())
    def test_an_object_of_one_pixel_is_one_pixel_wide(self, width, height, data):
        x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
        box = Box.from_pixels((x, y, x + 1, y + 1), (width, height))
        assert box.width * width == pytest.approx(1)
        assert box.height * height == pytest.approx(1)

    def test_the_last_pixel_reaches_the_edge(self):
        assert Box.from_pixels((511, 511, 512, 512), (512, 512)).xyxy[2:] == (1.0, 1.0)

    def test_the_whole_image_is_the_unit_square(self):
        assert Box.from_pixels((0, 0, 640, 480), (640, 480)) == Box(0, 0, 1, 1)


class TestIoU:
    @given(boxes(least=1e-6), boxes(least=1e-6))
    def test_it_is_symmetric_and_a_share(self, a, b):
        assert a.iou(b) == pytest.approx(b.iou(a), abs=1e-12)
        assert 0 <= a.iou(b) <= 1 + 1e-9

    @given(boxes(least=1e-6))
    def test_a_box_overlaps_itself_wholly(self, box):
        assert box.iou(box) == pytest.approx(1)

    @pytest.mark.parametrize(
        ("other", "expected"),
        [
            (Box(0.5, 0.0, 1.0, 0.5), 0.0),  # shares an edge
            (Box(0.5, 0.5, 1.0, 1.0), 0.0),  # shares a corner
            (Box(0.6, 0.0, 1.0, 0.5), 0.0),  # lies apart in x
            (Box(0.0, 0.6, 0.5, 1.0), 0.0),  # lies apart in y
            (Box(0.25, 0.0, 0.75, 0.5), 1 / 3),  # half of each is shared
            (Box(0.0, 0.0, 0.25, 0.5), 0.5),  # lies inside, half as large
            (Box(0.0, 0.0, 1.0, 1.0), 0.25),  # contains it, four times as large
        ],
    )
    def test_known_overlaps(self, other, expected):
        assert Box(0, 0, 0.5, 0.5).iou(other) == pytest.approx(expected)


class TestShape:
    def test_width_height_area_and_centre(self):
        box = Box(0.25, 0.5, 0.75, 0.625)
        assert (box.width, box.height, box.area, box.centre) == (0.5, 0.125, 0.0625, (0.5, 0.5625))

    def test_it_is_a_value(self):
        assert len({Box(0, 0, 1, 1), Box(0.0, 0.0, 1.0, 1.0)}) == 1
        with pytest.raises(AttributeError):
            Box(0, 0, 1, 1).x1 = 0.5  # type: ignore[misc]

    @pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
    def test_numpy_scalars_become_python_floats(self, kind):
        box = Box(*np.array([0, 0, 1, 1], dtype=kind))
        assert box == Box(0, 0, 1, 1)
        assert all(type(value) is float for value in box.xyxy)

    def test_numpy_arrays_are_taken_in_every_frame(self):
        corners = np.array([100, 200, 300, 400])
        assert Box.from_pixels(corners, (1000, 1000)) == Box.from_thousandths(corners)


class TestWrongBoxes:
    @pytest.mark.parametrize(
        ("corners", "message"),
        [
            ((0.5, 0, 0.5, 1), "x1=0.5 and x2=0.5 break 0 <= x1 < x2 <= 1"),  # empty
            ((0, 0.75, 1, 0.25), "y1=0.75 and y2=0.25 break 0 <= y1 < y2 <= 1"),  # inverted
            ((-0.1, 0, 1, 1), "x1=-0.1"),  # outside, near
            ((0, 0, 1, 1.0000000000000002), "y2=1.0000000000000002"),  # outside, far, by a hair
            ((math.nan, 0, 1, 1), "x1=nan"),
            ((0, 0, 1, math.nan), "y2=nan"),
            ((0, -math.inf, 1, 1), "y1=-inf"),
            ((0, 0, math.inf, 1), "x2=inf"),
            ((281, 437, 399, 525), "x1=281.0"),  # thousandths given as the unit frame
        ],
    )
    def test_the_unit_frame(self, corners, message):
        with pytest.raises(ValueError) as caught:
            Box(*corners)
        assert message in str(caught.value)
        assert "unit frame, 0 to 1" in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("corners", "message"),
        [
            ((0, 0, 641, 480), "x2=641.0 break 0 <= x1 < x2 <= 640 (pixels of a 640x480 image)"),
            ((0, 0, 480, 640), "y2=640.0 break 0 <= y1 < y2 <= 480 (pixels of a 640x480 image)"),  # swapped
            ((10, 0, 10, 480), "x1=10.0 and x2=10.0"),
            ((math.nan, 0, 10, 480), "x1=nan"),
            ((0, 0, 10), "a box has four numbers x1, y1, x2, y2; got 3: (0.0, 0.0, 10.0)"),
            ((0, 0, 10, 10, 0.9), "got 5"),  # a detector's row with its score
        ],
    )
    def test_pixels(self, corners, message):
        with pytest.raises(ValueError) as caught:
            Box.from_pixels(corners, (640, 480))
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("corners", "message"),
        [
            ((0, 0, 1001, 1000), "x2=1001.0 break 0 <= x1 < x2 <= 1000 (thousandths, 0 to 1000)"),
            ((-1, 0, 1000, 1000), "x1=-1.0"),
            ((500, 0, 400, 1000), "x1=500.0 and x2=400.0"),
            ((0.281, 0.437, 0.399, 0.525), "thousandths are whole numbers"),  # the unit frame
            ((math.nan, 0, 1000, 1000), "x1=nan"),
            ((), "got 0"),
        ],
    )
    def test_thousandths(self, corners, message):
        with pytest.raises(ValueError) as caught:
            Box.from_thousandths(corners)
        assert message in str(caught.value)

    @pytest.mark.parametrize("image_wh", [(0, 10), (10, 0), (-1, 10), (10,), (480, 640, 3)])
    def test_an_image_size_that_is_none(self, image_wh):
        with pytest.raises(ValueError, match="image_wh is \\(width, height\\) in pixels"):
            Box.from_pixels((0, 0, 1, 1), image_wh)
        with pytest.raises(ValueError, match="image_wh is \\(width, height\\) in pixels"):
            Box(0, 0, 1, 1).to_pixels(image_wh)
