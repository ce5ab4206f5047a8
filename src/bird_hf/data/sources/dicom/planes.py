"""The planes of DICOM images in the patient, and their display.

DICOM coordinates are in millimetres to the patient's left, back and head (LPS); those of a `Volume` are to the right,
front and head (RAS).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...records import Axis
from ...volumes import VOXEL_AXIS, canonical, label_slice_at, slice_at

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Plane:
    """The plane of an image in the patient's LPS coordinates, in millimetres."""

    origin: np.ndarray  # (3,) centre of the first pixel
    column_step: np.ndarray  # (3,) from a pixel to the one in the next column
    row_step: np.ndarray  # (3,) from a pixel to the one in the next row
    shape: tuple[int, int]  # rows, columns

    @classmethod
    def of(cls, position: Any, orientation: Any, spacing: Any, shape: tuple[int, int]) -> Plane:
        """The plane of DICOM's position, orientation and spacing. Raises ValueError if they do not define one.

        spacing: between rows, then between columns, as Pixel Spacing has it.
        """
        directions = np.array(orientation, float).reshape(2, 3)
        row_mm, column_mm = np.array(spacing, float)
        plane = cls(np.array(position, float), directions[0] * column_mm, directions[1] * row_mm, shape)
        square = np.allclose(directions @ directions.T, np.eye(2), atol=0.01)
        if plane.origin.shape != (3,) or not square or not min(row_mm, column_mm) > 0:
            raise ValueError("position, orientation and spacing do not define a plane")
        if not np.isfinite(plane.corners).all():
            raise ValueError("the plane is not finite")
        return plane

    @property
    def corners(self) -> np.ndarray:
        """(9,) the centres of the first pixel, the last pixel of the first row and the last of the first column."""
        across, down = self.column_step * (self.shape[1] - 1), self.row_step * (self.shape[0] - 1)
        return np.concatenate([self.origin, self.origin + across, self.origin + down])

    @property
    def half_pixel(self) -> float:
        """Half of the smaller side of a pixel, in millimetres."""
        return float(min(np.linalg.norm(self.column_step), np.linalg.norm(self.row_step))) / 2

    @property
    def normal(self) -> np.ndarray:
        """(3,) the unit vector across the plane."""
        normal = np.cross(self.column_step, self.row_step)
        return normal / np.linalg.norm(normal)

    def affine(self, slice_step: np.ndarray | None = None) -> np.ndarray:
        """(4, 4) (column, row, slice) -> RAS+ millimetres. Without `slice_step`, slices are 1 mm apart."""
        step = self.normal if slice_step is None else slice_step
        affine = np.eye(4)
        affine[:3] = np.stack([self.column_step, self.row_step, step, self.origin], axis=1)
        return _LPS_TO_RAS @ affine

    def axis_and_height(self) -> tuple[Axis, float]:
        """The nearest plane of the body, and the position (mm) along its normal: to the right, front or head."""
        import nibabel as nib

        affine = self.affine()
        number = int(nib.orientations.io_orientation(affine)[2, 0])
        normal = affine[:3, 2] * np.sign(affine[number, 2])
        axis = next(axis for axis, voxel_axis in VOXEL_AXIS.items() if voxel_axis == number)
        return axis, float(normal @ affine[:3, 3])

    def displayed(self, values: np.ndarray, is_mask: bool) -> np.ndarray:
        """Values (rows, columns) of this plane in radiological convention, as `volumes.slice_at` displays slices."""
        volume = canonical(values.T[:, :, None], self.affine())
        axis = self.axis_and_height()[0]
        return label_slice_at(volume, axis, 0) if is_mask else slice_at(volume, axis, 0)

    def stored_of_displayed(self, displayed_shape: tuple[int, ...]) -> np.ndarray:
        """The affine (2, 3) from a point (x, y, 1) of the displayed image to (column, row) of the stored one.

        x and y are in displayed pixels with corners at whole numbers, as the pixels of a box. Columns and rows have the
        centres of pixels at whole numbers, so `origin + column * column_step + row * row_step` is the point in the
        patient. displayed_shape: (height, width) of what `displayed` returns.
        """
        import nibabel as nib

        size = (self.shape[1], self.shape[0], 1)
        turn = nib.orientations.io_orientation(self.affine())
        upright = nib.orientations.inv_ornt_aff(turn, size)  # RAS+ indices -> (column, row, slice)
        lengths = {int(axis): size[i] for i, axis in enumerate(turn[:, 0])}
        normal = int(turn[2, 0])
        shown = np.zeros((4, 3))  # (x, y, 1) -> RAS+ indices
        shown[3, 2] = 1
        in_plane = [axis for axis in range(3) if axis != normal]
        for i, (axis, pixels) in enumerate(zip(in_plane, displayed_shape[1::-1], strict=True)):
            shown[axis, i] = -lengths[axis] / pixels  # both axes of a display are reversed
            shown[axis, 2] = lengths[axis] - 0.5
        return (upright @ shown)[:2]

    def displayed_spacing(self, displayed_shape: tuple[int, ...]) -> tuple[float, float]:
        """(width, height) of a pixel of the displayed image in millimetres."""
        steps = self.stored_of_displayed(displayed_shape)[:, :2]
        moves = steps[0][:, None] * self.column_step + steps[1][:, None] * self.row_step  # (2, 3)
        width, height = np.linalg.norm(moves, axis=1)
        return float(width), float(height)

    def coordinates(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points (N, 3) in LPS millimetres -> (N, 2) column and row, and (N,) the distance along the normal.

        The centres of pixels are at whole columns and rows. The points are projected onto the plane at a right angle.
        """
        steps = np.stack([self.column_step, self.row_step, self.normal], axis=1)
        found = np.linalg.solve(steps, (points - self.origin).T).T
        return found[:, :2], found[:, 2]
