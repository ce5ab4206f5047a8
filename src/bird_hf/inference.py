"""Ask a BiRD model about images: questions in, answers with boxes out.

    from bird_hf import ask

    answer = ask("scan.png", "Where is the right lung?", model="bird")
    print(answer.text, answer.boxes_px)
    print(ask("scan.png", "What is this?", box=(40, 60, 120, 150), model="bird").text)

`ask` loads a checkpoint once and keeps it. For many questions load the model yourself: `load("bird").answers(queries)`
runs them in batches. The command line, the demo and the predictions use the same class.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from .checkpoint.load import find_checkpoint, load_checkpoint
from .draw import draw_spans
from .hub.boxes import Box
from .hub.grounding import GroundedText, Issue, Span, read
from .hub.pixels import rgb_image
from .images.open import ImageSource
from .images.view import Shown, View
from .progress import progress_bar
from .questions import PixelBox, Query
from .remarks import NameRemarks

if TYPE_CHECKING:
    from .hub.modeling_bird import BirdForConditionalGeneration
    from .hub.processing_bird import BirdProcessor

MAX_NEW_TOKENS = 128  # two boxes and a long name take about 70
DTYPES = ("float32", "bfloat16", "float16")
_CACHED_MODELS = 2
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


class GroundingModel:
    """A BiRD model with its processor, in evaluation mode.

    Args:
        model: a `BirdForConditionalGeneration`, on any device.
        processor: its `BirdProcessor`.
        name: how the checkpoint is named in answers.
    """

    def __init__(self, model: BirdForConditionalGeneration, processor: BirdProcessor, name: str = "") -> None:
        self.model = model
        self.processor = processor
        self.name = name

    @cached_property
    def _name_remarks(self) -> NameRemarks:
        return NameRemarks(self.processor.known_names)

    def ask(
        self,
        image: ImageSource,
        question: str,
        box: Box | Sequence[float] | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        view: View | None = None,
    ) -> Answer:
        """Ask one question about an image; see `Query.about` for the arguments and errors."""
        (answer,) = self.answers([Query.about(image, question, box, view)], max_new_tokens=max_new_tokens)
        return answer

    def answers(
        self,
        queries: Sequence[Query],
        batch_size: int = 32,
        max_new_tokens: int = MAX_NEW_TOKENS,
        progress: bool = False,
    ) -> list[Answer]:
        """Answer many queries, in their order; see `generate`."""
        images = {id(query.image): query.image for query in queries}
        upright = {key: rgb_image(image) if image is not None else None for key, image in images.items()}
        texts = self.generate(queries, batch_size, max_new_tokens, progress)
        return [
            self._answer(text, query, upright[id(query.image)])
            for text, query in zip(texts, queries, strict=True)
        ]

    def _answer(self, raw: str, query: Query, image: Image.Image | None) -> Answer:
        question = read(query.question)
        remarks = self._name_remarks.remarks(question, read(raw))
        fields = {"remarks": remarks, "question": question, "model": self.name, "shown": query.shown}
        return Answer.from_raw(raw, image, **fields)

    @torch.inference_mode()
    def generate(
        self,
        queries: Sequence[Query],
        batch_size: int = 32,
        max_new_tokens: int = MAX_NEW_TOKENS,
        progress: bool = False,
    ) -> list[str]:
        """The tagged text of each answer, in the order of the queries. Greedy; batches are padded on the left.

        Queries of a batch that share an image object share its features, which are computed once.
        Questions are user text: `<ref>` and `<box>` in them are read as tags, any other control token is plain text.
        """
        # Questions of similar length go together, to keep padding short.
        order = sorted(range(len(queries)), key=lambda index: len(queries[index].question))
        texts = [""] * len(queries)
        with progress_bar(total=len(queries), desc="answering", unit="question", disable=not progress) as bar:
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                generated = self._generate_batch([queries[index] for index in batch], max_new_tokens)
                for index, text in zip(batch, generated, strict=True):
                    texts[index] = text
                bar.update(len(batch))
        return texts

    def _generate_batch(self, queries: Sequence[Query], max_new_tokens: int) -> list[str]:
        inputs = self.processor.apply_chat_template(
            [_conversation(query) for query in queries],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs={"padding": True, "padding_side": "left"},
        ).to(self.model.device)
        self._share_image_features(inputs, [query.image for query in queries if query.image is not None])
        output = self.model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
        new_ids = output[:, inputs["input_ids"].shape[1] :]
        return self.processor.batch_decode(new_ids, skip_special_tokens=True)

    def _share_image_features(self, inputs: MutableMapping[str, Any], images: Sequence[Image.Image]) -> None:
        """If an image object occurs several times in a batch, replace the pixels by features computed once."""
        first: dict[int, int] = {}
        for place, image in enumerate(images):
            first.setdefault(id(image), place)
        if len(first) < len(images):
            pixels = inputs.pop("pixel_values")[list(first.values())]
            encoded: Any = self.model.get_image_features(pixels)
            features = dict(zip(first, encoded.pooler_output, strict=True))
            inputs["image_features"] = [features[id(image)] for image in images]


def ask(
    image: ImageSource,
    question: str,
    box: Box | Sequence[float] | None = None,
    model: str | os.PathLike[str] | GroundingModel = "bird",
    max_new_tokens: int = MAX_NEW_TOKENS,
    view: View | None = None,
) -> Answer:
    """Ask a question about an image.

    Args:
        image: a picture, DICOM, NIfTI or NRRD file, the bytes of one, a folder with one DICOM series, or a PIL image.
        question: for example "Where is the right lung?".
        box: the region that the question is about ("What is this?"), as a `Box` or as half-open pixel corners
            (x1, y1, x2, y2) of the picture that is shown, which is upright.
        model: a checkpoint folder, a hub repository OWNER/NAME, or a loaded `GroundingModel`. The last two named
            checkpoints stay loaded; one whose files have changed is loaded again.
        max_new_tokens: the largest number of tokens in the answer.
        view: which slice or frame of a volume or DICOM file is shown, and with which window; see `View`.

    Raises ValueError, in one line, if the image, the question, the box or the checkpoint cannot be used.
    """
    query = Query.about(image, question, box, view)
    if isinstance(model, GroundingModel):
        name = model.name
    else:
        folder = find_checkpoint(model).resolve()
        name, model = os.fspath(model), _load_cached(folder, _last_change_ns(folder))
    (answer,) = model.answers([query], max_new_tokens=max_new_tokens)
    return replace(answer, model=name)


def load(
    name: str | os.PathLike[str] = "bird", device: str | None = None, dtype: str | None = None, **kwargs: Any
) -> GroundingModel:
    """Load a checkpoint folder, or a hub repository OWNER/NAME, for asking.

    device: a torch device such as "cuda" or "cuda:1"; by default the CPU.
    dtype: float32 (the default), bfloat16 or float16.
    `kwargs` go to the model's `from_pretrained`, such as `device_map="auto"`.
    Raises ValueError, in one line, if it is not a usable BiRD checkpoint, or if there is no such device or dtype.
    """
    place = None if device is None else _check_device(device)
    if dtype is not None:
        kwargs["dtype"] = _check_dtype(dtype)
    model, processor = load_checkpoint(find_checkpoint(name), **kwargs)
    return GroundingModel(model if place is None else model.to(place), processor, os.fspath(name))


def _check_device(name: str) -> torch.device:
    """Raises ValueError if torch does not know the device, or cannot use it here."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        found = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        found += ["mps"] if torch.backends.mps.is_available() else []
        raise ValueError(f"device {name!r} cannot be used here; use {' or '.join(found)}") from error
    return device


def _check_dtype(name: str | torch.dtype) -> torch.dtype:
    dtype = getattr(torch, name, None) if isinstance(name, str) else name
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype {name!r} is unknown; use {', '.join(DTYPES)}")
    return dtype


def span_json(span: Span, image_wh: tuple[int, int]) -> dict[str, Any]:
    """A span as `bird ask --json` shows it, with its boxes in the unit frame and in pixels."""
    return {
        "phrase": span.phrase,
        "start": span.start,
        "end": span.end,
        "boxes_unit": [list(box.xyxy) for box in span.boxes],
        "boxes_px": [list(box.to_pixels(image_wh)) for box in span.boxes],
    }


@lru_cache(maxsize=_CACHED_MODELS)
def _load_cached(folder: Path, last_change_ns: int) -> GroundingModel:
    return load(folder)


def _last_change_ns(folder: Path) -> int:
    """When a file of the folder was last written: part of the cache's key, so that new weights are not missed."""
    return max((file.stat().st_mtime_ns for file in folder.glob("*.*")), default=0)


def _conversation(query: Query) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = [{"type": "text", "text": query.question}]
    if query.image is not None:
        content.insert(0, {"type": "image", "image": query.image})
    return [{"role": "user", "content": content}]
