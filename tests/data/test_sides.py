"""Left and right: names of paired structures swap, other names with these words do not."""

from __future__ import annotations

import pytest

from bird_hf.data.embedded.atlas_names import AAL_LABELS
from bird_hf.data.sides import other_side

PAIRED = [
    ("left kidney", "right kidney"),
    ("left lung", "right lung"),
    ("left hippocampus", "right hippocampus"),
    ("left lateral ventricle", "right lateral ventricle"),  # of the brain: one on each side
    ("left femoral head", "right femoral head"),
    ("left optic nerve", "right optic nerve"),
    ("left adrenal gland", "right adrenal gland"),
    ("left iliac artery", "right iliac artery"),
    ("left cerebellum crus 1", "right cerebellum crus 1"),
    ("kidney, left", "kidney, right"),  # the side may come last
    ("tumor of the left breast", "tumor of the right breast"),
    ("Left kidney", "Right kidney"),  # letter case is kept
    ("LEFT KIDNEY", "RIGHT KIDNEY"),
    ("left and right lung", "right and left lung"),
]
UNPAIRED = [
    "left ventricle",
    "right ventricle",
    "left ventricular myocardium",
    "right ventricular cavity",
    "left atrium",
    "right atrial appendage",
    "left auricle",
    "left heart atrium",
    "right heart ventricle",
    "left hepatic lobe",
    "right hepatic lobe",
    "left lobe of the liver",
    "right lobe of liver",
    "left portal vein",
    "left gastric artery",
    "right colon",
    "left coronary artery",
    "left anterior descending artery",
    "right crus of the diaphragm",
    "heart atrium left",
    "heart ventricle right",
    "left-ventricular cavity",
    "left main coronary artery",
    "liver left lobe",
    "left lateral segment of the liver",
    "right middle lobe of lung",
]
WITHOUT_A_SIDE = ["liver", "optic disc", "polyp", "bright spot", "cleft", "leftover contrast", "upright", ""]


@pytest.mark.parametrize(("left", "right"), PAIRED)
def test_a_paired_structure_has_a_partner(left, right):
    assert other_side(left) == right
    assert other_side(right) == left


@pytest.mark.parametrize("name", [*UNPAIRED, *(name.title() for name in UNPAIRED)])
def test_a_name_that_is_no_side_stays(name):
    assert other_side(name) == name


@pytest.mark.parametrize("name", WITHOUT_A_SIDE)
def test_a_name_without_a_side_stays(name):
    assert other_side(name) == name


def test_every_sided_name_of_the_atlas_has_its_partner_in_the_atlas():
    names = set(AAL_LABELS.values())
    sided = [name for name in names if name.startswith(("left ", "right "))]
    assert len(sided) == 108  # 54 pairs, and 8 of the vermis
    assert all(other_side(name) in names - {name} for name in sided)
    assert all(other_side(name) == name for name in names.difference(sided))
