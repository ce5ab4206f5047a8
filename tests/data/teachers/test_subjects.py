"""Names are called absent only if the image certainly does not show them: the source's, and other modalities'."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bird_hf.data.embedded.cases import embedded_names
from bird_hf.data.records import Axis, Instance, Modality
from bird_hf.data.teachers.subjects import askable_absent, foreign_names

from .example_records import LEFT, NO_SPLEEN, record

VOCABULARY = embedded_names()


def foreign(modality: Modality, region: str, *instances: Instance) -> set[str]:
    found = foreign_names(record(*instances, modality=modality, region=region), VOCABULARY)
    assert modality not in found
    return {name for names in found.values() for name in names}


@pytest.mark.parametrize(
    ("modality", "region", "foreign_to_it", "possible"),
    [
        (Modality.MR, "brain", {"left lung", "liver", "cotton wool spot", "ruler"}, {"brain", "optic disc", "trachea"}),
        (Modality.CT, "abdomen", {"left thalamus", "blue-white veil", "thyroid nodule"}, {"heart", "polyp", "bladder"}),
        (Modality.CT, "chest", {"left thalamus", "macula", "left eye"}, {"heart", "left clavicle", "thyroid nodule"}),
        (Modality.PET, "whole body", {"blue-white veil", "cotton wool spot"}, {"left thalamus", "polyp", "spleen"}),
        (Modality.FUNDUS, "retina", {"liver", "polyp", "left lung", "blue-white veil"}, {"left eye"}),
        (Modality.DERMOSCOPY, "skin", {"liver", "macula", "left thalamus"}, {"ulcer"}),
        (Modality.ENDOSCOPY, "colon", {"left lung", "macula", "skull"}, {"liver", "gallbladder"}),
        (Modality.ULTRASOUND, "neck", {"liver", "polyp", "left thalamus"}, {"left clavicle", "aorta"}),
        (Modality.CT, "unheard of", {"blue-white veil", "cotton wool spot"}, {"left thalamus", "left lung"}),
    ],
)  # fmt: skip
def test_foreign_names(modality, region, foreign_to_it, possible):
    found = foreign(modality, region)
    assert foreign_to_it <= found
    assert not possible & found
    assert not found & set(VOCABULARY[modality])


@pytest.mark.parametrize("name", ["tumor", "edema", "body", "bubble", "instrument", "hemorrhage", "lumen"])
def test_names_that_any_image_may_show_are_never_foreign(name):
    for modality in Modality:
        for region in ("brain", "chest", "abdomen", "skin", "retina", "colon", "neck"):
            assert name not in foreign(modality, region)


def test_labels_of_the_image_are_not_foreign_to_it():
    assert "liver" in foreign(Modality.MR, "brain")
    assert "liver" not in foreign(Modality.MR, "brain", replace(LEFT, label="liver"))
    assert "liver" not in foreign(Modality.MR, "brain", replace(LEFT, label="liver cyst"))
    assert "left clavicle" not in foreign(Modality.FUNDUS, "retina", replace(LEFT, label="left collarbone"))


class TestAbsent:
    def test_a_sagittal_slice_does_not_tell_which_side_it_is(self):
        no_right = Instance("right_kidney_0", "right kidney", None, 0.0)
        assert askable_absent(record(LEFT, no_right, NO_SPLEEN)) == ["right kidney", "spleen"]
        assert askable_absent(record(LEFT, no_right, NO_SPLEEN, axis=Axis.SAGITTAL)) == ["spleen"]

    def test_the_right_ventricle_is_no_partner_of_the_left(self):
        left = replace(LEFT, label="left ventricle")
        no_right = Instance("right_ventricle_0", "right ventricle", None, 0.0)
        assert askable_absent(record(left, no_right, axis=Axis.SAGITTAL)) == ["right ventricle"]
