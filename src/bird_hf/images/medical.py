"""Shows slices of volumes and frames of DICOM files, through the readers of `bird data build`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..data.records import Axis, Modality
from ..data.sources.dicom.display import ShownDicom, open_dicom_image
from ..data.sources.dicom.files import is_dicom
from ..data.sources.volume_files import read_volume
from ..data.sources.volume_headers import read_volume_header
from ..data.volumes import (
    CT_WINDOWS,
    VOXEL_AXIS,
    Volume,
    ct_window,
    mr_window,
    slice_at,
    to_uint8,
    voxel_of_display,
    window_range,
)
from ..hub.pixels import MIN_SIDE_PX
from .view import OpenedImage, Shown, View

# The air around a body has about -1,000 HU in a CT; no other common volume has values this low.
_CT_AIR = -900
_CT_DEFAULT = "soft tissue"


def open_volume(path: Path, view: View) -> OpenedImage:
    """A slice of a NIfTI or NRRD file, or of a folder with one DICOM series, in radiological convention.

    By default the middle axial slice, and of a fourth axis the middle frame. Raises ValueError if the file cannot be
    read or has no such slice.
    """
    frame, frames = _channel(path, view.frame)
    volume = read_volume(path, frame)
    axis = Axis.AXIAL if view.axis is None else Axis(view.axis)
    count = volume.voxels.shape[VOXEL_AXIS[axis]]
    index = _chosen(view.index, count, f"{path}: {axis} slice")
    low, high, window = _display_range(path, volume, view.window)
    try:
        pixels = to_uint8(slice_at(volume, axis, index), low, high)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    height, width = pixels.shape
    if min(pixels.shape) < MIN_SIDE_PX:
        raise ValueError(
            f"{path}: {axis} slices are {width}x{height} pixels; sides must be at least {MIN_SIDE_PX}"
        )
    of_frames = "" if frame is None else f"frame {frame} of 0 to {frames - 1}, "
    shown = Shown(
        note=f"{of_frames}{axis} slice {index} of 0 to {count - 1}, {window}",
        axis=axis,
        index=index,
        slices=count,
        frame=frame,
        frames=frames,
        window=((low + high) / 2, high - low),
        pixel_mm=_pixel_mm(volume, axis, (width, height)),
        voxel_of_pixel=_voxel_of_pixel(volume, axis, index),
    )
    return OpenedImage(Image.fromarray(pixels).convert("RGB"), shown)


def _channel(path: Path, frame: int | None) -> tuple[int | None, int]:
    """The channel of a volume with a fourth axis, None without one, and how many there are."""
    channels = 1 if path.is_dir() else read_volume_header(path).channels
    if channels > 1:
        return _chosen(frame, channels, f"{path}: frame"), channels
    if frame is not None:
        raise ValueError(f"{path} is one volume; --frame is for files of several frames, use --slice")
    return None, 1


def _chosen(number: int | None, count: int, name: str) -> int:
    """The number of a slice or frame; the middle one by default. Raises ValueError if there is none."""
    if number is None:
        return count // 2
    if not 0 <= number < count:
        raise ValueError(f"{name} {number} is outside 0 to {count - 1}")
    return number


def _display_range(
    path: Path, volume: Volume, window: str | tuple[float, float] | None
) -> tuple[float, float, str]:
    """The values displayed as black and as white, and the window in words."""
    if window is None:
        return _default_range(path, volume)
    if isinstance(window, str):
        low, high = ct_window(window)
        if path.is_dir():
            _check_is_ct(_a_slice(path).modality, path)
        return low, high, _named(window)
    level, width = window
    return *window_range(level, width), _numbered(level, width)


def _default_range(path: Path, volume: Volume) -> tuple[float, float, str]:
    """The display of a volume without a given window; see `_display_range`."""
    if path.is_dir():
        of_file = _a_slice(path)
        if of_file.modality is Modality.CT and of_file.window is not None:
            level, width = of_file.window
            return *window_range(level, width), _numbered(level, width)
    elif (volume.voxels <= _CT_AIR).any():
        return *ct_window(
            _CT_DEFAULT
        ), f"{_named(_CT_DEFAULT)} because values below {_CT_AIR} are those of a CT"
    low, high = mr_window(volume.voxels)
    shown = _numbered((low + high) / 2, high - low)
    return low, high, f"{shown}: percentiles 0.5 to 99.5 of the foreground"


def _a_slice(folder: Path) -> ShownDicom:
    """A slice of the series in a folder, with the window that a build gives it."""
    return open_dicom_image(next(each for each in sorted(folder.iterdir()) if is_dicom(each)))


def _check_is_ct(modality: Modality | None, path: Path) -> None:
    """Raises ValueError if a named window, which is in HU, does not fit."""
    if modality is not Modality.CT:
        raise ValueError(f"{path} is not a CT; give --window as LEVEL,WIDTH in the values of the file")


def _numbered(level: float, width: float) -> str:
    return f"window level {level:g}, width {width:g}"


def _named(window: str) -> str:
    level, width = CT_WINDOWS[window]
    return f"window {window} (level {level:g}, width {width:g})"


def _pixel_mm(volume: Volume, axis: Axis, picture_wh: tuple[int, int]) -> tuple[float, float]:
    """Width and height of a pixel of a slice; the same but for the rounding of the picture's sides."""
    across, down = (i for i in range(3) if i != VOXEL_AXIS[axis])
    width, height = (volume.voxels.shape[i] * volume.spacing_mm[i] for i in (across, down))
    return width / picture_wh[0], height / picture_wh[1]


def _voxel_of_pixel(volume: Volume, axis: Axis, index: int) -> np.ndarray | None:
    if volume.file_affine is None:
        return None
    # Both affines order and reverse the same voxels, so the exact values are whole numbers.
    to_file = np.rint(np.linalg.inv(volume.file_affine) @ volume.affine)
    return to_file @ voxel_of_display(volume, axis, index)


def open_dicom(path: Path, view: View) -> OpenedImage:
    """A frame of a DICOM file, slices in radiological convention; by default the middle frame.

    Raises ValueError if the file cannot be displayed or has no such frame.
    """
    if view.has_slice:
        raise ValueError(
            f"{path} is a DICOM file; --slice is for volumes, give the folder of its series or use --frame"
        )
    named = isinstance(view.window, str)
    shown = open_dicom_image(path, view.frame, _level_width(view.window))
    if view.window is not None and shown.pixels.ndim == 3:
        raise ValueError(f"{path} is in colour; --window is for grey values, leave it out")
    if named:
        _check_is_ct(shown.modality, path)
    parts = [f"frame {shown.frame} of 0 to {shown.frames - 1}"] if shown.frames > 1 else []
    if shown.window is not None:
        level, width = shown.window
        parts.append(_named(str(view.window)) if named else _numbered(level, width))
    elif shown.pixels.ndim == 2:
        parts.append("grey values as the file's own lookup table shows them")
    if shown.plane is not None:
        parts.append("in radiological convention")
    facts = Shown(
        note=", ".join(parts) or "in the colours of the file",
        frame=shown.frame if shown.frames > 1 else None,
        frames=shown.frames,
        window=shown.window,
        pixel_mm=shown.spacing_mm,
        voxel_of_pixel=_stored_of_pixel(shown),
    )
    return OpenedImage(Image.fromarray(shown.pixels).convert("RGB"), facts)


def _level_width(window: str | tuple[float, float] | None) -> tuple[float, float] | None:
    if isinstance(window, str):
        ct_window(window)  # raises ValueError if there is none of this name
        return CT_WINDOWS[window]
    return window


def _stored_of_pixel(shown: ShownDicom) -> np.ndarray:
    """(4, 4) pixels (x, y, z, 1) of a displayed image -> (column, row, frame, 1) of the file, as `Shown` has it."""
    stored = np.eye(4)
    stored[:2, 3] = -0.5  # the centre of the first pixel
    if shown.plane is not None:
        stored[:2, [0, 1, 3]] = shown.plane.stored_of_displayed(shown.pixels.shape)
    stored[2, 3] = shown.frame
    return stored
