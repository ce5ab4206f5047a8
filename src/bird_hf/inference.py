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
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from .answering import MAX_NEW_TOKENS, Answer, AskedModel, Decoding, span_json
from .checkpoint.load import find_checkpoint, load_checkpoint
from .data.draws import draw_of
from .hub.boxes import Box
from .images.open import ImageSource
from .images.view import View
from .progress import progress_bar
from .questions import Query

if TYPE_CHECKING:
    from .hub.modeling_bird import BirdForConditionalGeneration
    from .hub.processing_bird import BirdProcessor

__all__ = ["MAX_NEW_TOKENS", "Answer", "GroundingModel", "Query", "ask", "load", "span_json"]

DTYPES = ("float32", "bfloat16", "float16")
_CACHED_MODELS = 2


class GroundingModel(AskedModel):
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

    @property
    def known_names(self) -> Sequence[str]:
        return self.processor.known_names

    @torch.inference_mode()
    def sample(
        self, queries: Sequence[Query], decoding: Decoding, batch_size: int = 32, progress: bool = False
    ) -> list[tuple[str, ...]]:
        """The tagged texts of the answers to each query. Batches are padded on the left.

        Queries of a batch that share an image object share its features, which are computed once.
        Questions are user text: `<ref>` and `<box>` in them are read as tags, any other control token is plain text.
        """
        return in_batches(self._generate_batch, queries, decoding, batch_size, progress)

    def _generate_batch(self, queries: Sequence[Query], decoding: Decoding) -> list[str]:
        inputs = self.processor.apply_chat_template(
            [_conversation(query) for query in queries],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs={"padding": True, "padding_side": "left"},
        ).to(self.model.device)
        self._share_image_features(inputs, [query.image for query in queries if query.image is not None])
        bound = decoding.max_new_tokens or self.new_tokens
        output = self.model.generate(**inputs, **sampling_options(decoding), max_new_tokens=bound)
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
    max_new_tokens: int | None = None,
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
    place = None if device is None else check_device(device)
    if dtype is not None:
        kwargs["dtype"] = check_dtype(dtype)
    model, processor = load_checkpoint(find_checkpoint(name), **kwargs)
    return GroundingModel(model if place is None else model.to(place), processor, os.fspath(name))


def check_device(name: str) -> torch.device:
    """Raises ValueError if torch does not know the device, or cannot use it here."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        found = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        found += ["mps"] if torch.backends.mps.is_available() else []
        raise ValueError(f"device {name!r} cannot be used here; use {' or '.join(found)}") from error
    return device


def check_dtype(name: str | torch.dtype) -> torch.dtype:
    dtype = getattr(torch, name, None) if isinstance(name, str) else name
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype {name!r} is unknown; use {', '.join(DTYPES)}")
    return dtype


def sampling_options(decoding: Decoding) -> dict[str, Any]:
    """Options of transformers' `generate`. What is None overrides what a checkpoint's generation settings say."""
    if decoding.is_greedy:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": decoding.temperature, "num_return_sequences": decoding.n}


def in_batches(
    generate: Callable[[Sequence[Query], Decoding], Sequence[str]],
    queries: Sequence[Query],
    decoding: Decoding,
    batch_size: int,
    progress: bool,
) -> list[tuple[str, ...]]:
    """What a model of this process says to each query, `decoding.n` times each, in the order of the queries.

    generate: the texts of a batch, `decoding.n` in a row for each query. Samples depend on the seed and on the
    questions of their batch.
    """
    # Questions of similar length go together, to keep padding short.
    order = sorted(range(len(queries)), key=lambda index: len(queries[index].question))
    said: list[tuple[str, ...]] = [()] * len(queries)
    with progress_bar(total=len(queries), desc="answering", unit="question", disable=not progress) as bar:
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            batch = [queries[place] for place in places]
            if not decoding.is_greedy:
                torch.manual_seed(draw_of(decoding.seed, "".join(query.question for query in batch)))
            texts = generate(batch, decoding)
            for place, first in zip(places, range(0, len(texts), decoding.n), strict=True):
                said[place] = tuple(texts[first : first + decoding.n])
            bar.update(len(batch))
    return said


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
