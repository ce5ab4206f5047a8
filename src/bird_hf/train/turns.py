"""Which task a turn of a row asks for."""

from __future__ import annotations

from ..data.records import SINGLE_TASKS, Task
from ..data.teachers.wordings import Kind
from ..hub.grounding import GroundedText

_SINGLE_TASKS = {task.value: task for task in SINGLE_TASKS}
_TASK_OF_KIND = {
    Kind.GROUND.value: Task.VISUAL_GROUNDING,
    Kind.GROUND_PAIR.value: Task.VISUAL_GROUNDING,
    Kind.CLASSIFY.value: Task.REFERRING_CLASSIFICATION,
    Kind.DESCRIBE.value: Task.REFERRING_CAPTION,
}


def task_of_turn(question: GroundedText, answer: GroundedText, form: str, task: str | None) -> Task:
    """The task of a turn: that of its row, or by the form of its question, or else by where boxes are.

    form: the id of the question's form, such as `vg/plain`, or "". task: of the row; `chat`, or a task that is none
    of the four, says nothing. Where boxes are does not tell ROC from RC, so a question with a box is then RC.
    """
    if task in _SINGLE_TASKS:
        return _SINGLE_TASKS[task]
    if form:
        return _TASK_OF_KIND.get(form.split("/")[0], Task.IMAGE_ANALYSIS)
    if answer.boxes and not question.boxes:
        return Task.VISUAL_GROUNDING
    return Task.REFERRING_CAPTION if question.boxes else Task.IMAGE_ANALYSIS
