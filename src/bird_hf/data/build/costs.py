"""What a chat teacher will ask and cost, before anything is spent."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

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
from .pipeline import BuildSettings, before_words

# English has about four characters a token; JSON, ids and other languages have fewer. Rather too many than too few.
CHARACTERS_A_TOKEN = 3


@dataclass(frozen=True)
class Estimate:
    """Requests and tokens of a run.

    `kept` requests are answered by the store, for nothing. `prompt_tokens` and `reply_tokens` are those of replies as
    long as the templates' words, none refused; `most_prompt_tokens` and `most_reply_tokens` are those of replies of
    `max_tokens` each, all refused until the last.
    """

    images: int = 0
    requests: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    most_prompt_tokens: int = 0
    most_reply_tokens: int = 0

    def costs(self, prompt_price: float, reply_price: float) -> tuple[float, float]:
        """(expected, at most), in the currency of the prices, which are for a million tokens."""
        expected = self.prompt_tokens * prompt_price + self.reply_tokens * reply_price
        most = self.most_prompt_tokens * prompt_price + self.most_reply_tokens * reply_price
        return expected / 1e6, most / 1e6


def estimate(settings: ChatSettings, store: ReplyStore, records: Iterable[ImageRecord]) -> Estimate:
    """What a run over these records asks for beyond what is kept. Sends nothing and needs no key."""
    images = requests = kept = prompt_tokens = reply_tokens = 0
    for record in records:
        images += 1
        found, missing = _requests(settings, store, record)
        kept += found
        for request, words in missing:
            requests += 1
            prompt_tokens += _tokens("".join(message["content"] for message in request.messages))
            reply_tokens += min(_tokens(words), settings.max_tokens)
    # A repeated request is longer by its reason: a line, within what CHARACTERS_A_TOKEN leaves.
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
    """What `build` with a chat teacher still has to ask for; images are read and chosen as it would.

    Raises ValueError as `build` does, and where the teacher is no chat model.
    """
    if not isinstance(teacher, ChatTeacher | BatchTeacher):
        raise ValueError("--dry-run counts what a chat model costs, and templates cost nothing; drop it")
    chat, store = teacher.settings, teacher.store
    return before_words(src, out, settings, workers, lambda records: estimate(chat, store, records), engine)


def as_table(found: Estimate, prompt_price: float, reply_price: float) -> str:
    """An estimate as Markdown; the costs are left out where no price is given."""
    lines = [
        f"{found.images:,} images, {found.requests:,} requests, {found.kept:,} more are answered already",
        "",
        "| | prompt tokens | reply tokens | cost |",
        "|---|---|---|---|",
    ]
    tokens = {
        "expected": (found.prompt_tokens, found.reply_tokens),
        "at most": (found.most_prompt_tokens, found.most_reply_tokens),
    }
    costs = found.costs(prompt_price, reply_price)
    for (name, (prompt, reply)), cost in zip(tokens.items(), costs, strict=True):
        shown = f"{cost:,.2f}" if prompt_price or reply_price else "no price given"
        lines.append(f"| {name} | {prompt:,} | {reply:,} | {shown} |")
    return "\n".join(lines)


def _requests(
    settings: ChatSettings, store: ReplyStore, record: ImageRecord
) -> tuple[int, list[tuple[Request, str]]]:
    """How many requests of an image are kept, and those still to be paid, with words as long as their replies."""
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
    words = json.dumps({"turns": turns})
    captioning = request_for(settings, record, "caption", {}).messages[0]
    if request.messages[0] != captioning:
        return kept, [(request, words)]
    data = turns_data(meta_of(record), caption, plan)
    return kept, [(request, caption), (request_for(settings, record, "turns", data), words)]


def _tokens(text: str) -> int:
    return ceil(len(text.encode()) / CHARACTERS_A_TOKEN)
