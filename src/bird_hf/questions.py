"""Questions as a model reads them: plain words, an image of any kind, and a box that the words refer to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from .hub.boxes import Box
from .hub.grounding import Span, write
from .images.open import ImageSource, open_image
from .images.view import Shown, View

PixelBox = tuple[float, float, float, float]

# The words of a question that its box is written behind: "What is this?", "Describe this region.", not "this image".
_POINTING = re.compile(
    r"\bthis(?: (?:region|structure|object|area))?\b(?! (?:image|picture|scan|slice)\b)", re.IGNORECASE
)


@dataclass(frozen=True)
class Query:
    """One question as the model reads it, with its image; None if the question has no image.

    `question` may hold `<ref>` and `<box>` tags. `shown` says what of its file the image is; None if it is not known.
    `task` (vg, roc, rc, mia) and the `names` that a vg question asks for are for models of other families, which are
    asked in a way of their own (bird_hf.dialects); if they are not given, the words of the question tell.
    `Query.about` makes a query from plain words and a box.
    """

    question: str
    image: Image.Image | None
    shown: Shown | None = field(default=None, repr=False, compare=False)
    task: str = field(default="", compare=False)
    names: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def about(
        cls,
        image: ImageSource,
        question: str,
        box: Box | Sequence[float] | None = None,
        view: View | None = None,
    ) -> Query:
        """A query from an image, plain words, and a box that the words refer to.

        image: a picture, DICOM, NIfTI or NRRD file, the bytes of one, a folder with one DICOM series, or a PIL image.
        box: a `Box`, or half-open pixel corners (x1, y1, x2, y2) of the picture that is shown, which is upright.
        view: which slice or frame of a volume or DICOM file is shown, and with which window; see `View`.
        Raises ValueError if the image cannot be read, the question is empty, or the box is not inside the image.
        """
        opened = open_image(image, view)
        if box is not None and not isinstance(box, Box):
            check_pixels(box, "for fractions of the image use bird_hf.Box(x1, y1, x2, y2)")
            box = Box.from_pixels(box, opened.picture.size)
        return cls(tagged_question(question, box), opened.picture, opened.shown)


def tagged_question(question: str, box: Box | None = None) -> str:
    """A question as the model reads it: the box follows "this ...", or " this region" is added at the end.

    Raises ValueError if the question is empty.
    """
    question = question.strip()
    if not question:
        raise ValueError('the question is empty; ask something, such as "Where is the right lung?"')
    if box is None:
        return question
    if not _POINTING.search(question):
        question += " this region"
    return _POINTING.sub(lambda found: _boxed(found.group(), box), question, count=1)


def read_box_px(text: str, name: str = "box") -> PixelBox:
    """The four numbers of "x1,y1,x2,y2". Raises ValueError, calling the text `name`, if it is anything else."""
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        example = "such as 10,20,110,90"
        raise ValueError(f"{name} {text!r} is not four numbers x1,y1,x2,y2 in pixels, {example}") from None
    return x1, y1, x2, y2


def read_box_unit(text: str, name: str = "box") -> Box:
    """The `Box` of "x1,y1,x2,y2" in fractions of the image.

    Raises ValueError, calling the text `name`, if it is not a box.
    """
    try:
        return Box(*(float(part) for part in text.split(",")))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name} {text!r} is not a box: four fractions x1,y1,x2,y2 with 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1, "
            "such as 0.1,0.2,0.5,0.9"
        ) from error


def check_pixels(xyxy: Sequence[float], remedy: str) -> None:
    """Raises ValueError, ending in `remedy`, if corners seem to be fractions of the image: none is above 1."""
    if all(0 <= value <= 1 for value in xyxy):
        shown = ",".join(f"{value:g}" for value in xyxy)
        raise ValueError(f"box {shown}: boxes are in pixels; {remedy}")


def _boxed(phrase: str, box: Box) -> str:
    return write(phrase, [Span(phrase, 0, len(phrase), (box,))])
