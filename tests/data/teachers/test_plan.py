"""The plan of the turns that a chat model is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bird_hf.data.records import Axis, Modality, Task
from bird_hf.data.teachers.plan import PlannedTurn, plan_turns

from .example_records import ALL, CYSTS, LEFT, NO_SPLEEN, RIGHT, record, records


class TestPlan:
    def test_every_second_image_is_asked_for_what_is_not_there(self):
        plans = [plan_turns(image, 0) for image in records(400)]
        absent = sum(PlannedTurn(Task.VISUAL_GROUNDING, "spleen") in plan for plan in plans)
        assert 160 < absent < 240
        assert {len(plan) for plan in plans} == {4, 5}

    def test_every_object_gets_its_turn(self):
        plans = [plan_turns(image, 0) for image in records(200)]
        about = {wanted.about for plan in plans for wanted in plan if wanted.task is Task.REFERRING_CAPTION}
        assert about == {item.instance_id for item in ALL if item.present}

    def test_the_missing_half_of_a_pair_is_what_is_asked_for(self):
        """Left and right are the hardest to tell apart."""
        gone = (NO_SPLEEN, replace(RIGHT, box=None))
        plans = [plan_turns(record(LEFT, *gone, name=str(place)), 0) for place in range(50)]
        asked = {wanted.about for plan in plans for wanted in plan if wanted.task is Task.VISUAL_GROUNDING}
        assert asked == {"left kidney", "right kidney"}

    @pytest.mark.parametrize("modality", [Modality.PET, Modality.FUNDUS])
    def test_one_class_is_not_classified(self, modality):
        plan = plan_turns(record(CYSTS[0], modality=modality, axis=Axis.PLANAR, slice_index=None), 0)
        assert Task.REFERRING_CLASSIFICATION not in [wanted.task for wanted in plan]
        plan = plan_turns(record(LEFT, RIGHT, modality=modality), 0)
        assert Task.REFERRING_CLASSIFICATION in [wanted.task for wanted in plan]
