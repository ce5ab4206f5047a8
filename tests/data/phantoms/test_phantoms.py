"""Phantoms are reproducible, and their masks, labels and names are right."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import ndimage

from bird_hf.data.phantoms import PHANTOM_LABELS, draw_phantom
from bird_hf.data.records import Axis, MaskedImage, Modality

MODALITIES = tuple(Modality)
COLOUR = {Modality.ENDOSCOPY, Modality.DERMOSCOPY, Modality.FUNDUS}
SEVERAL = {"tumor", "bubble", "gel bubble", "hard exudate", "hemorrhage", "cotton wool spot"}
ALWAYS = {"body", "skull", "brain", "aorta", "vertebra", "left lung", "right lung", "heart"}
SEEDS, SIDE = 50, 64

# The second object is to the right of the first in the image, because the patient's right is on the left.
LEFT_TO_RIGHT = [
    (Modality.CT, "liver", "spleen"),
    (Modality.CT, "liver", "stomach"),
    (Modality.CT, "right kidney", "left kidney"),
    (Modality.MR, "right lateral ventricle", "left lateral ventricle"),
    (Modality.MR, "right eye", "left eye"),
    (Modality.X_RAY, "right lung", "left lung"),
    (Modality.X_RAY, "right lung", "heart"),
    (Modality.X_RAY, "right clavicle", "left clavicle"),
    (Modality.PET, "right kidney", "left kidney"),
    (Modality.PET, "liver", "heart"),
    (Modality.ULTRASOUND, "right thyroid lobe", "left thyroid lobe"),
    (Modality.ULTRASOUND, "right carotid artery", "left carotid artery"),
    (Modality.ULTRASOUND, "right thyroid lobe", "trachea"),
    (Modality.ULTRASOUND, "trachea", "left thyroid lobe"),
]


@pytest.fixture(scope="module")
def gallery() -> dict[Modality, list[MaskedImage]]:
    return {m: [draw_phantom(m, seed, SIDE) for seed in range(SEEDS)] for m in MODALITIES}


def box_center_x(mask: np.ndarray) -> float:
    cols = np.flatnonzero(mask.any(0))
    return (cols[0] + cols[-1] + 1) / 2


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_same_seed_draws_the_same_picture(modality):
    first, second = draw_phantom(modality, 7, 96), draw_phantom(modality, 7, 96)
    assert first.info == second.info
    assert np.array_equal(first.pixels, second.pixels)
    assert [label for label, _ in first.masks] == [label for label, _ in second.masks]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(first.masks, second.masks, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("modality", MODALITIES)
def test_another_seed_draws_another_picture(modality, gallery):
    assert len({image.pixels.tobytes() for image in gallery[modality]}) == SEEDS


@pytest.mark.parametrize("modality", MODALITIES)
def test_pixels_have_the_modality_s_shape(modality, gallery):
    for image in gallery[modality]:
        assert image.pixels.dtype == np.uint8
        assert image.pixels.shape[2:] == ((3,) if modality in COLOUR else ())
        assert max(image.pixels.shape[:2]) == SIDE
        assert np.ptp(image.pixels) > 100  # the image uses most of the grey scale
    assert len({image.pixels.shape for image in gallery[modality]}) > 3


@pytest.mark.parametrize("modality", MODALITIES)
def test_masks_are_visible_objects(modality, gallery):
    for image in gallery[modality]:
        assert len(image.masks) >= 2
        for label, mask in image.masks:
            assert label in PHANTOM_LABELS[modality]
            assert mask.dtype == bool
            assert mask.shape == image.pixels.shape[:2]
            assert mask.mean() >= 0.0035


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_mask_is_whole_or_in_large_pieces(modality, gallery):
    for image in gallery[modality]:
        for label, mask in image.masks:
            sizes = np.bincount(ndimage.label(mask)[0].ravel())[1:]
            assert sizes.min() >= 0.12 * sizes.max(), label


@pytest.mark.parametrize("modality", MODALITIES)
def test_absent_is_exactly_what_has_no_mask(modality, gallery):
    for image in gallery[modality]:
        present = {label for label, _ in image.masks}
        assert present | set(image.absent) == set(PHANTOM_LABELS[modality])
        assert not present & set(image.absent)


@pytest.mark.parametrize("modality", MODALITIES)
def test_only_natural_plurals_come_in_numbers(modality, gallery):
    for image in gallery[modality]:
        labels = [label for label, _ in image.masks]
        assert {label for label in labels if labels.count(label) > 1} <= SEVERAL


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_label_occurs_and_every_optional_one_is_missed(modality, gallery):
    for label in PHANTOM_LABELS[modality]:
        rate = np.mean([label not in image.absent for image in gallery[modality]])
        assert rate > 0.15, label
        assert rate < 0.97 or label in ALWAYS, label


@pytest.mark.parametrize(("modality", "first", "second"), LEFT_TO_RIGHT)
def test_the_patient_s_right_is_on_the_picture_s_left(modality, first, second, gallery):
    pairs = 0
    for image in gallery[modality]:
        masks = dict(image.masks)
        if first in masks and second in masks:
            pairs += 1
            assert box_center_x(masks[first]) < box_center_x(masks[second])
    assert pairs > 5


def test_the_disc_lies_nasally_in_both_eyes(gallery):
    sides = []
    for image in gallery[Modality.FUNDUS]:
        masks = dict(image.masks)
        if "optic disc" in masks and "macula" in masks:
            sides.append(box_center_x(masks["optic disc"]) > box_center_x(masks["macula"]))
    assert 0.2 < np.mean(sides) < 0.8


@pytest.mark.parametrize(
    ("modality", "outer", "inner"),
    [
        (Modality.CT, "body", "liver"),
        (Modality.CT, "liver", "liver lesion"),
        (Modality.MR, "skull", "brain"),
        (Modality.FUNDUS, "optic disc", "optic cup"),
        (Modality.DERMOSCOPY, "skin lesion", "blue-white veil"),
    ],
)
def test_a_part_lies_in_its_whole(modality, outer, inner, gallery):
    found = [dict(image.masks) for image in gallery[modality]]
    found = [masks for masks in found if outer in masks and inner in masks]
    assert found
    for masks in found:
        assert (masks[inner] & ~masks[outer]).sum() <= 0.25 * masks[inner].sum()


@pytest.mark.parametrize("modality", MODALITIES)
def test_names_are_those_of_sa_med2d(modality, gallery):
    letters = {Axis.AXIAL: "z", Axis.CORONAL: "y"}
    for seed, image in enumerate(gallery[modality]):
        info = image.info
        prefix, dataset, case, plane = info.image_id.split("--")
        assert prefix.startswith(modality.value)
        assert info.modality_detail == prefix[len(modality.value) :].lstrip("_")
        assert (dataset, case) == (f"phantom_{modality.value}", f"case{seed:06d}")
        assert info.case_id == f"phantom_{modality.value}/{seed}"
        assert info.synthetic
        if info.slice_index is None:
            assert (plane, info.axis) == ("2d_none", Axis.PLANAR)
        else:
            assert re.fullmatch(r"[yz]_\d{4}", plane)
            assert plane == f"{letters[info.axis]}_{info.slice_index:04d}"


def test_layout_does_not_depend_on_the_number_of_pixels():
    small, large = (dict(draw_phantom(Modality.X_RAY, 3, side).masks) for side in (96, 192))
    for organ in ("left lung", "right lung", "heart"):
        assert box_center_x(small[organ]) / 96 == pytest.approx(box_center_x(large[organ]) / 192, abs=0.02)


@pytest.mark.parametrize(("seed", "side", "message"), [(0, 16, "side 16"), (-1, 64, "seed -1")])
def test_what_cannot_be_drawn_is_refused(seed, side, message):
    with pytest.raises(ValueError, match=message):
        draw_phantom(Modality.CT, seed, side)
