"""What every dialect is: a grid, a view, questions, and the two functions `write` and `read`."""

from __future__ import annotations

import dataclasses
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..hub.boxes import Box
from ..hub.grounding import GroundedText, Issue, Span
from .grids import Grid, Order
from .views import View

Numbers = tuple[float, float, float, float]

# What `read` makes of a dialect's own way to say that nothing is there, such as `[]`.
ABSENT_TEXT = "There is no such object in this image."

# What ends or pads an answer if special tokens are kept in decoding. They are never content.
_CONTROL = re.compile(r"<\|(?:im_start|im_end|endoftext|eot_id|end)\|>|</?s>|<pad>|<eos>|<bos>|<end_of_turn>")
_BLANK = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Questions:
    """How the four tasks are asked; None: the model has no way to ask it.

    {question} is the question of the row, with its boxes as the dialect writes them; {names} the names that are asked
    for, joined by `name_separator`; {box} the first box of the question; {width} and {height} the size of the picture.
    vg_unnamed: used for `vg` if the names are not known.
    """

    vg: str | None
    roc: str | None = "{question}"
    rc: str | None = "{question}"
    mia: str | None = "{question}"
    vg_unnamed: str | None = None
    name_separator: str = ", "


@dataclass(frozen=True)
class Dialect(ABC):
    """A model's way of writing boxes. Its fields are settings, which `dialect.json` keeps.

    name: as options and files have it. models: who writes so. known: where the form is known from, and what of it is
    not known. frame: what the numbers refer to. sees: what the model sees of a picture. model_types: those of
    configurations that use it. name_parts: a part of a checkpoint's name that a configuration needs beside its model
    type, where other models share the type. keeps_text: whether words outside phrases survive `write`; else only
    phrases with boxes are written, if there are any. marks_phrases: whether `read` knows where a phrase begins; else it
    is taken from the words before the box. absent: how the dialect says that nothing is there; None: with a sentence.
    thinking: opening and closing marks of thinking traces, which `read` leaves out. padding_rgb: the colour with
    which a picture must be padded to what `view` says before the model's own processor gets it; None: the processor
    makes what is seen from the whole picture. special_tokens: whether its marks are special tokens of the model's
    tokenizer, so that answers must be decoded with `skip_special_tokens=False`.
    """

    name: ClassVar[str]
    models: ClassVar[str]
    known: ClassVar[str]
    frame: ClassVar[str]
    sees: ClassVar[str] = "the whole picture"
    questions: ClassVar[Questions]
    order: ClassVar[Order] = Order.X_FIRST
    model_types: ClassVar[tuple[str, ...]] = ()
    name_parts: ClassVar[tuple[str, ...]] = ()
    keeps_text: ClassVar[bool] = True
    marks_phrases: ClassVar[bool] = True
    absent: ClassVar[str | None] = None
    thinking: ClassVar[tuple[tuple[str, str], ...]] = (("<think>", "</think>"),)
    padding_rgb: ClassVar[tuple[int, int, int] | None] = None
    special_tokens: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raises ValueError if a setting has another type than its default."""
        for field in dataclasses.fields(self):
            value, default = getattr(self, field.name), field.default
            if type(value) is not type(default):
                raise ValueError(
                    f"{self.name}: setting {field.name}={value!r} is not {_type_name(default)} such as {default!r}"
                )

    @classmethod
    def fits(cls, config: Mapping[str, Any]) -> bool:
        """Whether a model with this configuration writes so, by its model type and, where that is shared, its name."""
        path = str(config.get("_name_or_path", "")).lower()
        is_named = not cls.name_parts or any(part in path for part in cls.name_parts)
        return config.get("model_type") in cls.model_types and is_named

    @classmethod
    def from_config(cls, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Dialect:
        """The dialect with the settings of a model's configuration and image processor, which may lack them."""
        return cls()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by name."""
        return dataclasses.asdict(self)

    def describe(self) -> dict[str, str]:
        """The convention in words, by the keys that `dialect.json` has beside the name and the settings."""
        grids = {self.grids(self.view(size)) for size in ((640, 480), (1280, 960))}
        grid = next(iter(grids))[0]
        is_fixed = len(grids) == 1 and len(set(next(iter(grids)))) == 1
        return {
            "frame": self.frame,
            "order": self.order.value,
            "origin": "upper left",
            "grid": grid.numbers if is_fixed else "as large as the frame",
            "rounding": grid.rounding.value,
            "read_at": "the middle of a bin" if grid.is_bins else "the edge",
            "view": self.sees,
            "absent": "a sentence" if self.absent is None else self.absent,
        }

    def view(self, image_wh: tuple[int, int]) -> View:
        """What the model sees of a picture of (width, height). Raises ValueError if the model takes no such picture."""
        return View(image_wh)

    @property
    @abstractmethod
    def markup(self) -> re.Pattern[str]:
        """What clean text may not hold when it is written, because it would be read as markup."""

    @abstractmethod
    def grids(self, view: View) -> tuple[Grid, Grid]:
        """The grids of x and of y."""

    @abstractmethod
    def format_box(self, box: Box, view: View) -> str:
        """A box as it stands in a question. Raises NotVisibleError if the model cannot see it."""

    def format_boxes(self, boxes: Sequence[Box], view: View) -> str:
        """The boxes of one phrase as they stand in a question."""
        return " ".join(self.format_box(box, view) for box in boxes)

    @abstractmethod
    def _compose(self, answer: GroundedText, view: View) -> str:
        """The text of an answer whose spans were checked."""

    @abstractmethod
    def _parse(self, text: str, view: View) -> GroundedText:
        """Reads an answer without thinking traces and control tokens."""

    def ask(
        self,
        task: str,
        question: GroundedText,
        view: View | None = None,
        names: Sequence[str] = (),
        *,
        image_wh: tuple[int, int] | None = None,
    ) -> str:
        """The question of a task (vg, roc, rc or mia) as this model is asked, without an image token.

        names: the objects that a `vg` question asks for. Raises ValueError if the model cannot be asked so, or a name
        or a box that it needs is missing; NotVisibleError if the model cannot see a box of the question.
        """
        view = self._view(view, image_wh)
        template = getattr(self.questions, str(task), None)
        if task == "vg" and not names:
            template = self.questions.vg_unnamed
            if template is None:
                raise ValueError(
                    f"{self.name} asks where things are by their names; give the names of the objects"
                )
        if not isinstance(template, str):
            raise ValueError(f"{self.name} has no way to ask questions of the task {task}")
        parts = {
            "question": lambda: self.format_question(question, view),
            "names": lambda: self.questions.name_separator.join(map(self._checked, names)),
            "box": lambda: self._question_box(question, view),
            "width": lambda: str(view.image_wh[0]),
            "height": lambda: str(view.image_wh[1]),
        }
        return _BLANK.sub(lambda blank: parts[blank[1]](), template)

    def format_question(self, question: GroundedText, view: View) -> str:
        """The words of a question, each box behind the phrase that it belongs to."""
        pieces, done = [], 0
        for span in self._spans(question):
            space = " " if span.end and span.boxes else ""
            pieces += [question.text[done : span.end], space, self.format_boxes(span.boxes, view)]
            done = span.end
        return "".join([*pieces, question.text[done:]])

    def write(
        self, answer: GroundedText, view: View | None = None, *, image_wh: tuple[int, int] | None = None
    ) -> str:
        """The text that the model is to say. `read` returns the same boxes, each edge within the quantum.

        view: what the model sees, or `image_wh` for `self.view(image_wh)`. Raises ValueError if spans do not fit the
        text or the text holds the dialect's own marks, NotVisibleError if the model cannot see a box.
        """
        view = self._view(view, image_wh)
        if self.absent is not None and answer.text == ABSENT_TEXT and not answer.spans:
            return self.absent
        return self._compose(answer, view)

    def read(
        self, text: str, view: View | None = None, *, image_wh: tuple[int, int] | None = None
    ) -> GroundedText:
        """Reads what a model has said into clean text, spans and issues; linear in the length of `text`.

        Any text is read: a box that is broken or outside the picture gives an issue and no box. Numbers of another
        scale are never guessed. Raises ValueError only for a view that cannot be.
        """
        view = self._view(view, image_wh)
        kept, unclosed = _without_thinking(text, self.thinking)
        found = self._parse(_CONTROL.sub("", kept), view)
        if not unclosed:
            return found
        return GroundedText(found.text, found.spans, (*found.issues, Issue.UNCLOSED_TAG))

    def numbers(self, box: Box, view: View) -> tuple[int, int, int, int]:
        """A box as the four numbers that are written, in the dialect's order. Raises NotVisibleError."""
        x1, y1, x2, y2 = view.to_seen(box)
        grid_x, grid_y = self.grids(view)
        return self.order.arrange(grid_x.write(x1, x2), grid_y.write(y1, y2))

    def box(self, numbers: Numbers, view: View) -> Box | Issue:
        """Four numbers in the dialect's order as a box of the picture, or what is wrong with them."""
        x1, y1, x2, y2 = self.order.xyxy(numbers)
        grid_x, grid_y = self.grids(view)
        if not all(map(math.isfinite, numbers)):
            return Issue.OUT_OF_RANGE
        if min(numbers) < 0 or max(x1, x2) > grid_x.top or max(y1, y2) > grid_y.top:
            return Issue.OUT_OF_RANGE
        if x1 >= x2 or y1 >= y2:
            return Issue.INVERTED_BOX
        seen = grid_x.read(x1), grid_y.read(y1), grid_x.read(x2), grid_y.read(y2)
        return view.from_seen(seen, self.quantum(view)) or Issue.OUTSIDE_PICTURE

    def quantum(self, view: View) -> tuple[float, float]:
        """The farthest that an edge moves by writing and reading, along x and y, in fractions of what is seen."""
        grid_x, grid_y = self.grids(view)
        return grid_x.quantum, grid_y.quantum

    def _view(self, view: View | None, image_wh: tuple[int, int] | None) -> View:
        if (view is None) == (image_wh is None):
            raise ValueError("give either a view or image_wh=(width, height) of the picture")
        return view if view is not None else self.view(image_wh or (0, 0))

    def _question_box(self, question: GroundedText, view: View) -> str:
        if not question.boxes:
            raise ValueError(
                f"{self.name} asks about a box here, and the question {question.text!r} has none"
            )
        return self.format_box(question.boxes[0], view)

    def _checked(self, text: str) -> str:
        """Text that holds no marks of the dialect; raises ValueError else."""
        marks = {mark: text.find(mark) for pair in self.thinking for mark in pair}
        marks |= {
            each.group()[:40]: each.start()
            for each in (self.markup.search(text), _CONTROL.search(text))
            if each
        }
        if found := [mark for mark, start in marks.items() if start >= 0]:
            place = f"{found[0]!r} at character {marks[found[0]]}"
            raise ValueError(f"the text holds {place}, which {self.name} would read as markup")
        return text

    def _spans(self, answer: GroundedText) -> list[Span]:
        """The spans from left to right; raises ValueError if one does not fit the text or overlaps another."""
        self._checked(answer.text)
        spans, done = sorted(answer.spans, key=lambda span: (span.start, span.end)), 0
        for span in spans:
            if not done <= span.start <= span.end <= len(answer.text):
                raise ValueError(
                    f"span {span.phrase!r} at character {span.start} overlaps another, or the text's end"
                )
            if answer.text[span.start : span.end] != span.phrase:
                raise ValueError(
                    f"span {span.start}:{span.end} says {span.phrase!r}; the text there is another"
                )
            done = span.end
        return spans


def numbers_of(values: Sequence[str], whole: bool) -> Numbers | None:
    """Four numbers in digits; None if they are not four, or have fractions where whole numbers are written.

    A fraction is a number of another frame (0.281 of the picture?): reading it as a whole one would be a guess.
    """
    if len(values) != 4 or (whole and any("." in value for value in values)):
        return None
    a, b, c, d = map(float, values)  # int() refuses thousands of digits
    return a, b, c, d


def _without_thinking(text: str, marks: Sequence[tuple[str, str]]) -> tuple[str, bool]:
    """The text without thinking traces, and whether one is not closed: nothing after its opening mark is an answer.

    What stands before a closing mark that nothing opens is a trace too: chat templates open some.
    """
    unclosed = False
    for opening, closing in marks:
        *traces, rest = text.split(closing)
        answers = [before if mark else "" for before, mark, _ in (each.partition(opening) for each in traces)]
        rest, mark, _ = rest.partition(opening)
        unclosed = unclosed or bool(mark)
        text = "".join([*answers, rest])
    return text, unclosed


def _type_name(value: object) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(type(value), type(value).__name__)
