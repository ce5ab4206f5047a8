"""Augmented slices keep the patient's sides, are reproducible, and vary as documented."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from bird_hf.data.embedded.augment import (
    Augmentation,
    SliceSampler,
    coarsen,
    linear,
    nearest,
    random_curve,
    smooth_field,
    spline,
    swap_sides,
)
from bird_hf.data.embedded.cases import EMBEDDED_CASES, load_case
from bird_hf.data.records import Axis, MaskedImage, Modality
from bird_hf.data.volumes import SLICE_MIN_AREA, CaseInfo, Volume, label_slice_at, slice_at


def augmented_slice(
    sampler: SliceSampler, seed: int, number: int, side: int = 192, min_area: float = SLICE_MIN_AREA
) -> MaskedImage:
    """Image `number` of a run: the same seed and number give the same image in any order."""
    return sampler.draw(np.random.default_rng((seed, number)), side, number, min_area)


PLAIN = Augmentation(
    tilt_degrees=0,
    turn_degrees=0,
    scale=(1.0, 1.0),
    shift=0,
    bend_mm=(),
    mirror=0,
    strip=0,
    coarse=0,
    noise=0,
)
KIDNEYS = CaseInfo(
    dataset="toy",
    original="body",
    labels={1: "left kidney", 2: "right kidney", 3: "left ventricle"},
    modality=Modality.MR,
    modality_detail="t1",
    region="abdomen",
    axes=(Axis.AXIAL, Axis.CORONAL),
    exhaustive=True,
)


def toy() -> tuple[Volume, Volume]:
    """RAS+ (40, 40, 40), 2 mm: the left kidney at low x, the right one at high x, a ventricle at low x."""
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[6:14, 16:24, 10:30] = 1
    labels[26:34, 16:24, 10:30] = 2
    labels[8:14, 28:34, 10:30] = 3
    grey = np.full(labels.shape, 60, np.uint8)
    grey[labels > 0] = 200
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    return Volume(grey, (2.0, 2.0, 2.0), affine), Volume(labels, (2.0, 2.0, 2.0), affine)


def column(mask: np.ndarray) -> float:
    return float(np.nonzero(mask)[1].mean())


def test_without_augmentation_an_image_is_a_slice() -> None:
    image, labels = toy()
    # Labelled to the corners, so that the image shows the whole volume.
    labels.voxels[0, 0, 0] = labels.voxels[-1, -1, -1] = 1
    sampler = SliceSampler(KIDNEYS, image, labels, PLAIN)
    plane = sampler._plane(Axis.AXIAL, np.random.default_rng(0), 40)
    points = plane.points.reshape(3, -1)
    np.testing.assert_array_equal(
        nearest(labels.voxels, points).reshape(40, 40), label_slice_at(labels, Axis.AXIAL, plane.index)
    )
    expected = slice_at(image, Axis.AXIAL, plane.index)
    np.testing.assert_allclose(linear(image.voxels, points).reshape(40, 40), expected, atol=0.01)


def test_some_pictures_stray_far_and_many_hardly() -> None:
    sampler = SliceSampler(KIDNEYS, *toy(), replace(PLAIN, tilt_degrees=12.0))
    rng = np.random.default_rng(0)
    tilts = []
    for _ in range(300):
        points = sampler._plane(Axis.AXIAL, rng, 8).points  # (3, 8, 8)
        right, down = points[:, 0, -1] - points[:, 0, 0], points[:, -1, 0] - points[:, 0, 0]
        tilts.append(
            np.degrees(np.arcsin(np.abs([right[2] / np.hypot(*right[:2]), down[2] / np.hypot(*down[:2])])))
        )
    most = np.max(tilts, axis=1)
    assert np.mean(most < 3) > 0.3  # two uniform draws up to 12 would give 1/16
    assert most.max() > 9


@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_left_is_the_patients_left_mirrored_or_not(mirror: float) -> None:
    sampler = SliceSampler(KIDNEYS, *toy(), replace(Augmentation(), mirror=mirror))
    seen = 0
    for number in range(40):
        masks = dict(augmented_slice(sampler, 3, number, side=64).masks)
        if {"left kidney", "right kidney"} <= set(masks):
            seen += 1
            assert column(masks["right kidney"]) < column(masks["left kidney"])
            if "left ventricle" in masks:  # anatomically left; mirroring moves it and keeps its name
                on_left_half = column(masks["left ventricle"]) > column(masks["right kidney"]) + 10
                assert on_left_half == (mirror == 0)
    assert seen > 20


def test_a_sagittal_picture_is_never_mirrored() -> None:
    case = replace(KIDNEYS, axes=(Axis.SAGITTAL,))
    image, labels = toy()
    sampler = SliceSampler(case, image, labels, replace(PLAIN, mirror=1.0))
    for number in range(20):
        picture = augmented_slice(sampler, 0, number, side=32)
        low_side = picture.info.slice_index < 20  # the patient's left
        assert all(name.startswith("left") == low_side for name, _ in picture.masks)


def test_paired_organs_change_sides_and_chambers_do_not() -> None:
    names = [
        "left kidney",
        "Right Lung",
        "left ventricle",
        "left atrium",
        "right heart",
        "left atrial appendage",
    ]
    swapped = swap_sides(dict(enumerate(names)))
    assert list(swapped.values()) == ["right kidney", "Left Lung", *names[2:]]


def test_an_image_depends_on_seed_and_number_only() -> None:
    sampler = SliceSampler(KIDNEYS, *toy())
    first = augmented_slice(sampler, 7, 5, side=48)
    augmented_slice(sampler, 7, 6, side=48)
    again = augmented_slice(sampler, 7, 5, side=48)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert first.info == again.info and [n for n, _ in first.masks] == [n for n, _ in again.masks]
    assert not np.array_equal(first.pixels, augmented_slice(sampler, 8, 5, side=48).pixels)


def test_ids_are_unique_and_the_case_stays_the_case() -> None:
    sampler = SliceSampler(KIDNEYS, *toy())
    infos = [augmented_slice(sampler, 0, number, side=32).info for number in range(30)]
    assert len({info.image_id for info in infos}) == 30
    assert {info.case_id for info in infos} == {"toy/body"}
    assert infos[4].image_id.startswith("mr_t1--toy--body_aug000004--")


def test_small_objects_are_dropped_from_both_lists() -> None:
    sampler = SliceSampler(KIDNEYS, *toy())
    for number in range(20):
        picture = augmented_slice(sampler, 1, number, side=64, min_area=0.02)
        assert all(mask.mean() >= 0.02 for _, mask in picture.masks)
        everything = augmented_slice(sampler, 1, number, side=64, min_area=0.0)
        assert picture.absent == everything.absent  # a small object is not absent
        assert not set(picture.absent) & {name for name, _ in everything.masks}


def test_an_empty_volume_is_refused() -> None:
    image, labels = toy()
    sampler = SliceSampler(KIDNEYS, Volume(image.voxels * 0, image.spacing_mm, image.affine), labels, PLAIN)
    with pytest.raises(ValueError, match="show nothing"):
        augmented_slice(sampler, 0, 0, side=16)


def test_linear_look_up_is_trilinear_and_fills_outside() -> None:
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 255, (9, 8, 7)).astype(np.uint8)
    points = rng.uniform(0, 6, (3, 500)).astype(np.float32)
    expected = ndimage.map_coordinates(voxels, points, np.float32, order=1)
    np.testing.assert_allclose(linear(voxels, points), expected, atol=1e-3)
    outside = np.array([[-2.0, 4.0], [0.0, 0.0], [0.0, 7.6]], np.float32)
    assert linear(voxels, outside, fill=-5).tolist() == [-5, -5]
    assert nearest(voxels, outside, fill=9).tolist() == [9, 9]
    flat = voxels[:, :, :1].copy()  # one slice thick
    assert linear(flat, np.array([[2.0], [3.0], [0.2]], np.float32))[0] == flat[2, 3, 0]


def test_fields_curves_and_coarsening() -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(spline(50, 7).sum(axis=1), 1, atol=1e-5)
    field = smooth_field(rng, 64, (5, 6), channels=3)
    assert field.shape == (3, 64, 64) and 0.1 < np.abs(field).max() <= 1.5
    assert np.abs(np.diff(field, axis=2)).max() < 0.3  # smooth
    curve = random_curve(np.linspace(0, 1, 256), rng, 0.5)
    assert (np.diff(curve) >= 0).all() and curve[0] == 0 and curve[-1] == pytest.approx(1)
    np.testing.assert_allclose(coarsen(40, 13) @ np.ones(40), 1, atol=1e-5)


TRAIN = [case for case in EMBEDDED_CASES if case.split == "train"]


@pytest.mark.slow
@pytest.mark.parametrize("case", TRAIN, ids=lambda case: case.name)
def test_embedded_cases_can_be_drawn(case) -> None:
    sampler = SliceSampler(case, *load_case(case))
    pictures = [augmented_slice(sampler, 0, number, side=96) for number in range(12)]
    assert sum(bool(picture.masks) for picture in pictures) >= 5
    for picture in pictures:
        assert picture.pixels.shape == (96, 96) and picture.pixels.dtype == np.uint8
        assert {name for name, _ in picture.masks} <= set(case.labels.values())
        assert bool(picture.absent) <= case.exhaustive


@pytest.mark.slow
def test_the_skull_of_a_head_can_be_removed_and_the_brain_stays() -> None:
    case = replace(next(case for case in EMBEDDED_CASES if case.name == "colin27"), axes=(Axis.AXIAL,))
    image, labels = load_case(case)
    sampler = SliceSampler(case, image, labels, replace(PLAIN, strip=1.0))
    labelled = labels.voxels[::2, ::2, ::2] > 0
    assert sampler.off_brain[labelled].max() == 0
    empty = [np.mean(augmented_slice(sampler, 0, number, side=64).pixels == 0) for number in range(10)]
    assert min(empty) > 0.15
