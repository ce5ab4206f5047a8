"""Read the replies of a chat model: validate them, check them against the record, and insert boxes.

The model points at an instance with `[[words|instance id]]`; the words become a `Span` with the instance's box. The
model never writes coordinates, and a reply with any is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...hub.grounding import Span, read
from ..records import ImageRecord, Instance, Task, Turn
from .fact_check import Facts, FaultyReplyError, normalize, shortened
from .plan import PlannedTurn

LONGEST_REPLY = 20_000  # characters; four turns take about 1,000

# Words that a question about a box may use even if the label has them: "optic nerve region".
_POINTING = {"the", "this", "that", "and", "structure", "region", "object", "area", "part", "image"}
_POINTER = re.compile(r"\[\[([^\[\]|]{1,200})\|([^\[\]]{1,2000})\]\]")


class CaptionReply(BaseModel):
    """The paper's step ii: global information about the image."""

    model_config = ConfigDict(extra="forbid")
    caption: str = Field(min_length=10, max_length=500)


class TurnReply(BaseModel):
    """One question and its answer, as the model writes them."""

    model_config = ConfigDict(extra="forbid")
    task: Task
    question: str = Field(min_length=5, max_length=500)
    answer: str = Field(min_length=2, max_length=1000)


class TurnsReply(BaseModel):
    """The paper's step iii: questions and answers, one for each planned turn."""

    model_config = ConfigDict(extra="forbid")
    turns: list[TurnReply] = Field(min_length=1, max_length=8)


@dataclass(frozen=True)
class _ResolvedText:
    """Text without pointers, its spans with boxes, and the ids of their instances."""

    text: str
    spans: tuple[Span, ...]
    ids: tuple[str, ...]


def read_caption(record: ImageRecord, content: str) -> str:
    """Return the caption in a reply. Raises FaultyReplyError if it cannot be used."""
    caption = _clean(_parse(CaptionReply, content).caption)
    facts = Facts(record)
    facts.check(caption)
    _check_about_image(facts, caption)
    return caption


def read_turns(record: ImageRecord, plan: Sequence[PlannedTurn], content: str) -> tuple[Turn, ...]:
    """Return the turns of a plan, in its order. Raises FaultyReplyError if one cannot be used."""
    replies = _parse(TurnsReply, content).turns
    wanted, given = [turn.task.value for turn in plan], [reply.task.value for reply in replies]
    if wanted != given:
        raise FaultyReplyError(
            f"turns for {', '.join(wanted)} were asked for in this order, not for {', '.join(given)}"
        )
    facts = Facts(record)
    return tuple(_read_turn(facts, turn, reply) for turn, reply in zip(plan, replies, strict=True))


_Reply = TypeVar("_Reply", bound=BaseModel)


def _parse(kind: type[_Reply], content: str) -> _Reply:
    """Parse a reply, with or without a code fence around its JSON."""
    if len(content) > LONGEST_REPLY:
        raise FaultyReplyError(f"the reply has {len(content)} characters; {LONGEST_REPLY} are the most")
    text = content.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the reply"
        raise FaultyReplyError(f"{shortened(place)}: {first['msg'][:120]}") from None


def _read_turn(facts: Facts, planned: PlannedTurn, reply: TurnReply) -> Turn:
    try:
        question, answer = _resolve(facts, reply.question), _resolve(facts, reply.answer)
        facts.check(answer.text, question.text, (*question.ids, *answer.ids))
        match planned.task:
            case Task.VISUAL_GROUNDING:
                ids = _check_grounding(facts, planned.about, question, answer)
            case Task.REFERRING_CLASSIFICATION | Task.REFERRING_CAPTION:
                ids = _check_referring(facts, planned, question, answer)
            case _:
                ids = _check_words_alone(facts, question, answer)
    except FaultyReplyError as fault:
        raise FaultyReplyError(f"{reply.task}: {fault}") from None
    return Turn(planned.task, question.text, answer.text, question.spans, answer.spans, ids)


def _check_grounding(
    facts: Facts, label: str, question: _ResolvedText, answer: _ResolvedText
) -> tuple[str, ...]:
    """VG: the question names one label, the answer points at all its present instances; returns their ids."""
    if question.ids or facts.labels_in(question.text) != [normalize(label)]:
        raise FaultyReplyError(
            f"the question asks for {shortened(label)!r} by name, for nothing else, and points at nothing"
        )
    wanted = facts.instances([normalize(label)])
    if {item.instance_id for item in wanted if item.present} != {*answer.ids}:
        raise FaultyReplyError(f"the answer must point at every {shortened(label)} and at nothing else")
    for span in answer.spans:
        if not facts.labels_in(span.phrase):
            raise FaultyReplyError(
                f"the words {shortened(span.phrase)!r} point at an object without its name"
            )
    return tuple(item.instance_id for item in wanted)


def _check_referring(
    facts: Facts, planned: PlannedTurn, question: _ResolvedText, answer: _ResolvedText
) -> tuple[str, ...]:
    """ROC and RC: the question points at one object without its name, the answer names it; returns its id."""
    if question.ids != (planned.about,) or answer.ids:
        raise FaultyReplyError(
            f"the question points at {shortened(planned.about)!r} alone, and the answer at nothing"
        )
    label = normalize(facts.by_id[planned.about].label)
    given_away = ({*re.findall(r"\w{3,}", label)} - _POINTING) & {
        *re.findall(r"\w{3,}", normalize(question.text))
    }
    if given_away or facts.labels_in(question.text):
        raise FaultyReplyError(f"the question gives the name {shortened(label)!r} away")
    named = facts.labels_in(answer.text)
    if label not in named or (planned.task is Task.REFERRING_CLASSIFICATION and named != [label]):
        raise FaultyReplyError(
            f"the answer must name {shortened(label)!r}" + (" alone" if label in named else "")
        )
    return question.ids


def _check_words_alone(facts: Facts, question: _ResolvedText, answer: _ResolvedText) -> tuple[str, ...]:
    """MIA: text about the image that points at nothing; returns the ids of the objects that it names."""
    if question.ids or answer.ids:
        raise FaultyReplyError("neither the question nor the answer points at an object")
    both = f"{question.text} {answer.text}"
    _check_about_image(facts, both)
    return tuple(item.instance_id for item in facts.instances(facts.labels_in(both)))


def _check_about_image(facts: Facts, text: str) -> None:
    if not facts.is_about_image(text):
        raise FaultyReplyError("the words are not about what the meta information holds")


def _resolve(facts: Facts, text: str) -> _ResolvedText:
    """Replace pointers by their words, as spans with boxes: `[[the liver|liver_0]]` is a span over "the liver"."""
    text = _clean(text)
    pieces, spans, ids, length, done = [], [], [], 0, 0
    for pointer in _POINTER.finditer(text):
        before, phrase = text[done : pointer.start()], pointer[1].strip()
        items = _pointed_at(facts, [name.strip() for name in pointer[2].split("|")], phrase)
        start = length + len(before)
        pieces += [before, phrase]
        length, done = start + len(phrase), pointer.end()
        # Reading order, as in the templates: models list objects in any order.
        boxes = sorted((item.box for item in items if item.box), key=lambda box: (box.y1, box.x1))
        spans.append(Span(phrase, start, length, tuple(boxes)))
        ids += [item.instance_id for item in items]
    if len({*ids}) != len(ids):
        raise FaultyReplyError("an object is pointed at twice")
    return _ResolvedText("".join([*pieces, text[done:]]), tuple(spans), tuple(ids))


def _pointed_at(facts: Facts, ids: Sequence[str], phrase: str) -> list[Instance]:
    """Return the instances of one pointer, whose words must name no label or exactly theirs."""
    if not phrase:
        raise FaultyReplyError("a pointer without words")
    for name in ids:
        if name not in facts.by_id:
            raise FaultyReplyError(f"unknown id {shortened(name)!r}")
        if not facts.by_id[name].present:
            raise FaultyReplyError(f"{shortened(name)!r} is not in this image, so nothing can point at it")
    items = [facts.by_id[name] for name in ids]
    labels, named = {normalize(item.label) for item in items}, facts.labels_in(phrase)
    if len(labels) != 1 or (named and {*named} != labels):
        raise FaultyReplyError(
            f"the words {shortened(phrase)!r} do not name what they point at: {', '.join(sorted(labels))}"
        )
    return items


def _clean(text: str) -> str:
    """Return stripped text. Raises FaultyReplyError if it holds invisible characters, tags or coordinates."""
    text = text.strip()
    if not text.isprintable():
        raise FaultyReplyError("line breaks and invisible characters are no part of words")
    grounded = read(text)
    if grounded.issues or grounded.spans or grounded.text != text:
        raise FaultyReplyError("tags and coordinates are written by the program, never by you")
    return text
