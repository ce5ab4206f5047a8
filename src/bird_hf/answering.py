"""Answers, and the one interface of all models that give them: BiRD, other families, and models behind an endpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from PIL import Image

from .draw import draw_spans
from .hub.boxes import Box
from .hub.grounding import GroundedText, Issue, Span, read
from .hub.pixels import rgb_image
from .images.open import ImageSource
from .images.view import Shown, View
from .questions import PixelBox, Query
from .remarks import NameRemarks

MAX_NEW_TOKENS = 128  # two boxes and a long name take about 70
MAX_SAMPLES = 1000  # answers to one question
_NO_QUESTION = GroundedText("", ())
_PLAIN = Shown()


@dataclass(frozen=True)
class Answer:
    """A model's answer to one question.

    text: the answer in words, without tags.
    raw: the answer as the model wrote it, with tags.
    spans: the phrases of `text` that were tagged, each with its boxes.
    issues: what is malformed in `raw`; see `bird_hf.read`.
    image: the image that was asked about, upright 8-bit RGB; None if the question had no image.
    remarks: what to know about the names in question and answer; see `bird_hf.remarks`.
    question: the words of the question, with the phrases that point at a box.
    model: the checkpoint that answered, as it was named.
    shown: what of its file the image is, such as a slice of a volume; None if it is not known.
    """

    text: str
    raw: str
    spans: tuple[Span, ...] = ()
    issues: tuple[Issue, ...] = ()
    image: Image.Image | None = field(default=None, repr=False, compare=False)
    remarks: tuple[str, ...] = ()
    question: GroundedText = _NO_QUESTION
    model: str = ""
    shown: Shown | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_raw(cls, raw: str, image: Image.Image | None = None, **fields: Any) -> Answer:
        """The answer that the tagged text `raw` holds; `fields` are the other fields of an answer."""
        grounded = read(raw)
        return cls(grounded.text, raw, grounded.spans, grounded.issues, image, **fields)

    @property
    def image_wh(self) -> tuple[int, int] | None:
        """Width and height of the image in pixels."""
        return self.image.size if self.image is not None else None

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes of all spans."""
        return tuple(box for span in self.spans for box in span.boxes)

    @property
    def boxes_px(self) -> tuple[PixelBox, ...]:
        """The boxes of all spans as half-open pixel corners (x1, y1, x2, y2), not rounded."""
        size = self._asked_image().size
        return tuple(box.to_pixels(size) for box in self.boxes)

    def to_json(self) -> dict[str, Any]:
        """The document that `bird ask --json` prints, as a dict; boxes in the unit frame and in pixels.

        If the image is a slice, a frame or a turned photograph, "shown" says which; boxes are then also in millimetres
        and in voxels of the file, where they are known.
        """
        size = self._asked_image().size
        asked = self.question.boxes
        shown = self.shown or _PLAIN
        facts = {"shown": shown.to_json(), **shown.boxes_json(asked, size, "question_")} if shown.note else {}
        return {
            "text": self.text,
            "raw": self.raw,
            "spans": [span_json(span, size) | shown.boxes_json(span.boxes, size) for span in self.spans],
            "issues": [str(issue) for issue in self.issues],
            "remarks": list(self.remarks),
            "question": self.question.text,
            "question_boxes_unit": [list(box.xyxy) for box in asked],
            "question_boxes_px": [list(box.to_pixels(size)) for box in asked],
            "image_wh": list(size),
            "model": self.model,
            **facts,
        }

    def draw(self, reference: Sequence[Span] = ()) -> Image.Image:
        """A copy of the image with the boxes of the question and the answer, and their phrases.

        The phrases of the question end in a question mark. The boxes of `reference` are dashed and green. Images with
        sides below 512 pixels are enlarged.
        """
        asked = [Span(f"{span.phrase}?", 0, 0, span.boxes) for span in self.question.spans]
        return draw_spans(self._asked_image(), [*asked, *self.spans], reference)

    def _asked_image(self) -> Image.Image:
        if self.image is None:
            raise ValueError("this answer is to a question without an image; its boxes have no pixels")
        return self.image


class StoppedError(ValueError):
    """A model can answer no further question, such as an endpoint that does not answer."""


@dataclass(frozen=True)
class Decoding:
    """How answers are decoded.

    n: answers to each question. temperature: 0 takes the most likely token. max_new_tokens: the largest number of
    tokens in an answer; None for the model's default. seed: of samples. Raises ValueError if values do not fit.
    """

    n: int = 1
    temperature: float = 0.0
    max_new_tokens: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (1 <= self.n <= MAX_SAMPLES and 0 <= self.temperature <= 10):
            raise ValueError(
                f"n {self.n} is 1 to {MAX_SAMPLES}, and temperature {self.temperature} from 0 to 10"
            )
        if self.n > 1 and self.temperature == 0:
            raise ValueError(f"{self.n} answers at temperature 0 are all the same; give --temperature 0.7")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


class AskedModel(ABC):
    """A model that answers questions about images: what `bird ask`, `bird predict` and `bird demo` need of it.

    name: how it is named in answers. remarks: what to know about asking it, one sentence each. new_tokens: the default
    bound of an answer. The boxes of its answers are fractions
    of the upright picture, however the model writes them.
    """

    name: str
    remarks: Sequence[str] = ()
    new_tokens: int = MAX_NEW_TOKENS

    @property
    def known_names(self) -> Sequence[str]:
        """The names that the model was trained on, if that is known."""
        return ()

    @property
    def dialect_name(self) -> str:
        """How the model writes boxes; see `bird_hf.dialects`."""
        return "bird"

    @cached_property
    def _name_remarks(self) -> NameRemarks:
        return NameRemarks(self.known_names)

    @abstractmethod
    def sample(
        self, queries: Sequence[Query], decoding: Decoding, batch_size: int = 32, progress: bool = False
    ) -> list[tuple[str, ...]]:
        """What the model says to each query, `decoding.n` times each, in the order of the queries."""

    def generate(
        self,
        queries: Sequence[Query],
        batch_size: int = 32,
        max_new_tokens: int | None = None,
        progress: bool = False,
    ) -> list[str]:
        """What the model says to each query, greedily decoded, in the order of the queries."""
        said = self.sample(queries, Decoding(max_new_tokens=max_new_tokens), batch_size, progress)
        return [first for first, *_ in said]

    def read(self, raw: str, query: Query) -> GroundedText:
        """What the model has said in answer to `query` as clean text, spans and issues."""
        return read(raw)

    def bird_text(self, raw: str, query: Query) -> str:
        """The same in the grammar of BiRD, which scores read."""
        return raw

    def refusal(self, query: Query) -> str:
        """Why the model cannot be asked a question, in one line; empty if it can."""
        return ""

    def asks(self, query: Query) -> bool:
        """Whether the model has a way to be asked such a question, whatever its image is."""
        return True

    def ask(
        self,
        image: ImageSource,
        question: str,
        box: Box | Sequence[float] | None = None,
        max_new_tokens: int | None = None,
        view: View | None = None,
    ) -> Answer:
        """Ask one question about an image; see `Query.about` for the arguments and errors."""
        (answer,) = self.answers([Query.about(image, question, box, view)], max_new_tokens=max_new_tokens)
        return answer

    def answers(
        self,
        queries: Sequence[Query],
        batch_size: int = 32,
        max_new_tokens: int | None = None,
        progress: bool = False,
    ) -> list[Answer]:
        """Answer many queries, in their order; see `generate`."""
        bound = self.new_tokens if max_new_tokens is None else max_new_tokens
        texts = self.generate(queries, batch_size, bound, progress)
        return [first for first, *_ in self._answered(queries, [(text,) for text in texts])]

    def sampled_answers(
        self, queries: Sequence[Query], decoding: Decoding, batch_size: int = 32, progress: bool = False
    ) -> list[list[Answer]]:
        """Answer each query `decoding.n` times."""
        return self._answered(queries, self.sample(queries, decoding, batch_size, progress))

    def _answered(self, queries: Sequence[Query], said: Sequence[Sequence[str]]) -> list[list[Answer]]:
        images = {id(query.image): query.image for query in queries}
        upright = {key: rgb_image(image) if image is not None else None for key, image in images.items()}
        return [
            [self._answer(text, query, upright[id(query.image)]) for text in texts]
            for texts, query in zip(said, queries, strict=True)
        ]

    def _answer(self, raw: str, query: Query, image: Image.Image | None) -> Answer:
        question, found = read(query.question), self.read(raw, query)
        return Answer(
            found.text, raw, found.spans, found.issues, image, self._name_remarks.remarks(question, found), question,
            self.name, query.shown,
        )  # fmt: skip


def span_json(span: Span, image_wh: tuple[int, int]) -> dict[str, Any]:
    """A span as `bird ask --json` shows it, with its boxes in the unit frame and in pixels."""
    return {
        "phrase": span.phrase,
        "start": span.start,
        "end": span.end,
        "boxes_unit": [list(box.xyxy) for box in span.boxes],
        "boxes_px": [list(box.to_pixels(image_wh)) for box in span.boxes],
    }
