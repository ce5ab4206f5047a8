"""Medical volumes with label maps -> display slices with masks.

A `Volume` is always in nibabel's RAS+ order: the first index grows towards the patient's right, the second
towards the front (anterior), the third towards the head (superior). The orientation is read from the file's
header and never guessed; an oblique volume is reoriented to its nearest axes, not resampled.

Slices are displayed in radiological convention: axial and coronal slices with the patient's right on the left of the
image, sagittal slices with the front on the left; the front (axial) or the head (coronal, sagittal) is up. In RAS+
one rule gives all three: reverse both in-plane axes and transpose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

from .records import Axis, ImageInfo, ImageName, MaskedImage, Modality
from .sides import other_side

MAX_VOXELS = 2**28  # 268 million: a 512 x 512 CT of 1,024 slices
MAX_SLICE_SIDE = 4096  # pixels; a larger slice means that the voxel spacing is wrong
MIN_SPACING_MM, MAX_SPACING_MM = 1e-5, 1e5  # the spacing of a header with other values is a mistake
SAME_GRID_VOXELS = 0.1  # grids that differ by less are the same, up to the rounding of their headers
SLICE_MIN_AREA = 0.001  # share of a slice; smaller objects are too small to ask about

VOXEL_AXIS = {Axis.SAGITTAL: 0, Axis.CORONAL: 1, Axis.AXIAL: 2}

CT_WINDOWS: Mapping[str, tuple[float, float]] = {  # name -> (level, width) in HU
    "lung": (-600.0, 1500.0),
    "mediastinum": (40.0, 400.0),
    "soft tissue": (40.0, 400.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "liver": (60.0, 160.0),
}
_LUNG_WORDS = {"lung", "lungs", "nodule", "lobe", "airway", "trachea"}


@dataclass(frozen=True)
class Volume:
    """voxels: (X, Y, Z), RAS+ (x to the patient's right, y to the front, z to the head), any real dtype.

    spacing_mm: (3,) size of a voxel along its own axes. affine: (4, 4) voxel index -> RAS+ millimetres; whole indices
    are the centres of voxels. file_affine: (4, 4) the same for the indices of the file, in the order in which it stores
    its voxels; so `inv(file_affine) @ affine` maps an index of `voxels` to an index of the file. None if there is none.
    """

    voxels: np.ndarray
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray
    file_affine: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class CaseInfo:
    """What is known about a labelled volume besides its voxels.

    labels: voxel value -> name. A label is one instance per slice even if it is in several pieces; a label in
    `lesions` is one instance per connected piece. exhaustive: every object with one of these names is in the label
    map, so a label without a pixel is absent. window: a name of CT_WINDOWS; None selects percentiles, as for MR.
    head_in_mni: the volume is a head with skull and an atlas in MNI space, so the skull can be removed.
    """

    dataset: str
    original: str
    labels: Mapping[int, str]
    modality: Modality
    modality_detail: str
    region: str
    axes: tuple[Axis, ...] = (Axis.AXIAL,)
    exhaustive: bool = False
    window: str | None = None
    lesions: tuple[str, ...] = ()
    head_in_mni: bool = False

    @property
    def case_id(self) -> str:
        """The unit of a split."""
        return f"{self.dataset}/{self.original}"

    def image_info(self, axis: Axis, index: int, suffix: str = "") -> ImageInfo:
        """The description of one slice. suffix: appended to the volume's name in the image id."""
        prefix = self.modality.prefix(self.modality_detail)
        return ImageInfo(
            image_id=ImageName(prefix, self.dataset, f"{self.original}{suffix}", axis, index).write(),
            modality=self.modality,
            modality_detail=self.modality_detail,
            region=self.region,
            axis=axis,
            slice_index=index,
            dataset=self.dataset,
            case_id=self.case_id,
            synthetic=False,
        )


def canonical(voxels: np.ndarray, affine: np.ndarray, source: str = "volume") -> Volume:
    """Reorient voxels (X, Y, Z) with any affine (4, 4) to RAS+ mm; nothing is resampled.

    Raises ValueError if the voxels are not 3-D and real, or the affine is degenerate. source: named in the message.
    """
    import nibabel as nib

    if voxels.ndim != 3 or 0 in voxels.shape:
        raise ValueError(f"{source}: shape {voxels.shape} is not a 3-D volume; save one volume per file")
    if voxels.dtype.kind not in "iufb":
        raise ValueError(f"{source}: voxels of type {voxels.dtype} are neither integers nor floats")
    with np.errstate(all="ignore"):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
    usual = np.isfinite(affine).all() and MIN_SPACING_MM < spacing.min() <= spacing.max() < MAX_SPACING_MM
    if not usual or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ValueError(
            f"{source}: the header's affine is degenerate, so the orientation is unknown; repair it"
        )
    turn = nib.orientations.io_orientation(affine)
    file_affine, affine = affine, affine @ nib.orientations.inv_ornt_aff(turn, voxels.shape)
    voxels = np.ascontiguousarray(nib.orientations.apply_orientation(voxels, turn))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return Volume(voxels, (float(spacing[0]), float(spacing[1]), float(spacing[2])), affine, file_affine)


def grid_distance(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> tuple[float, float]:
    """How far two grids of the same shape are apart, at the corner voxel where it is most: (voxels, millimetres).

    affine, other: (4, 4) voxel index -> RAS+ millimetres. Voxels are those of `affine`, along one of its axes. Both
    distances are NaN if an affine has a value that is not finite.
    """
    corners = np.array([*product(*((0, size - 1) for size in shape), (1,))], float).T  # (4, 8)
    with np.errstate(all="ignore"):
        apart_mm = ((other - affine) @ corners)[:3]
        apart_voxels = np.linalg.solve(affine[:3, :3], apart_mm)
        return float(np.abs(apart_voxels).max()), float(np.linalg.norm(apart_mm, axis=0).max())


def to_uint8(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values in any unit -> uint8 grey; `low` and below are black, `high` and above are white."""
    grey = (values.astype(np.float32) - low) * (255.0 / max(high - low, 1e-6))
    return np.clip(np.rint(np.nan_to_num(grey)), 0, 255).astype(np.uint8)


def ct_window(name: str) -> tuple[float, float]:
    """The HU values that a named window displays as black and as white. Raises ValueError for an unknown name."""
    if name not in CT_WINDOWS:
        raise ValueError(f"CT window {name!r} is unknown; choose one of {', '.join(CT_WINDOWS)}")
    return window_range(*CT_WINDOWS[name])


def window_range(level: float, width: float) -> tuple[float, float]:
    """The values that a window displays as black and as white."""
    return level - width / 2, level + width / 2


def suited_ct_window(region: str, labels: Iterable[str]) -> str:
    """The name of the CT window that suits a region and the labels of its objects."""
    if region in ("brain", "spine"):
        return {"brain": "brain", "spine": "bone"}[region]
    return "lung" if _LUNG_WORDS & {word for label in labels for word in label.split()} else "soft tissue"


def mr_window(voxels: np.ndarray, percentiles: tuple[float, float] = (0.5, 99.5)) -> tuple[float, float]:
    """The values that MR displays as black and as white: percentiles of all values above a tenth of the mean."""
    sample = voxels.ravel()[:: max(1, voxels.size // 1_000_000)].astype(np.float32)
    sample = sample[np.isfinite(sample)]
    foreground = sample[sample > 0.1 * sample.mean()] if sample.size else sample
    if foreground.size == 0 or foreground.min() == foreground.max():
        return 0.0, 1.0
    low, high = np.percentile(foreground, percentiles)
    return float(low), float(high)


def slice_at(volume: Volume, axis: Axis, index: int) -> np.ndarray:
    """A slice (H, W) of an image in radiological convention, with square pixels in mm, linearly interpolated."""
    return _display(volume, axis, index, nearest=False)


def label_slice_at(volume: Volume, axis: Axis, index: int) -> np.ndarray:
    """A slice (H, W) of a label map on the pixel grid of `slice_at`, by the nearest voxel, so values are kept."""
    return _display(volume, axis, index, nearest=True)


def voxel_of_display(volume: Volume, axis: Axis, index: int) -> np.ndarray:
    """The affine (4, 4) from display coordinates (x, y, z, 1) of a slice of `slice_at` to voxel indices (i, j, k, 1).

    x and y are in pixels of the displayed slice with corners at whole numbers (x right, y down), so that the slice
    covers 0..W and 0..H, as the pixels of a box. z is in voxels from the centre of the slice, 0 on the slice.
    Indices are those of `volume.voxels`, with the centres of voxels at whole numbers, as `volume.affine` takes them:
    the edges of voxel i are i - 0.5 and i + 0.5.
    """
    normal = _normal_of(volume, axis, index)
    width, height = (i for i in range(3) if i != normal)
    affine = np.zeros((4, 4))
    affine[3, 3] = affine[normal, 2] = 1.0
    affine[normal, 3] = index
    for column, (voxel_axis, pixels) in enumerate(
        zip((width, height), reversed(_display_shape(volume, normal)), strict=True)
    ):
        length = volume.voxels.shape[voxel_axis]
        affine[voxel_axis, column] = -length / pixels  # both axes of a display are reversed
        affine[voxel_axis, 3] = length - 0.5
    return affine


def _display(volume: Volume, axis: Axis, index: int, nearest: bool) -> np.ndarray:
    normal = _normal_of(volume, axis, index)
    plane = np.take(volume.voxels, index, axis=normal)[::-1, ::-1].T  # (H, W)
    height, width = _display_shape(volume, normal)
    return np.ascontiguousarray(_stretch(_stretch(plane, 0, height, nearest), 1, width, nearest))


def _normal_of(volume: Volume, axis: Axis, index: int) -> int:
    """The voxel axis across the slices of a plane. Raises ValueError if there is no such plane or slice."""
    if axis not in VOXEL_AXIS:
        raise ValueError(f"axis {axis!r} is not a plane of a volume; choose axial, coronal or sagittal")
    normal = VOXEL_AXIS[axis]
    if not 0 <= index < volume.voxels.shape[normal]:
        raise ValueError(f"{axis.value} slice {index} is outside 0..{volume.voxels.shape[normal] - 1}")
    return normal


def _display_shape(volume: Volume, normal: int) -> tuple[int, int]:
    """(height, width) of a displayed slice, whose pixels are squares of the smaller spacing.

    Raises ValueError if it is too large.
    """
    width, height = (i for i in range(3) if i != normal)
    pixel_mm = min(volume.spacing_mm[width], volume.spacing_mm[height])
    sides = [
        max(1, round(volume.voxels.shape[i] * (volume.spacing_mm[i] / pixel_mm))) for i in (height, width)
    ]
    if max(sides) > MAX_SLICE_SIDE:
        raise ValueError(
            f"a slice of {max(sides)} pixels is larger than {MAX_SLICE_SIDE}; check the voxel spacing"
        )
    return sides[0], sides[1]


def _stretch(plane: np.ndarray, axis: int, longer: int, nearest: bool) -> np.ndarray:
    """Stretch a (H, W) plane to `longer` pixels along one axis; the outer edges stay in place."""
    length = plane.shape[axis]
    if longer == length:
        return plane
    at = np.clip((np.arange(longer) + 0.5) * length / longer - 0.5, 0, length - 1)
    if nearest:
        return np.take(plane, np.floor(at + 0.5).astype(int), axis=axis)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, length - 1)
    weight = (at - below).reshape((-1, 1) if axis == 0 else (1, -1)).astype(np.float32)
    return np.take(plane, below, axis=axis) * (1 - weight) + np.take(plane, above, axis=axis) * weight


def masked_slices(
    case: CaseInfo,
    image: Volume,
    labels: Volume,
    axes: tuple[Axis, ...] = (),
    min_area: float = SLICE_MIN_AREA,
) -> Iterator[MaskedImage]:
    """Yield every slice of a labelled volume that is not blank, axis by axis (by default the axes of the case).

    Objects below `min_area` of the slice are neither present nor absent. Raises ValueError if the label map is not on
    the image's grid.
    """
    shape = image.voxels.shape
    if (
        shape != labels.voxels.shape
        or not grid_distance(image.affine, labels.affine, shape)[0] < SAME_GRID_VOXELS
    ):
        raise ValueError(f"{case.case_id}: image and labels are on different grids; resample the labels")
    low, high = display_range(case, image)
    for axis in axes or case.axes:
        for index in range(image.voxels.shape[VOXEL_AXIS[axis]]):
            pixels = to_uint8(slice_at(image, axis, index), low, high)
            if pixels.max() == pixels.min():
                continue
            masks, absent = objects_of(case, label_slice_at(labels, axis, index), axis, min_area)
            yield MaskedImage(case.image_info(axis, index), pixels, masks, absent)


def display_range(case: CaseInfo, image: Volume) -> tuple[float, float]:
    """The values displayed as black and as white: the case's CT window, or percentiles of the foreground."""
    return ct_window(case.window) if case.window else mr_window(image.voxels)


def objects_of(
    case: CaseInfo, label_map: np.ndarray, axis: Axis, min_area: float = SLICE_MIN_AREA
) -> tuple[tuple[tuple[str, np.ndarray], ...], tuple[str, ...]]:
    """The masks and the absent names of a label map (H, W) in display orientation."""
    counts = np.bincount(label_map.ravel().astype(np.int64), minlength=max(case.labels) + 1)
    least = max(1.0, min_area * label_map.size)
    masks = tuple(
        (name, piece)
        for value, name in case.labels.items()
        if counts[value] >= least
        for piece in instances_of(case, name, label_map == value, least)
    )
    return masks, absent_names(case, {name for value, name in case.labels.items() if counts[value]}, axis)


def instances_of(case: CaseInfo, name: str, mask: np.ndarray, least: float = 1.0) -> list[np.ndarray]:
    """The mask (H, W) of a name, or if it is a lesion its connected pieces of at least `least` pixels."""
    return _pieces(mask, least) if name in case.lesions else [mask]


def absent_names(case: CaseInfo, seen: set[str], axis: Axis) -> tuple[str, ...]:
    """The names without a pixel in a slice; none if the labels are not exhaustive. seen: the names with one.

    A sagittal slice does not show which side of the body it is from. A name is therefore not reported as absent if
    the same structure of the other side is in the slice, even with too few pixels to be an object.
    """
    if not case.exhaustive:
        return ()
    if axis is Axis.SAGITTAL:
        seen = seen | {other_side(name) for name in seen}
    return tuple(name for name in case.labels.values() if name not in seen)


def _pieces(mask: np.ndarray, least: float) -> list[np.ndarray]:
    """The connected pieces (8-connectivity) of a mask (H, W) that have at least `least` pixels."""
    pieces, number = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=number + 1)
    return [pieces == i for i in range(1, number + 1) if sizes[i] >= least]
