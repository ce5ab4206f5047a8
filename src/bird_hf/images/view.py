"""Which picture of a file is shown, and where its pixels lie: in millimetres, and among the voxels of the file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..data.records import Axis
from ..hub.boxes import Box

_ROUNDING = 1e-6  # of a voxel: what the arithmetic of floats may add to an edge


@dataclass(frozen=True)
class View:
    """Which picture of a file to show; by default the middle axial slice, the middle frame, and a stated window.

    axis: the plane of a volume's slice: axial, coronal or sagittal. index: the slice, counted from 0 at the patient's
    left, back or feet. frame: the frame of a DICOM file, or the channel of a volume that has a fourth axis, counted
    from 0. window: a name of `volumes.CT_WINDOWS`, or (level, width) in the values of the file. Raises ValueError if
    the axis or the window is none.
    """

    axis: Axis | str | None = None
    index: int | None = None
    frame: int | None = None
    window: str | tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.axis is not None:
            object.__setattr__(self, "axis", _plane(self.axis))
        if self.window is not None and not isinstance(self.window, str):
            _check_window(self.window)

    @property
    def has_slice(self) -> bool:
        """Whether it asks for a slice of a volume."""
        return self.axis is not None or self.index is not None


def read_view(slice_text: str | None = None, frame: int | None = None, window: str | None = None) -> View:
    """The view of the options `--slice axial:72`, `--frame 3` and `--window lung` or `--window 40,400`.

    A slice is AXIS:NUMBER, a number alone (axial), or an axis alone (its middle slice). Raises ValueError if a text is
    none of these.
    """
    axis, index = _read_slice(slice_text) if slice_text is not None else (None, None)
    return View(axis, index, frame, _read_window(window) if window is not None else None)


def _read_slice(text: str) -> tuple[str | None, int | None]:
    axis, colon, number = text.strip().rpartition(":")
    try:
        if colon:
            return _plane(axis), int(number)
        return (None, int(number)) if number.lstrip("-").isdecimal() else (_plane(number), None)
    except ValueError:
        raise ValueError(
            f"--slice {text!r} is not AXIS:NUMBER, such as axial:72; the axes are axial, coronal and sagittal, "
            "and numbers count from 0"
        ) from None


def _read_window(text: str) -> str | tuple[float, float]:
    parts = text.split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        return text.strip()
    if len(numbers) != 2:
        raise ValueError(
            f"--window {text!r} is not a window; give a name such as lung, or LEVEL,WIDTH such as 40,400"
        )
    return numbers[0], numbers[1]


def _plane(axis: str) -> Axis:
    plane = Axis(axis)
    if plane is Axis.PLANAR:
        raise ValueError(f"{axis!r} is not a plane of a volume; use axial, coronal or sagittal")
    return plane


def _check_window(window: Sequence[float]) -> None:
    if len(window) != 2 or not all(map(math.isfinite, window)) or window[1] <= 0:
        shown = ",".join(f"{value:g}" for value in window)
        raise ValueError(f"window {shown} is not LEVEL,WIDTH: two numbers, and the width is above 0")


@dataclass(frozen=True, eq=False)
class Shown:
    """What of a file is shown, and where its pixels lie.

    note: the same in words, without anything that the file says about a patient; "" for a plain upright picture.
    axis: the plane of a volume's slice, and index: its number of `slices`, counted from 0; None if it is not a volume.
    frame: the number of `frames`, if the file has several. window: the (level, width) of grey values. pixel_mm: width
    and height of a pixel of the picture, if it is known. voxel_of_pixel: (4, 4) pixels (x, y, z, 1) of the picture ->
    voxel indices (i, j, k, 1) in the order in which the file stores them, whole indices being the centres of voxels; z
    is in slices, 0 on this slice. None if the file has no voxels.
    """

    note: str = ""
    axis: Axis | None = None
    index: int | None = None
    slices: int = 1
    frame: int | None = None
    frames: int = 1
    window: tuple[float, float] | None = None
    pixel_mm: tuple[float, float] | None = None
    voxel_of_pixel: np.ndarray | None = None

    def box_mm(self, box_px: Sequence[float]) -> tuple[float, float, float, float] | None:
        """A box of pixels (x1, y1, x2, y2) in millimetres from the picture's upper left; None without a spacing."""
        if self.pixel_mm is None:
            return None
        (width, height), (x1, y1, x2, y2) = self.pixel_mm, box_px
        return x1 * width, y1 * height, x2 * width, y2 * height

    def box_voxel(self, box_px: Sequence[float]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The first and the last + 1 voxel (i, j, k) of a box of pixels, in the file's own order; None if no volume.

        A voxel belongs to the box if its centre is inside; there is at least one along each axis.
        """
        if self.voxel_of_pixel is None:
            return None
        x1, y1, x2, y2 = box_px
        corners = np.array([[x1, y1, -0.5, 1], [x2, y2, 0.5, 1]])
        edges = (corners @ self.voxel_of_pixel.T)[:, :3] + 0.5  # voxel i is from i to i + 1
        low, high = edges.min(axis=0), edges.max(axis=0)
        first = np.ceil(low - 0.5 - _ROUNDING).astype(int)
        end = np.ceil(high - 0.5 - _ROUNDING).astype(int)
        narrow = end <= first
        first[narrow] = np.floor((low + high) / 2)[narrow].astype(int)
        end[narrow] = first[narrow] + 1
        return tuple(first.tolist()), tuple(end.tolist())

    def to_json(self) -> dict[str, Any]:
        """The facts as `bird ask --json` shows them: what is known of note, axis, slice, frame, window, pixel_mm."""
        facts = {
            "note": self.note,
            "axis": None if self.axis is None else str(self.axis),
            "slice": self.index,
            "slices": None if self.index is None else self.slices,
            "frame": self.frame,
            "frames": None if self.frame is None else self.frames,
            "window": None if self.window is None else list(self.window),
            "pixel_mm": None if self.pixel_mm is None else list(self.pixel_mm),
        }
        return {key: value for key, value in facts.items() if value is not None}

    def boxes_json(self, boxes: Sequence[Box], image_wh: tuple[int, int], prefix: str = "") -> dict[str, Any]:
        """Boxes of the picture as "boxes_mm" and "boxes_voxel", each if it is known; `prefix` precedes the keys."""
        pixels = [box.to_pixels(image_wh) for box in boxes]
        shown: dict[str, Any] = {}
        if self.pixel_mm is not None:
            shown[f"{prefix}boxes_mm"] = [list(self.box_mm(each) or ()) for each in pixels]
        if self.voxel_of_pixel is not None:
            shown[f"{prefix}boxes_voxel"] = [
                [list(corner) for corner in self.box_voxel(each) or ()] for each in pixels
            ]
        return shown


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """An image that is ready to be asked about. picture: upright 8-bit RGB. shown: what of the file it is."""

    picture: Image.Image
    shown: Shown
