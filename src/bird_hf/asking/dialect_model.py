"""What models of other families have in common: they are asked, and answer, in a dialect."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from PIL import Image

from .. import dialects
from ..answering import AskedModel, Decoding
from ..data.records import Task
from ..dialects import Dialect
from ..hub.grounding import GroundedText, Issue, read
from ..hub.pixels import rgb_image
from ..questions import Query
from .bird_text import bird_text
from .tasks import task_of

NEW_TOKENS = 1024  # JSON lists are long, and some models think before they answer
MAX_ANSWER_CHARS = 100_000  # of an answer; the rest is not read


class DialectModel(AskedModel):
    """A model that is asked in a dialect.

    dialect: how it writes boxes. name: how it is named in answers. remarks: what a user should know about the two, one
    sentence each.
    """

    new_tokens = NEW_TOKENS

    def __init__(self, dialect: Dialect, name: str, remarks: Sequence[str] = ()) -> None:
        self.dialect = dialect
        self.name = name
        self.remarks = tuple(remarks)

    @property
    def dialect_name(self) -> str:
        return self.dialect.name

    @abstractmethod
    def sample(
        self, queries: Sequence[Query], decoding: Decoding, batch_size: int = 32, progress: bool = False
    ) -> list[tuple[str, ...]]: ...

    def prompt(self, query: Query) -> str:
        """The question as the model reads it. Raises ValueError if it cannot be asked."""
        question = read(query.question)
        task, names = task_of(query, question)
        return self.dialect.ask(task, question, self.view(query), names)

    def view(self, query: Query) -> dialects.View:
        """What the model sees of the picture of a query."""
        return self.dialect.view(self._upright(query).size)

    def picture(self, query: Query) -> Image.Image:
        """The picture that the model's processor gets: upright RGB, padded where the dialect wants it so."""
        upright = self._upright(query)
        if self.dialect.padding_rgb is None:
            return upright
        left, top, right, bottom = map(int, self.dialect.view(upright.size).padding_px)
        size = (upright.width + left + right, upright.height + top + bottom)
        padded = Image.new("RGB", size, self.dialect.padding_rgb)
        padded.paste(upright, (left, top))
        return padded

    def refusal(self, query: Query) -> str:
        try:
            self.prompt(query)
        except ValueError as error:
            return " ".join(str(error).split())
        return ""

    def asks(self, query: Query) -> bool:
        task, names = task_of(query, read(query.question))
        is_unnamed = task == Task.VISUAL_GROUNDING and not names
        return getattr(self.dialect.questions, "vg_unnamed" if is_unnamed else task, None) is not None

    def read(self, raw: str, query: Query) -> GroundedText:
        found = self.dialect.read(raw[:MAX_ANSWER_CHARS], self.view(query))
        if len(raw) <= MAX_ANSWER_CHARS:
            return found
        return GroundedText(found.text, found.spans, (*found.issues, Issue.TOO_LONG))

    def bird_text(self, raw: str, query: Query) -> str:
        return bird_text(self.read(raw, query))

    def _upright(self, query: Query) -> Image.Image:
        if query.image is None:
            raise ValueError(f"{self.name} is asked about an image, and this question has none; give one")
        return rgb_image(query.image)
