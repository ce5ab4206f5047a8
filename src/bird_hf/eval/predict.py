"""Questions in, answers out: batched greedy generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from tqdm import tqdm

from .predictions import Prediction, finished, write_predictions

if TYPE_CHECKING:
    from datasets import Dataset

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


def predict_dataset(
    model: BirdForConditionalGeneration,
    processor: BirdProcessor,
    dataset: Dataset,
    out: Path,
    batch_size: int = 32,
) -> int:
    """Answer every single-turn row of a dataset into a prediction file; returns how many were new.

    Answers are appended as they come, so a stopped run goes on where it was. Raises ValueError where `out` holds
    answers to other questions.
    """
    expected = [
        Prediction(number, f"{row['image_id']}.png", row["messages"][0]["content"], row["messages"][1]["content"],
                   "", row["task"])
        for number, row in enumerate(dataset.select_columns(["image_id", "messages", "task"]))
    ]  # fmt: skip
    done = finished(out, expected)
    write_predictions(out, done.values())  # without a line that was cut off
    missing = [each for each in expected if each.id not in done]
    with (
        out.open("a", encoding="utf-8") as file,
        tqdm(total=len(expected), initial=len(done), desc="answering") as bar,
    ):
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            queries = [Query(each.question, dataset[each.id]["image"]) for each in batch]
            answers = generate_answers(model, processor, queries, batch_size)
            for each, answer in zip(batch, answers, strict=True):
                done[each.id] = replace(each, response=answer)
                file.write(done[each.id].as_line())
            file.flush()
            bar.update(len(batch))
    write_predictions(out, done.values())
    return len(missing)
