"""What a chat model writes, read: typed, bounded, checked against the record, with boxes put in.

The model points with `[[words|instance id]]`; here the words stay and the box of the instance becomes a `Span`. It
never writes a coordinate, and a reply that looks as if it did is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...hub.grounding import Span, read
from ..records import ImageRecord, Instance, Task, Turn
from .fact_check import BadReply, Facts, cut, plain
from .plan import Wanted

LONGEST_REPLY = 20_000  # characters; four turns take about 1,000

# Words of a question about a box that give nothing away, also where a label holds one: "optic nerve region".
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
    """The paper's step iii: questions and answers, one for each turn that was asked for."""

    model_config = ConfigDict(extra="forbid")
    turns: list[TurnReply] = Field(min_length=1, max_length=8)


@dataclass(frozen=True)
class _Pointed:
    """Clean text, its spans with boxes, and the ids that they stand for."""

    text: str
    spans: tuple[Span, ...]
    ids: tuple[str, ...]


def read_caption(record: ImageRecord, content: str) -> str:
    """The caption in a reply. Raises BadReply."""
    caption = _clean(_typed(CaptionReply, content).caption)
    facts = Facts(record)
    facts.check(caption)
    _check_about_image(facts, caption)
    return caption


def read_turns(record: ImageRecord, plan: Sequence[Wanted], content: str) -> tuple[Turn, ...]:
    """The turns of a plan, in its order. Raises BadReply."""
    replies = _typed(TurnsReply, content).turns
    wanted, given = [turn.task.value for turn in plan], [reply.task.value for reply in replies]
    if wanted != given:
        raise BadReply(
            f"turns for {', '.join(wanted)} were asked for in this order, not for {', '.join(given)}"
        )
    facts = Facts(record)
    return tuple(_read_turn(facts, turn, reply) for turn, reply in zip(plan, replies, strict=True))


_Reply = TypeVar("_Reply", bound=BaseModel)


def _typed(kind: type[_Reply], content: str) -> _Reply:
    """A reply as its type; a code fence around the JSON is no fault."""
    if len(content) > LONGEST_REPLY:
        raise BadReply(f"the reply has {len(content)} characters; {LONGEST_REPLY} are the most")
    text = content.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the reply"
        raise BadReply(f"{cut(place)}: {first['msg'][:120]}") from None


def _read_turn(facts: Facts, wanted: Wanted, reply: TurnReply) -> Turn:
    try:
        question, answer = _resolve(facts, reply.question), _resolve(facts, reply.answer)
        facts.check(answer.text, question.text, (*question.ids, *answer.ids))
        match wanted.task:
            case Task.VISUAL_GROUNDING:
                ids = _check_grounding(facts, wanted.about, question, answer)
            case Task.REFERRING_CLASSIFICATION | Task.REFERRING_CAPTION:
                ids = _check_referring(facts, wanted, question, answer)
            case _:
                ids = _check_words_alone(facts, question, answer)
    except BadReply as fault:
        raise BadReply(f"{reply.task}: {fault}") from None
    return Turn(wanted.task, question.text, answer.text, question.spans, answer.spans, ids)


def _check_grounding(facts: Facts, label: str, question: _Pointed, answer: _Pointed) -> tuple[str, ...]:
    """VG: the question names one kind of object; the answer points at all of them, if any are there."""
    if question.ids or facts.labels_in(question.text) != [plain(label)]:
        raise BadReply(
            f"the question asks for {cut(label)!r} by name, for nothing else, and points at nothing"
        )
    wanted = facts.instances([plain(label)])
    if {item.instance_id for item in wanted if item.present} != {*answer.ids}:
        raise BadReply(f"the answer must point at every {cut(label)} and at nothing else")
    for span in answer.spans:
        if not facts.labels_in(span.phrase):
            raise BadReply(f"the words {cut(span.phrase)!r} point at an object without its name")
    return tuple(item.instance_id for item in wanted)


def _check_referring(facts: Facts, wanted: Wanted, question: _Pointed, answer: _Pointed) -> tuple[str, ...]:
    """ROC and RC: the question points at one object without naming it, the answer names it."""
    if question.ids != (wanted.about,) or answer.ids:
        raise BadReply(f"the question points at {cut(wanted.about)!r} alone, and the answer at nothing")
    label = plain(facts.by_id[wanted.about].label)
    told = ({*re.findall(r"\w{3,}", label)} - _POINTING) & {*re.findall(r"\w{3,}", plain(question.text))}
    if told or facts.labels_in(question.text):
        raise BadReply(f"the question gives the name {cut(label)!r} away")
    named = facts.labels_in(answer.text)
    if label not in named or (wanted.task is Task.REFERRING_CLASSIFICATION and named != [label]):
        raise BadReply(f"the answer must name {cut(label)!r}" + (" alone" if label in named else ""))
    return question.ids


def _check_words_alone(facts: Facts, question: _Pointed, answer: _Pointed) -> tuple[str, ...]:
    """MIA: words about the image that point at nothing."""
    if question.ids or answer.ids:
        raise BadReply("neither the question nor the answer points at an object")
    both = f"{question.text} {answer.text}"
    _check_about_image(facts, both)
    return tuple(item.instance_id for item in facts.instances(facts.labels_in(both)))


def _check_about_image(facts: Facts, text: str) -> None:
    if not facts.says_something(text):
        raise BadReply("the words are not about what the meta information holds")


def _resolve(facts: Facts, text: str) -> _Pointed:
    """Put words and boxes where the model points: `[[the liver|liver_0]]` becomes a span over "the liver"."""
    text = _clean(text)
    pieces, spans, ids, length, done = [], [], [], 0, 0
    for pointer in _POINTER.finditer(text):
        before, phrase = text[done : pointer.start()], pointer[1].strip()
        items = _pointed_at(facts, [name.strip() for name in pointer[2].split("|")], phrase)
        start = length + len(before)
        pieces += [before, phrase]
        length, done = start + len(phrase), pointer.end()
        # Reading order, as in the templates: an answer needs one order, and a model writes any.
        boxes = sorted((item.box for item in items if item.box), key=lambda box: (box.y1, box.x1))
        spans.append(Span(phrase, start, length, tuple(boxes)))
        ids += [item.instance_id for item in items]
    if len({*ids}) != len(ids):
        raise BadReply("an object is pointed at twice")
    return _Pointed("".join([*pieces, text[done:]]), tuple(spans), tuple(ids))


def _pointed_at(facts: Facts, ids: Sequence[str], phrase: str) -> list[Instance]:
    """The instances of one pointer; its words name none, or exactly theirs."""
    if not phrase:
        raise BadReply("a pointer without words")
    for name in ids:
        if name not in facts.by_id:
            raise BadReply(f"unknown id {cut(name)!r}")
        if not facts.by_id[name].present:
            raise BadReply(f"{cut(name)!r} is not in this image, so nothing can point at it")
    items = [facts.by_id[name] for name in ids]
    labels, named = {plain(item.label) for item in items}, facts.labels_in(phrase)
    if len(labels) != 1 or (named and {*named} != labels):
        raise BadReply(
            f"the words {cut(phrase)!r} do not name what they point at: {', '.join(sorted(labels))}"
        )
    return items


def _clean(text: str) -> str:
    """Words without what only a machine sees. Raises BadReply."""
    text = text.strip()
    if not text.isprintable():
        raise BadReply("line breaks and invisible characters are no part of words")
    grounded = read(text)
    if grounded.issues or grounded.spans or grounded.text != text:
        raise BadReply("tags and coordinates are written by the program, never by you")
    return text
