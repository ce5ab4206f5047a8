"""Questions in, answers out: batched greedy generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image
from tqdm import tqdm

if TYPE_CHECKING:
    from ..hub.modeling_bird import BirdForConditionalGeneration
    from ..hub.processing_bird import BirdProcessor

MAX_NEW_TOKENS = 128  # two boxes and a long name take about 70


@dataclass(frozen=True)
class Query:
    """A tagged question about an image; None for a question without one."""

    question: str
    image: Image.Image | None


@torch.inference_mode()
def generate_answers(
    model: BirdForConditionalGeneration,
    processor: BirdProcessor,
    queries: Sequence[Query],
    batch_size: int = 32,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: bool = False,
) -> list[str]:
    """The model's tagged answers, in the order of the queries. Greedy; batches are padded on the left.

    Questions are user text: <ref> and <box> in them are read as tags, any other control token is plain text.
    """
    # Questions of like length go together, so that little is padding.
    order = sorted(range(len(queries)), key=lambda index: len(queries[index].question))
    answers = [""] * len(queries)
    with tqdm(total=len(queries), desc="answering", unit="question", disable=not progress) as bar:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            texts = _generate(model, processor, [queries[index] for index in batch], max_new_tokens)
            for index, text in zip(batch, texts, strict=True):
                answers[index] = text
            bar.update(len(batch))
    return answers


def _generate(
    model: BirdForConditionalGeneration,
    processor: BirdProcessor,
    queries: Sequence[Query],
    max_new_tokens: int,
) -> list[str]:
    inputs = processor.apply_chat_template(
        [_conversation(query) for query in queries],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"padding": True, "padding_side": "left"},
    ).to(model.device)
    output = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
    return processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def _conversation(query: Query) -> list[dict]:
    content: list[dict] = [{"type": "text", "text": query.question}]
    if query.image is not None:
        content.insert(0, {"type": "image", "image": query.image})
    return [{"role": "user", "content": content}]
