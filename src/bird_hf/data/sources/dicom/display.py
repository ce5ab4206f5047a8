"""The display of DICOM images: grey ranges, windows, inversion, and one image of a file as it is shown to a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....hub.pixels import stretch_to_uint8
from ...records import Modality
from ...volumes import mr_window, to_uint8, window_range
from ..faults import Drop, FaultyImageError
from .files import quiet, read_header, require_pydicom
from .images import DicomImage, known_modality, read_images, read_values
from .planes import Plane
from .windows import Window, default_ct_range, window_of, windows_of

_PHYSICAL = (Modality.CT, Modality.PET)  # values have a unit, and larger ones are displayed brighter
_GREY_LEVELS = 255


@dataclass(frozen=True)
class ShownDicom:
    """One image of a DICOM file as it is displayed. It has no field of a patient.

    pixels: (H, W) or (H, W, 3) uint8. modality: None if the header has none of the imaging modalities. frame: from 0,
    of `frames`. spacing_mm: (width, height) of a pixel of `pixels`; None if it is unknown. window: (centre, width) in
    the values of the file; None for colours and for a lookup table. plane: of slices, see `Plane.stored_of_displayed`.
    """

    pixels: np.ndarray
    modality: Modality | None
    frame: int
    frames: int
    spacing_mm: tuple[float, float] | None
    window: Window | None
    plane: Plane | None


def open_dicom_image(path: Path, frame: int | None = None, window: Window | None = None) -> ShownDicom:
    """Open one image of a DICOM file: slices in radiological convention, other images as they are stored.

    frame: from 0; by default the middle one. window: (centre, width); by default that of a build for slices, and that
    of the header for other images. Raises ValueError, in one line, if the file cannot be displayed.
    """
    require_pydicom(path)
    if window is not None and not (np.isfinite(window).all() and window[1] > 0):
        raise ValueError(f"window {window}: give a centre and a width above 0")
    try:
        header = read_header(path, Drop.UNREADABLE_IMAGE, ("Modality",))
        images = read_images(path.parent, path.name, Modality.X_RAY, burned_in=True)
        if not images:
            raise ValueError(f"{path} is a DICOM object without an image; give an image")
        if frame is not None and not 0 <= frame < len(images):
            raise ValueError(f"{path} has the frames 0 to {len(images) - 1}, not {frame}")
        number = len(images) // 2 if frame is None else frame
        grey = window_range(*window) if window else _default_range(images, number, path)
        pixels, used = _shown(images[number], path, grey)
    except FaultyImageError as error:
        raise ValueError(f"{path} cannot be displayed ({error}); give another file") from error
    image = images[number]
    spacing: tuple[float, float] | None
    if image.plane is not None:
        spacing = image.plane.displayed_spacing(pixels.shape)
    else:
        spacing = (image.spacing_mm[1], image.spacing_mm[0]) if image.spacing_mm else None
    modality = known_modality(header)
    return ShownDicom(pixels, modality, number, len(images), spacing, used, image.plane)


def _default_range(images: Sequence[DicomImage], number: int, path: Path) -> tuple[float, float] | None:
    """The grey range of a slice as in a build; None for other images, whose headers give it."""
    image = images[number]
    if image.plane is None:
        return None
    if image.modality is Modality.CT:
        return default_ct_range(image.body_part)
    return grey_range(path.parent, images)


def grey_range(root: Path, images: Sequence[DicomImage]) -> tuple[float, float] | None:
    """The values a series displays as black and as white, from up to nine slices; None if none can be read."""
    samples = []
    for image in images[:: -(-len(images) // 9)]:
        try:
            values = read_values(root / image.path, image.frame, image.rescale)[1]
        except FaultyImageError:
            continue
        samples.append(values.ravel()[:: max(1, values.size // 100_000)])
    return mr_window(np.concatenate(samples)) if samples else None


def pixels_of(image: DicomImage, path: Path, grey: tuple[float, float] | None) -> np.ndarray:
    """The displayed image, uint8: slices in radiological convention, other images as they are stored.

    grey: the values displayed as black and as white; None selects percentiles for slices, and for other images what
    the header says. Raises FaultyImageError if the image cannot be read.
    """
    return _shown(image, path, grey)[0]


@quiet()
def _shown(
    image: DicomImage, path: Path, grey: tuple[float, float] | None
) -> tuple[np.ndarray, Window | None]:
    """The displayed image and the window that was used."""
    header, values = read_values(path, image.frame, image.rescale)
    try:
        if values.ndim == 3:
            return _displayed_rgb(values, image.plane), None
        window: Window | None
        if image.plane is not None:
            grey = grey or mr_window(values)
            values = image.plane.displayed(values, is_mask=False)
        if grey is not None:
            pixels, window = to_uint8(values, *grey), window_of(*grey)
        else:
            windowed, window = _windowed(values, header, image.window)
            pixels = stretch_to_uint8(windowed)
        return 255 - pixels if _is_inverted(header, image.modality) else pixels, window
    except Exception as error:
        raise FaultyImageError(Drop.UNREADABLE_IMAGE, type(error).__name__) from error


def _is_inverted(header: Any, modality: Modality) -> bool:
    """Whether small values are bright. MONOCHROME1 and an inverse presentation say the same, so both invert once."""
    if modality in _PHYSICAL:
        return False
    inverse = str(header.get("PresentationLUTShape") or "").upper() == "INVERSE"
    return inverse or header.PhotometricInterpretation == "MONOCHROME1"


def _windowed(values: np.ndarray, header: Any, window: Window | None) -> tuple[np.ndarray, Window | None]:
    """Grey values (H, W) as the header displays them, and the window: its lookup table, else its first usable window.

    Where these cannot be applied, or leave no contrast in an image that has some, the values stay as they are.
    """
    from pydicom.pixels import apply_windowing

    whole: np.ndarray = np.rint(values).astype(np.int64)
    if np.ptp(whole) < _GREY_LEVELS and not np.array_equal(whole, values):
        whole = values  # rounding would leave a few grey levels only
    looked_up = _looked_up(np.rint(values).astype(np.int64), header)
    if looked_up is not None and np.ptp(looked_up) > 0:
        return looked_up, None
    for centre, width in [window] if window else windows_of(header):
        header.WindowCenter, header.WindowWidth = centre, width
        shown = apply_windowing(whole, header)
        if np.ptp(shown) > 0:
            return shown, (centre, width)
    low, high = float(whole.min()), float(whole.max())
    return whole, window_of(low, high)


def _looked_up(values: np.ndarray, header: Any) -> np.ndarray | None:
    """Whole values through the header's lookup table; None if there is none that can be used."""
    from pydicom.pixels import apply_voi

    if not header.get("VOILUTSequence"):
        return None
    try:
        table = header.VOILUTSequence[0]
        entries, start, bits = (int(number) for number in table.LUTDescriptor)
        # pydicom keeps indices in the type of the entries, where those above 255 would not fit.
        table.LUTDescriptor = [entries, start, 16 if bits == 8 else bits]
        return apply_voi(values, header)
    except Exception:  # elements are decoded when they are accessed
        return None


def _displayed_rgb(values: np.ndarray, plane: Plane | None) -> np.ndarray:
    if plane is None:
        return values
    channels = [plane.displayed(values[..., channel], is_mask=False) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
