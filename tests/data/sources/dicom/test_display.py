"""One DICOM file as it is displayed: windows, inversion, the middle frame, and where a displayed pixel lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from bird_hf.data.records import Modality
from bird_hf.data.sources.dicom.display import open_dicom_image
from bird_hf.data.sources.dicom.planes import Plane

from .example_files import AXIAL, BORN, NAME, NUMBER, SHAPE, example, series

OBLIQUE = (0.96, 0.28, 0, -0.224, 0.768, 0.6)  # of unit length and at right angles


def projection(folder: Path, values: np.ndarray | None = None, **changed: Any) -> Path:
    """A radiograph of 16 x 20 pixels whose values are 0 to 319 unless others are given."""
    image = example("CT_small.dcm")
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelPaddingValue", "RescaleSlope"):
        if tag in image:
            delattr(image, tag)
    pixels = np.arange(320).reshape(16, 20) if values is None else values
    image.Modality, image.PatientName, image.PatientID = "DX", NAME, NUMBER
    image.Rows, image.Columns = pixels.shape
    image.PixelData = pixels.astype("<i2").tobytes()
    for tag, value in changed.items():
        setattr(image, tag, value)
    image.save_as(folder / "image.dcm")
    return folder / "image.dcm"


def lookup_table(entries: list[int], bits: int = 8) -> Dataset:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [len(entries), 0, bits], entries
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    return table


@pytest.mark.parametrize(
    ("changed", "inverted"),
    [
        ({}, False),
        ({"PresentationLUTShape": "IDENTITY"}, False),
        ({"PresentationLUTShape": "INVERSE"}, True),
        ({"PhotometricInterpretation": "MONOCHROME1"}, True),
        # MONOCHROME1 asks for INVERSE: together they invert once
        ({"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, True),
        ({"PresentationLUTShape": "INVERSE", "Modality": "CT"}, False),  # HU have a fixed display
    ],
)
def test_what_is_stored_inverted_is_displayed_upright_in_grey(tmp_path, changed, inverted):
    pixels = open_dicom_image(projection(tmp_path, **changed)).pixels
    assert (pixels[0, 0], pixels[-1, -1]) == ((255, 0) if inverted else (0, 255))


@pytest.mark.parametrize(
    ("changed", "window"),
    [
        ({"WindowCenter": 100, "WindowWidth": 50}, (100, 50)),
        ({"WindowCenter": [100, 200], "WindowWidth": [50, 60]}, (100, 50)),  # the first of several
        ({"WindowCenter": [100, 200], "WindowWidth": [0, 60]}, (200, 60)),  # the first usable one
        ({"WindowCenter": 100, "WindowWidth": 0}, (159.5, 319)),
        ({"WindowCenter": 100, "WindowWidth": -50}, (159.5, 319)),
        ({"WindowCenter": 100, "WindowWidth": "NaN"}, (159.5, 319)),
        ({"WindowCenter": "inf", "WindowWidth": 50}, (159.5, 319)),
        ({"WindowCenter": 100}, (159.5, 319)),  # no width
        ({"WindowCenter": 9000, "WindowWidth": 50}, (159.5, 319)),  # would be black
        ({"WindowCenter": -9000, "WindowWidth": 50}, (159.5, 319)),  # would be white
        ({"WindowCenter": 100, "WindowWidth": 0.5}, (159.5, 319)),  # below the least of LINEAR
        ({"WindowCenter": 100, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"}, (100, 0.5)),
        ({}, (159.5, 319)),
        # a damaged lookup table is passed over for the window
        ({"VOILUTSequence": [lookup_table([], 3)], "WindowCenter": 100, "WindowWidth": 50}, (100, 50)),
    ],
)
def test_the_window_of_the_header_or_the_range_of_the_values(tmp_path, changed, window):
    from pydicom import config

    with config.disable_value_validation():
        path = projection(tmp_path, **changed)
    shown = open_dicom_image(path)
    assert shown.window == pytest.approx(window)
    low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
    values = np.arange(320).reshape(16, 20)
    assert (shown.pixels[values < low - 1] == 0).all() and (shown.pixels[values > high + 1] == 255).all()
    assert shown.pixels.min() == 0 and shown.pixels.max() == 255


def test_a_lookup_table_is_used_and_a_flat_one_passed_over(tmp_path):
    rising = open_dicom_image(projection(tmp_path, VOILUTSequence=[lookup_table([0] * 160 + [200] * 160)]))
    assert rising.window is None and {*np.unique(rising.pixels)} == {0, 255}
    assert (rising.pixels[:8] == 0).all() and (rising.pixels[8:] == 255).all()
    flat = open_dicom_image(projection(tmp_path, VOILUTSequence=[lookup_table([7] * 320)]))
    assert flat.window == (159.5, 319) and len(np.unique(flat.pixels)) > 200


def test_small_units_keep_their_grey_levels(tmp_path):
    path = projection(tmp_path, RescaleSlope=0.001, RescaleIntercept=0)
    assert len(np.unique(open_dicom_image(path).pixels)) > 200


@pytest.mark.parametrize("window", [(0, 0), (0, -1), (float("nan"), 2), (0, float("inf"))])
def test_a_window_that_is_none_is_refused(tmp_path, window):
    with pytest.raises(ValueError, match="a width above 0"):
        open_dicom_image(projection(tmp_path), window=window)


def test_a_given_window_is_used_on_every_kind(tmp_path):
    shown = open_dicom_image(projection(tmp_path), window=(100, 50))
    assert (shown.pixels.ravel()[[75, 100, 125]] == [0, 128, 255]).all() and shown.window == (100, 50)
    series(tmp_path / "ct", count=1)
    shown = open_dicom_image(tmp_path / "ct" / "9.dcm", window=(100, 50))
    assert shown.pixels.max() == 128  # 100 HU, the brightest value, is the centre
    assert open_dicom_image(tmp_path / "ct" / "9.dcm").window == (40, 400)  # as builds show an abdomen


@pytest.mark.parametrize("orientation", [AXIAL, (0, 1, 0, 1, 0, 0), (0, 1, 0, 0, 0, -1), OBLIQUE])
@pytest.mark.parametrize("spacing", [[1, 1], [1.5, 0.75], [0.75, 1.5]])
def test_a_displayed_pixel_leads_back_to_its_place_in_the_patient(tmp_path, orientation, spacing):
    (image,) = series(tmp_path, count=1, orientation=orientation)
    row, column = 40, 11
    values = np.zeros(SHAPE)
    values[row, column] = 1000
    image.PixelSpacing, image.PixelData = spacing, values.astype("<i2").tobytes()
    image.save_as(tmp_path / "9.dcm")
    shown = open_dicom_image(tmp_path / "9.dcm", window=(0, 2000))
    weights = shown.pixels.astype(float) - shown.pixels.min()
    rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]]
    middle = [(grid * weights).sum() / weights.sum() + 0.5 for grid in (columns, rows)]
    assert shown.plane is not None
    at = shown.plane.stored_of_displayed(shown.pixels.shape) @ [*middle, 1]
    assert at == pytest.approx([column, row], abs=0.05)
    # Displayed pixels are squares of the smaller spacing, up to the rounding of the size.
    assert shown.spacing_mm == pytest.approx((min(spacing), min(spacing)), rel=0.01)


def test_points_in_the_patient_become_columns_rows_and_distances():
    plane = Plane.of((10, -20, 30), OBLIQUE, (1.5, 0.75), (61, 53))
    x, y = np.reshape(OBLIQUE, (2, 3))
    points = np.array([(10, -20, 30) + 0.75 * 7 * x + 1.5 * 4 * y + 2.5 * np.cross(x, y)])
    at, apart = plane.coordinates(points)
    assert at[0] == pytest.approx([7, 4]) and apart == pytest.approx([2.5])


def test_what_is_returned_and_raised_has_no_field_of_the_patient(tmp_path):
    path = projection(tmp_path, PatientBirthDate=BORN)
    texts = [repr(open_dicom_image(path))]
    path.write_bytes(path.read_bytes()[:-400])
    for name in ("rtplan.dcm", "test-SR.dcm", "rtdose.dcm"):
        (tmp_path / name).write_bytes(Path(get_testdata_file(name, download=False)).read_bytes())
    for name in ("image.dcm", "rtplan.dcm", "test-SR.dcm", "rtdose.dcm", "gone.dcm"):
        with pytest.raises(ValueError, match="give") as caught:
            open_dicom_image(tmp_path / name)
        texts.append(str(caught.value))
    assert not any("\n" in text for text in texts[1:])
    assert not any(secret in text for text in texts for secret in (NAME, NUMBER, BORN, "Doe", "1.2.840"))


def test_other_codes_have_no_modality(tmp_path):
    assert open_dicom_image(projection(tmp_path)).modality is Modality.X_RAY
    assert open_dicom_image(projection(tmp_path, Modality="OT")).modality is None


def test_frames_of_a_file(tmp_path):
    path = Path(get_testdata_file("SC_rgb_rle_2frame.dcm", download=False))
    shown = [open_dicom_image(path, number) for number in (0, 1)]
    assert [(each.frame, each.frames, each.plane) for each in shown] == [(0, 2, None), (1, 2, None)]
    assert open_dicom_image(path).frame == 1 and not np.array_equal(shown[0].pixels, shown[1].pixels)
    with pytest.raises(ValueError, match="the frames 0 to 1, not 2"):
        open_dicom_image(path, 2)
