"""The task of a question in free words and the names in it: other models are asked in a way of their own."""

from __future__ import annotations

import re
from functools import cache

from ..data.records import Task
from ..data.teachers.wordings import Kind, plain_forms
from ..hub.grounding import GroundedText
from ..questions import Query

_LONGEST_NAME = 100  # characters; bounds the time of matching
_WHERE = re.compile(r"\W*(?:where|locate|find|show|point out|mark|outline|segment|detect)\b", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\\\{(?:the|other)\\\}")
_NAME = rf"(?:the +)?([^,;?!.]{{1,{_LONGEST_NAME}}}?)"


def task_of(query: Query, question: GroundedText) -> tuple[str, tuple[str, ...]]:
    """The task of a query and the names that it asks for.

    What the query says is taken. Else a question with a box is roc, one that asks where something is vg, and any other
    mia. The names of a vg question are found if it is worded like a template: "Where is the left kidney?".
    """
    task, names = query.task, query.names
    if not task:
        is_where = bool(names) or _WHERE.match(question.text) or names_in(question.text)
        task = Task.VISUAL_GROUNDING if is_where else Task.IMAGE_ANALYSIS
        task = Task.REFERRING_CLASSIFICATION if question.boxes else task
    if task == Task.VISUAL_GROUNDING and not names:
        names = names_in(question.text)
    return str(task), names


def names_in(question: str) -> tuple[str, ...]:
    """The names in a question that is worded like a template; none if it is not."""
    text = " ".join(question.split()).rstrip(" .?!")
    for pattern in _patterns():
        if found := pattern.fullmatch(text):
            return tuple(name.strip() for name in found.groups())
    return ()


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    """The templates of questions for pairs and for single objects, the longest ones first."""
    forms = (*plain_forms(Kind.GROUND_PAIR), *plain_forms(Kind.GROUND))
    templates = [form.template.rstrip(".?") for form in forms]
    pairs = [template for template in templates if "{other}" in template]
    single = sorted(set(templates) - set(pairs), key=len, reverse=True)
    return tuple(
        re.compile(_PLACEHOLDER.sub(lambda _: _NAME, re.escape(template)), re.IGNORECASE)
        for template in (*pairs, *single)
    )
