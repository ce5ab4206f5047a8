"""MIA of the templates: answers are true, and a side is asked only if the slice shows it."""

from __future__ import annotations

import numpy as np

from bird_hf.data.records import Axis, Modality
from bird_hf.data.teachers.analysis import MODALITY_NAMES, analyse

from .example_records import AORTA, CYSTS, LEFT, NO_SPLEEN, RIGHT, record


class TestAnalyse:
    def test_answers_are_true(self):
        image = record(LEFT, RIGHT, *CYSTS, AORTA, NO_SPLEEN)
        truth = {
            "Is there a left kidney in this image?": "Yes, the left kidney is visible.",
            "Is there an aorta in this image?": "Yes, the aorta is visible.",
            "Is there a spleen in this image?": "No, there is no spleen in this image.",
            "How many objects are labelled cyst?": "There are three.",
            "Count the objects labelled left kidney.": "There is one.",
            "On which side of the patient is the left kidney?": "On the patient's left.",
            "On which side of the patient is the right kidney?": "On the patient's right.",
            "On which side of the patient is the aorta?": "In the middle.",
            "Which imaging modality is this?": "This is a CT image.",
            "What does this image show?": "It shows a CT image of the abdomen in the axial plane.",
        }
        said = {
            turn.question: turn.answer
            for turn in (analyse(image, np.random.default_rng(n)) for n in range(900))
        }
        assert truth.items() <= said.items()

    def test_a_sagittal_slice_is_not_asked_for_a_side(self):
        image = record(AORTA, axis=Axis.SAGITTAL)
        asked = {analyse(image, np.random.default_rng(seed)).question for seed in range(200)}
        assert not any("side" in question for question in asked)

    def test_an_image_without_objects_is_asked_for_what_it_is(self):
        said = {analyse(record(), np.random.default_rng(seed)).answer for seed in range(50)}
        assert said == {"This is a CT image.", "It shows a CT image of the abdomen in the axial plane."}

    def test_every_modality_has_a_name(self):
        assert set(MODALITY_NAMES) == set(Modality)
