"""Which task a turn of a row asks for."""

from __future__ import annotations

from ..data.records import Task
from ..data.teachers.wordings import Kind
from ..hub.grounding import GroundedText

_TASKS = {
    Kind.GROUND: Task.VISUAL_GROUNDING,
    Kind.GROUND_PAIR: Task.VISUAL_GROUNDING,
    Kind.CLASSIFY: Task.REFERRING_CLASSIFICATION,
}


def task_of_turn(question: GroundedText, answer: GroundedText, form: str, task: str | None) -> Task | None:
    """VG or ROC; None for other turns.

    form: the id of the question's form, such as `vg/plain`, or "". task: of the row. Without either, a turn is VG if
    its answer has boxes and its question has none, and ROC is not told from RC.
    """
    if task in (Task.VISUAL_GROUNDING, Task.REFERRING_CLASSIFICATION):
        return Task(task)
    if form:
        kind = form.split("/")[0]
        return next((found for known, found in _TASKS.items() if known == kind), None)
    return Task.VISUAL_GROUNDING if answer.boxes and not question.boxes else None
