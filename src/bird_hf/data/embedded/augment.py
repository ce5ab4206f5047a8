"""Augmented slices of a labelled volume, so that a model trained on one head generalises to others.

An image is made in two steps. Geometry: a plane near an axis is tilted, turned, scaled, shifted and bent, and the
volume is sampled at its points (grey values trilinear, labels nearest). Appearance: contrast, bias field, resolution,
blur and noise vary, and the skull of a head may be removed. Images are square like the model's input, as if a full
slice had been squashed to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ..records import Axis, MaskedImage, Modality
from ..sides import other_side
from ..volumes import (
    SLICE_MIN_AREA,
    VOXEL_AXIS,
    CaseInfo,
    Volume,
    ct_window,
    mr_window,
    objects_of,
)

AIR_HU = -1024.0
THICK_MM = 3.0  # planes across thicker slices are tilted less, because there is no data between slices
STEM_TOP, STEM_FOOT = (0.0, -18.0, -14.0), (0.0, -43.0, -66.0)  # MNI mm: midbrain, medulla
STEM_MM = (18.0, 13.0)  # radius of the brain stem at these two points
BRIDGE_MM = 12.0  # gaps between atlas structures up to this width are closed to make a brain mask
MIN_CONTRAST = 40  # grey levels between the darkest and the brightest pixel; planes with less are redrawn
MARGIN_MM = 6.0  # around the labelled part of a volume


@dataclass(frozen=True)
class Augmentation:
    """Augmentation ranges, uniform unless stated otherwise; probabilities are in [0, 1].

    The ranges of the geometry (tilt to bend) are multiplied by a strength in [0, 1], which is drawn per image.
    """

    tilt_degrees: float = 12.0  # of the plane out of its axis
    turn_degrees: float = 12.0  # within the plane
    scale: tuple[float, float] = (0.85, 1.3)  # of the objects, width and height independently
    shift: float = 0.08  # share of the image's side
    bend_mm: tuple[tuple[float, float], ...] = ((4.0, 45.0), (1.5, 15.0))  # (maximum, distance between knots)
    mirror: float = 0.5  # probability, axial and coronal slices only
    strip: float = 0.5  # probability that the skull of a head with an atlas is removed
    on_lesion: float = 0.6  # probability that the plane goes through a lesion, in cases with lesions
    soft_tissue: float = 0.35  # probability of the soft-tissue window in a chest CT
    curve: float = 0.45  # standard deviation of the log steps of the contrast curve
    gamma: float = 0.35  # log
    bias: float = 0.3  # log, maximum
    blur_pixels: float = 1.1
    noise: float = 0.05  # share of full scale
    coarse: float = 0.3  # probability of a lower resolution, 0.35 to 0.8 of the pixels


@dataclass(frozen=True)
class _Plane:
    """points: (3, side, side) float32 voxel coordinates of the pixels. index: the slice nearest to the centre."""

    points: np.ndarray
    index: int


class SliceSampler:
    """Draws augmented images of one case.

    Raises ValueError if the label map is not on the grid of the image.
    """

    def __init__(
        self, case: CaseInfo, image: Volume, labels: Volume, settings: Augmentation | None = None
    ) -> None:
        if image.voxels.shape != labels.voxels.shape:
            raise ValueError(f"{case.case_id}: labels {labels.voxels.shape} are not on the image's grid")
        self.case = case
        self.settings = settings or Augmentation()
        self.spacing = np.asarray(image.spacing_mm)
        self.voxels = np.ascontiguousarray(image.voxels)
        self.labels = np.ascontiguousarray(labels.voxels)
        self.mirrored = replace(case, labels=swap_sides(case.labels))
        self.is_ct = case.modality is Modality.CT
        self.window = (0.0, 0.0) if self.is_ct else mr_window(self.voxels)
        lesion_values = [value for value, name in case.labels.items() if name in case.lesions]
        self.lesions = np.argwhere(np.isin(self.labels, lesion_values))  # (N, 3)
        self.whole_mm = np.stack([np.zeros(3), np.array(self.voxels.shape) * self.spacing])  # (2, 3) from, to
        whole = _only_lesions(case) or not self.labels.any()
        self.labelled_mm = self.whole_mm if whole else self._labelled_box()
        self.off_brain = distance_to_brain(labels) if case.head_in_mni else None
        if (
            self.off_brain is not None
        ):  # the grey window of the brain alone, without the bright fat of the scalp
            self.brain_window = mr_window(self.voxels[::2, ::2, ::2][self.off_brain == 0])

    def draw(
        self, rng: np.random.Generator, side: int, number: int, min_area: float = SLICE_MIN_AREA
    ) -> MaskedImage:
        """Draw one image (side, side).

        number: makes the image id unique. Objects smaller than `min_area` are left out. Images with hardly any contrast
        (a plane beside the brain) are redrawn; raises ValueError if 100 in a row have none.
        """
        for _ in range(100):
            image = self._draw(rng, side, number, min_area)
            if np.ptp(image.pixels) > MIN_CONTRAST:
                return image
        raise ValueError(f"{self.case.case_id}: 100 planes in a row show nothing; is the volume empty?")

    def _draw(self, rng: np.random.Generator, side: int, number: int, min_area: float) -> MaskedImage:
        axis = self.case.axes[rng.integers(len(self.case.axes))]
        plane = self._plane(axis, rng, side)
        flat = plane.points.reshape(3, -1)
        fill = AIR_HU if self.is_ct else 0.0
        grey = linear(self.voxels, flat, fill).reshape(side, side)
        labels = nearest(self.labels, flat).reshape(side, side)
        pixels = self._render_ct(grey, rng) if self.is_ct else self._render_mr(grey, flat, rng)
        case = self.case
        if axis is not Axis.SAGITTAL and rng.random() < self.settings.mirror:
            pixels, labels, case = pixels[:, ::-1], labels[:, ::-1], self.mirrored
        masks, absent = objects_of(case, labels, axis, min_area)
        info = case.image_info(axis, plane.index, suffix=f"_aug{number:06d}")
        return MaskedImage(info, np.ascontiguousarray(pixels), masks, absent)

    def _labelled_box(self) -> np.ndarray:
        """(2, 3) mm: the first and last corner of the labelled part, with a margin."""
        part = ndimage.find_objects((self.labels > 0).astype(np.uint8))[0]
        edges = np.array([[p.start for p in part], [p.stop for p in part]]) * self.spacing
        return np.clip(edges + np.array([[-MARGIN_MM], [MARGIN_MM]]), *self.whole_mm)

    def _plane(self, axis: Axis, rng: np.random.Generator, side: int) -> _Plane:
        """A plane like a displayed slice (see volumes.py), tilted, turned, scaled, shifted and bent.

        One strength in [0, 1] scales all of these, so that many images differ little from a plain slice.
        """
        settings, normal = self.settings, VOXEL_AXIS[axis]
        strength = rng.random()
        across, up = (i for i in range(3) if i != normal)
        blend = rng.random()  # between the labelled part (0) and the whole volume (1)
        box = (1 - blend) * self.labelled_mm + blend * self.whole_mm
        smallest, largest = np.log(settings.scale)
        scale = np.exp(strength * rng.uniform(smallest, largest, size=2))
        width, height = (box[1] - box[0])[[across, up]] / scale
        centre = box.mean(axis=0)
        centre[[across, up]] += strength * rng.uniform(-settings.shift, settings.shift, 2) * (width, height)
        centre[normal] = self._depth(normal, rng)
        tilt = settings.tilt_degrees / (3 if self.spacing[normal] > THICK_MM else 1)
        most = np.full(3, tilt)
        most[normal] = settings.turn_degrees
        turn = Rotation.from_rotvec(strength * rng.uniform(-most, most), degrees=True).as_matrix()
        steps = (np.arange(side) + 0.5) / side - 0.5
        right = -turn[:, across, None] * (steps * width)  # (3, side): columns run against the voxel axis
        down = -turn[:, up, None] * (steps * height)
        points = centre[:, None, None] + down[:, :, None] + right[:, None, :]
        for most_mm, knots_mm in settings.bend_mm:
            knots = (int(height / knots_mm) + 4, int(width / knots_mm) + 4)
            points += strength * rng.uniform(0, most_mm) * smooth_field(rng, side, knots, channels=3)
        voxel = points / self.spacing[:, None, None] - 0.5  # mm count from the first voxel's edge
        index = min(max(int(centre[normal] / self.spacing[normal]), 0), self.voxels.shape[normal] - 1)
        return _Plane(voxel.astype(np.float32), index)

    def _depth(self, normal: int, rng: np.random.Generator) -> float:
        """Position along the axis in mm: often through a lesion, otherwise anywhere in the labelled part."""
        if len(self.lesions) and rng.random() < self.settings.on_lesion:
            voxel = self.lesions[rng.integers(len(self.lesions)), normal]
            return float((voxel + rng.random()) * self.spacing[normal])
        return float(rng.uniform(*self.labelled_mm[:, normal]))

    def _render_ct(self, hu: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """HU (side, side) -> uint8, in a slightly shifted window, with mild changes of contrast."""
        soft = self.case.region == "chest" and rng.random() < self.settings.soft_tissue
        low, high = ct_window("soft tissue" if soft else self.case.window or "soft tissue")
        low, high = np.array((low, high)) + rng.uniform(-0.06, 0.06, 2) * (high - low)
        grey = np.clip((hu - low) / (high - low), 0, 1)
        grey = self._degrade(random_curve(grey, rng, self.settings.curve / 2), rng)
        return _to_bytes(grey)

    def _render_mr(self, grey: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """MR grey (side, side) at points (3, side * side) -> uint8, with the contrast of a random scanner."""
        side, settings = grey.shape[0], self.settings
        off_brain = self.off_brain if rng.random() < settings.strip else None
        low, high = self.window if off_brain is None else self.brain_window
        low, high = np.array((low, high)) + rng.uniform(-0.08, 0.08, 2) * (high - low)
        grey = np.clip((grey - low) / (high - low), 0, 1)
        bias = smooth_field(rng, side, (5, 5), channels=1)[0]
        grey = grey * np.exp(rng.uniform(0, settings.bias) * bias)
        grey = random_curve(np.clip(grey, 0, 1), rng, settings.curve) ** np.exp(
            rng.uniform(-settings.gamma, settings.gamma)
        )
        grey = self._degrade(grey, rng)
        if off_brain is not None:
            off = nearest(off_brain, points / 2, fill=255).reshape(side, side)
            grey = np.where(off <= rng.uniform(0, 5), grey, 0.0)
        return _to_bytes(grey)

    def _degrade(self, grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Randomly apply a lower resolution (vertical, horizontal or both), blur and noise."""
        settings, side = self.settings, grey.shape[0]
        if rng.random() < settings.coarse:
            grey = coarsen(side, int(side * rng.uniform(0.35, 0.8))) @ grey
        if rng.random() < settings.coarse:
            grey = grey @ coarsen(side, int(side * rng.uniform(0.35, 0.8))).T
        if rng.random() < 0.5:
            grey = ndimage.gaussian_filter(grey, rng.uniform(0.2, settings.blur_pixels), truncate=2.5)
        if rng.random() < 0.7:
            noise = rng.standard_normal(grey.shape, dtype=np.float32)
            grey = grey + np.float32(rng.uniform(0, settings.noise)) * noise
        return grey


def swap_sides(labels: Mapping[int, str]) -> dict[int, str]:
    """The labels of a mirrored image: paired organs change sides, names such as left ventricle stay."""
    return {value: other_side(name) for value, name in labels.items()}


def distance_to_brain(labels: Volume) -> np.ndarray:
    """The distance of each voxel from the brain in mm, at most 255: uint8, every second voxel of (X, Y, Z).

    labels: an atlas in MNI space. Atlases leave out white matter and ventricles, so gaps up to BRIDGE_MM are closed.
    They also leave out the brain stem, which is added as a tapering rod at its position in MNI space.
    """
    sampling = np.asarray(labels.spacing_mm) * 2
    pad = int(np.ceil(BRIDGE_MM / sampling.min())) + 1
    atlas = labels.voxels[::2, ::2, ::2] > 0
    index = np.stack(np.meshgrid(*(np.arange(n) * 2 for n in atlas.shape), indexing="ij"))
    mni = np.einsum("ij,jxyz->ixyz", labels.affine[:3, :3], index) + labels.affine[:3, 3, None, None, None]
    atlas = np.pad(atlas, pad)
    bridged = ndimage.distance_transform_edt(~atlas, sampling) <= BRIDGE_MM
    brain = ndimage.distance_transform_edt(bridged, sampling) > BRIDGE_MM
    brain = ndimage.binary_fill_holes(brain | atlas)[tuple(slice(pad, -pad) for _ in range(3))]
    off = ndimage.distance_transform_edt(~(brain | in_brain_stem(mni)), sampling)
    return np.minimum(np.ceil(off), 255).astype(np.uint8)


def in_brain_stem(mni: np.ndarray) -> np.ndarray:
    """Whether points (3, ...) in MNI millimetres are in the rod from STEM_TOP to STEM_FOOT."""
    top, foot = np.array(STEM_TOP), np.array(STEM_FOOT)
    length = float(np.linalg.norm(foot - top))
    along = np.tensordot((foot - top) / length, mni - top.reshape(3, *[1] * (mni.ndim - 1)), axes=1)
    along = np.clip(along, 0, length)
    centre = top.reshape(3, *[1] * (mni.ndim - 1)) + np.multiply.outer((foot - top) / length, along)
    return np.linalg.norm(mni - centre, axis=0) <= STEM_MM[0] + (STEM_MM[1] - STEM_MM[0]) * along / length


def smooth_field(rng: np.random.Generator, side: int, knots: tuple[int, int], channels: int) -> np.ndarray:
    """(channels, side, side) float32: a cubic B-spline with random coefficients, values mostly in [-1, 1]."""
    values = rng.uniform(-1.5, 1.5, (channels, *knots)).astype(np.float32)
    return spline(side, knots[0]) @ values @ spline(side, knots[1]).T


@lru_cache(maxsize=256)
def spline(side: int, knots: int) -> np.ndarray:
    """(side, knots) weights of uniform cubic B-splines; every row sums to 1."""
    at = (np.arange(side) + 0.5) / side * (knots - 3) + 1  # one knot beyond each end
    distance = np.abs(at[:, None] - np.arange(knots))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


@lru_cache(maxsize=256)
def coarsen(side: int, fewer: int) -> np.ndarray:
    """(side, side) matrix that averages into `fewer` pixels and interpolates back linearly."""
    edges = np.linspace(0, side, fewer + 1)
    pixel = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    down = np.clip(overlap, 0, None) * fewer / side  # (fewer, side)
    at = np.clip((pixel + 0.5) * fewer / side - 0.5, 0, fewer - 1)
    up = np.clip(1 - np.abs(at[:, None] - np.arange(fewer)), 0, None)  # (side, fewer)
    return (up @ down).astype(np.float32)


def random_curve(grey: np.ndarray, rng: np.random.Generator, spread: float) -> np.ndarray:
    """A random monotone curve over greys in [0, 1]; black stays black and white stays white."""
    steps = np.exp(rng.normal(0, spread, 8))
    heights = np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()
    table = np.interp(np.linspace(0, 1, 256), np.linspace(0, 1, 9), heights).astype(np.float32)
    return table[(grey * 255).astype(np.uint8)]


def nearest(voxels: np.ndarray, points: np.ndarray, fill: int = 0) -> np.ndarray:
    """The values of the nearest voxels at points (3, N) in voxel coordinates -> (N,); `fill` outside the volume."""
    index = np.floor(points + np.float32(0.5)).astype(np.intp)
    top = np.array(voxels.shape)[:, None]
    inside = ((index >= 0) & (index < top)).all(axis=0)
    np.clip(index, 0, top - 1, out=index)
    values = voxels.reshape(-1).take(_flat(index, voxels.shape))
    return np.where(inside, values, voxels.dtype.type(fill))


def linear(voxels: np.ndarray, points: np.ndarray, fill: float = 0.0) -> np.ndarray:
    """Trilinear values at points (3, N) in voxel coordinates -> (N,) float32; `fill` outside the volume.

    scipy.ndimage.map_coordinates is not used: rendering an image would take 1.2 to 1.8 times as long, and 22 of 600
    images would change by one or two grey levels, and with them the training set.
    """
    top = np.array(voxels.shape)[:, None]
    inside = ((points >= -0.5) & (points < top - 0.5)).all(axis=0)
    points = np.clip(points, 0, top - 1).astype(np.float32)
    index = np.minimum(points.astype(np.intp), np.maximum(top - 2, 0))
    x, y, z = points - index.astype(np.float32)
    flat = voxels.reshape(-1)
    corner = _flat(index, voxels.shape)
    # an axis with a single voxel has no next voxel
    step_x, step_y, step_z = np.array(voxels.strides) // voxels.itemsize * (np.array(voxels.shape) > 1)

    def along_z(at: np.ndarray) -> np.ndarray:
        low = flat.take(at).astype(np.float32)
        return low + (flat.take(at + step_z) - low) * z

    def along_y(at: np.ndarray) -> np.ndarray:
        low = along_z(at)
        return low + (along_z(at + step_y) - low) * y

    low = along_y(corner)
    return np.where(inside, low + (along_y(corner + step_x) - low) * x, np.float32(fill))


def _flat(index: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(3, N) voxel indices -> (N,) flat indices of the C-ordered array."""
    return (index[0] * shape[1] + index[1]) * shape[2] + index[2]


def _only_lesions(case: CaseInfo) -> bool:
    return all(name in case.lesions for name in case.labels.values())


def _to_bytes(grey: np.ndarray) -> np.ndarray:
    return (np.clip(grey, 0, 1) * 255 + 0.5).astype(np.uint8)
