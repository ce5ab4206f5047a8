"""Estimate the requests, tokens and costs of a chat teacher before anything is sent."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

from ...markdown import table
from ..records import ImageRecord
from ..teachers.base import Teacher
from ..teachers.batch import BatchTeacher
from ..teachers.chat import (
    REPEATS,
    ChatSettings,
    ChatTeacher,
    converse,
    meta_of,
    request_for,
    turns_data,
)
from ..teachers.plan import plan_turns
from ..teachers.reply_store import ReplyStore, Request
from ..teachers.templates import caption_of, write_dialogue
from .pipeline import BuildSettings, prepared_records

# English has about four characters per token; JSON, ids and other languages have fewer. This rather overestimates.
CHARACTERS_PER_TOKEN = 3


@dataclass(frozen=True)
class Estimate:
    """Numbers of requests and tokens of a run.

    `kept` requests are answered by the store, at no cost. `prompt_tokens` and `reply_tokens` assume replies as long as
    the templates' dialogues, all accepted; `most_prompt_tokens` and `most_reply_tokens` assume replies of `max_tokens`
    each, all refused but the last.
    """

    images: int = 0
    requests: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    most_prompt_tokens: int = 0
    most_reply_tokens: int = 0

    def costs(self, prompt_price: float, reply_price: float) -> tuple[float, float]:
        """Return (expected, at most), in the currency of the prices, which are per million tokens."""
        expected = self.prompt_tokens * prompt_price + self.reply_tokens * reply_price
        most = self.most_prompt_tokens * prompt_price + self.most_reply_tokens * reply_price
        return expected / 1e6, most / 1e6


def estimate(settings: ChatSettings, store: ReplyStore, records: Iterable[ImageRecord]) -> Estimate:
    """Estimate a run over these records, beyond the replies in the store. Sends nothing and needs no API key."""
    images = requests = kept = prompt_tokens = reply_tokens = 0
    for record in records:
        images += 1
        found, missing = _requests(settings, store, record)
        kept += found
        for request, reply in missing:
            requests += 1
            prompt_tokens += _tokens("".join(message["content"] for message in request.messages))
            reply_tokens += min(_tokens(reply), settings.max_tokens)
    # A repeated request is longer by its reason: one line, which the margin of CHARACTERS_PER_TOKEN covers.
    tries = 1 + REPEATS
    most = tries * prompt_tokens, tries * requests * settings.max_tokens
    return Estimate(images, requests, kept, prompt_tokens, reply_tokens, *most)


def estimate_build(
    src: Path,
    out: Path,
    settings: BuildSettings,
    workers: int,
    teacher: Teacher,
    engine: str = "processes",
) -> Estimate:
    """Estimate what `build` with a chat teacher still has to send; images are read and chosen as in a build.

    Raises ValueError as `build` does, and if the teacher is not a chat model.
    """
    if not isinstance(teacher, ChatTeacher | BatchTeacher):
        raise ValueError("--dry-run counts what a chat model costs, and templates cost nothing; drop it")
    with prepared_records(src, out, settings, workers, engine) as records:
        return estimate(teacher.settings, teacher.store, records)


def as_table(found: Estimate, prompt_price: float, reply_price: float) -> str:
    """Return an estimate as Markdown, with costs if a price is given."""
    tokens = (
        ("expected", found.prompt_tokens, found.reply_tokens),
        ("at most", found.most_prompt_tokens, found.most_reply_tokens),
    )
    has_price = bool(prompt_price or reply_price)
    costs = (
        f"{cost:,.2f}" if has_price else "no price given" for cost in found.costs(prompt_price, reply_price)
    )
    rows = [(*row, cost) for row, cost in zip(tokens, costs, strict=True)]
    summary = (
        f"{found.images:,} images, {found.requests:,} requests, {found.kept:,} more are answered already"
    )
    return f"{summary}\n\n{table(('estimate', 'prompt tokens', 'reply tokens', 'cost'), rows)}"


def _requests(
    settings: ChatSettings, store: ReplyStore, record: ImageRecord
) -> tuple[int, list[tuple[Request, str]]]:
    """Return the number of an image's requests in the store, and those still to send with replies of typical length."""
    conversation, kept = converse(settings, record), 0
    try:
        request = next(conversation)
        while reply := store.get(request.key):
            kept += 1
            request = conversation.send(reply)
    except StopIteration:
        return kept, []
    plan, caption = plan_turns(record, settings.seed), caption_of(record)
    wanted = Counter(turn.task for turn in plan)
    example = write_dialogue(record, np.random.default_rng(0), wanted, absent=0)
    turns = [{"task": turn.task, "question": turn.question, "answer": turn.answer} for turn in example.turns]
    typical_turns = json.dumps({"turns": turns})
    captioning = request_for(settings, record, "caption", {}).messages[0]
    if request.messages[0] != captioning:
        return kept, [(request, typical_turns)]
    data = turns_data(meta_of(record), caption, plan)
    return kept, [(request, caption), (request_for(settings, record, "turns", data), typical_turns)]


def _tokens(text: str) -> int:
    return ceil(len(text.encode()) / CHARACTERS_PER_TOKEN)
