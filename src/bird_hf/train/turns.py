"""Which task a turn of a row asks for."""

from __future__ import annotations

from ..data.records import Task
from ..data.teachers.wordings import Kind
from ..hub.grounding import GroundedText

_TASKS = {
    Kind.GROUND: Task.VISUAL_GROUNDING,
    Kind.GROUND_PAIR: Task.VISUAL_GROUNDING,
    Kind.CLASSIFY: Task.REFERRING_CLASSIFICATION,
    Kind.DESCRIBE: Task.REFERRING_CAPTION,
}


def task_of_turn(question: GroundedText, answer: GroundedText, form: str, task: str | None) -> Task:
    """The task of a turn: that of its row, or by the form of its question, or else by where boxes are.

    form: the id of the question's form, such as `vg/plain`, or "". task: of the row; `chat` says nothing. Where boxes
    are does not tell ROC from RC, so a question with a box is then RC.
    """
    if task and task != Task.CHAT:
        return Task(task)
    if form:
        kind = form.split("/")[0]
        return next((found for known, found in _TASKS.items() if known == kind), Task.IMAGE_ANALYSIS)
    if answer.boxes and not question.boxes:
        return Task.VISUAL_GROUNDING
    return Task.REFERRING_CAPTION if question.boxes else Task.IMAGE_ANALYSIS
