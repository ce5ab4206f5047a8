"""Med-GRIT rows as questions and answers in a model's own dialect, one question a row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from datasets import Dataset, IterableDataset

from ...data.folder.left_out import LeftOutRow
from ...data.records import Task
from ...dialects import ABSENT_TEXT, Dialect, NotVisibleError, View
from ...eval.outcomes import MALFORMED, Outcome, outcome_of
from ...eval.readings import holds_name
from ...hub.grounding import GroundedText, read
from ..rows import name_of
from ..turns import task_of_turn

_COLUMNS = ("image_id", "image_wh", "messages", "objects", "forms", "task", "independent")
_SHOWN = 60  # characters of a question that a message shows
# What an image processor shows of a picture of (width, height); None: the whole.
Shown = Callable[[tuple[int, int]], View | None]


@dataclass(frozen=True)
class Example:
    """A question and its answer as the model reads and writes them.

    row: number of the row of the dataset. history: earlier questions and answers of a dialogue whose turns refer to
    each other. reference: the answer as tagged text, for scores.
    """

    row: int
    image_id: str
    image_wh: list[int]
    task: str
    history: list[list[str]]
    question: str
    answer: str
    reference: str


@dataclass(frozen=True)
class Turn:
    """A question of a row with its answer, and the names that it asks for. tagged: both as the row has them."""

    task: Task
    question: GroundedText
    answer: GroundedText
    names: tuple[str, ...]
    tagged: tuple[str, str]


def examples_of(
    dataset: Dataset, dialect: Dialect, control: re.Pattern[str], shown: Shown, size_of: Callable[[int], Any]
) -> tuple[list[Example], list[LeftOutRow]]:
    """The questions of all rows, and those that were left out because they cannot be asked or answered so.

    control: matches the control tokens of the model. size_of: width and height of the image of a row that does not say
    it. Raises ValueError if the dataset is streamed or has not the columns of Med-GRIT.
    """
    if isinstance(dataset, IterableDataset):
        raise ValueError("method any_vlm needs all rows before it begins; set dataset_streaming: false")
    if missing := {"image", "messages"} - {*dataset.column_names}:
        raise ValueError(
            f"the dataset has no column {' or '.join(sorted(missing))}; is it a Med-GRIT folder?"
        )
    examples: list[Example] = []
    left_out: list[LeftOutRow] = []
    rows = dataset.select_columns([name for name in _COLUMNS if name in dataset.column_names])
    for number, row in enumerate(rows):
        size = row.get("image_wh") or size_of(number)
        for found in _examples_of_row(number, row, (size[0], size[1]), dialect, control, shown):
            (examples if isinstance(found, Example) else left_out).append(found)  # type: ignore[arg-type]
    return examples, left_out


def as_dataset(examples: Sequence[Example]) -> Dataset:
    """Examples as a dataset of one question a row."""
    return Dataset.from_list([asdict(example) for example in examples])


def turns_of(row: Mapping[str, Any]) -> list[Turn]:
    """The questions of a row with their answers. Raises ValueError if its messages are not such pairs."""
    messages, forms = row["messages"] or [], row.get("forms") or []
    roles = [message["role"] for message in messages]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise ValueError("its messages are not pairs of user and assistant")
    if not all(isinstance(message["content"], str) for message in messages):
        raise ValueError("the content of its messages is not text")
    texts = [message["content"] for message in messages]
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return [
        _turn(row, question, answer, forms[number] if number < len(forms) else "")
        for number, (question, answer) in enumerate(pairs)
    ]


def _turn(row: Mapping[str, Any], asked: str, answered: str, form: str) -> Turn:
    question, answer = read(asked), read(answered)
    task = task_of_turn(question, answer, form, row.get("task"))
    if task != Task.VISUAL_GROUNDING:
        return Turn(task, question, answer, (), (asked, answered))
    names = tuple(dict.fromkeys(span.phrase for span in answer.spans if span.boxes and span.phrase))
    if not answer.boxes:
        names = _absent_names(row, question.text)
    return Turn(task, question, answer, names, (asked, answered))


def _absent_names(row: Mapping[str, Any], question: str) -> tuple[str, ...]:
    """The absent objects that a question names; of "kidney" and "left kidney" the longer one."""
    found = [
        item["label"]
        for item in row.get("objects") or ()
        if not item["present"] and holds_name(question, item["label"])
    ]
    return tuple(
        name
        for name in dict.fromkeys(found)
        if not any(name != each and holds_name(each, name) for each in found)
    )


def _examples_of_row(
    number: int,
    row: Mapping[str, Any],
    image_wh: tuple[int, int],
    dialect: Dialect,
    control: re.Pattern[str],
    shown: Shown,
) -> Iterator[Example | LeftOutRow]:
    name = name_of(row)
    try:
        turns, view, seen = turns_of(row), dialect.view(image_wh), shown(image_wh)
    except ValueError as error:
        yield LeftOutRow(name, "not_asked", str(error), "correct the row")
        return
    history: list[list[str]] = []
    for turn in turns:
        try:
            _check_turn(turn, control, seen)
            question = dialect.ask(turn.task, turn.question, view, turn.names)
            answer = dialect.write(_in_words_of(dialect, turn), view)
        except NotVisibleError as error:
            yield LeftOutRow(
                name, "not_visible", f"{_short(turn)}: {error}", "use a processor that crops nothing"
            )
        except ValueError as error:
            yield LeftOutRow(
                name, "not_said", f"{_short(turn)}: {error}", "use another dialect, or change the text"
            )
        else:
            yield Example(
                number, name, [*image_wh], turn.task.value, [*history], question, answer, turn.tagged[1]
            )
            if not row.get("independent", False):
                history.append([question, answer])
            continue
        if not row.get("independent", False):
            return  # what follows may refer to it


def _in_words_of(dialect: Dialect, turn: Turn) -> GroundedText:
    """The answer; if it says that an object is absent and the dialect has its own way to say so, in that way."""
    says_absent = turn.task == Task.VISUAL_GROUNDING and not turn.answer.boxes
    if dialect.absent is None or not says_absent:
        return turn.answer
    is_clear = outcome_of(turn.task, turn.tagged[1]) is Outcome.SAID_ABSENT
    return GroundedText(ABSENT_TEXT) if is_clear else turn.answer


def _check_turn(turn: Turn, control: re.Pattern[str], seen: View | None) -> None:
    """Raises ValueError if the text holds a control token or a broken box, NotVisibleError if a box is cut away."""
    for text in turn.tagged:
        if found := control.search(text):
            raise ValueError(f"the text holds the control token {found.group()}")
    if broken := MALFORMED & {*turn.question.issues, *turn.answer.issues}:
        raise ValueError(f"the tagged text has {', '.join(sorted(broken))}")
    for box in (*turn.question.boxes, *turn.answer.boxes) if seen is not None else ():
        seen.to_seen(box)
    if not turn.answer.text.strip() and not turn.answer.boxes:
        raise ValueError("the answer is empty")


def _short(turn: Turn) -> str:
    text = turn.question.text
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")
