"""The teacher of the paper: a chat model behind an OpenAI-compatible endpoint (BiRD 3, steps ii and iii).

It is sent meta information, never pixels, file names or coordinates. First it writes a caption, then one question and
answer for each turn of the plan; `replies.py` reads and checks what comes back. A faulty reply is asked for again, at
most twice, with the reason. `converse` is that exchange without a network; the rest is sending, keeping and waiting.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...extras import missing_extra
from ..draws import draw_of
from ..records import Axis, Dialogue, ImageRecord, Turn, hash_of_turn
from .base import Refused
from .fact_check import BadReply, check_names
from .plan import Wanted, plan_turns
from .replies import read_caption, read_turns
from .reply_store import Reply, ReplyStore, Request
from .templates import MODALITY_NAMES, askable_absent, place_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI

REPEATS = 2  # how often a faulty reply is asked for again

_log = logging.getLogger(__name__)
_Read = TypeVar("_Read")
Conversation = Generator[Request, Reply, Dialogue | Refused]


@dataclass(frozen=True)
class ChatSettings:
    """How a chat model is asked. The API key is none of it: the SDK takes it from OPENAI_API_KEY.

    `max_tokens` bounds a reply, the thinking of a model that thinks included; `temperature` None leaves the model's
    own. `max_retries` is of failed calls (429, 500, a lost connection), with the SDK's back-off; `timeout` in seconds.
    `rejected`: hashes of turns that people rejected, and why; such a turn is asked for again.
    """

    model: str
    base_url: str | None = None
    max_tokens: int = 2000
    temperature: float | None = None
    seed: int = 0
    concurrency: int = 8
    max_retries: int = 6
    timeout: float = 120.0
    rejected: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("the teacher has no model name; give that of a chat model")
        for name in ("max_tokens", "concurrency", "timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")


def meta_of(record: ImageRecord) -> dict[str, Any]:
    """The meta information that a teacher sees: words, shares and ids, no coordinates and no file names."""
    info = record.info
    meta: dict[str, Any] = {"modality": MODALITY_NAMES[info.modality], "region": info.region}
    if any(map(str.isalpha, info.modality_detail)):  # "00" of SA-Med2D says nothing
        meta["modality_detail"] = info.modality_detail
    if info.axis is not Axis.PLANAR:
        meta["orientation"] = info.axis.value
    meta["objects"] = [
        {
            "id": item.instance_id,
            "name": item.label,
            "place": place_of(item.box, info.axis),
            "share_of_the_image": f"{100 * item.area:.2g} %",
        }
        for item in record.present
        if item.box
    ]
    meta["not_in_the_image"] = askable_absent(record)
    return meta


def turns_data(meta: dict[str, Any], caption: str, plan: Sequence[Wanted]) -> dict[str, Any]:
    """What is sent for the turns: the meta information, the caption, and what each turn is about."""
    turns = [{"task": turn.task.value, "about": turn.about or "the image"} for turn in plan]
    return {**meta, "caption": caption, "turns": turns}


def request_for(settings: ChatSettings, record: ImageRecord, prompt: str, data: dict[str, Any]) -> Request:
    """A request: the words of `prompts/<prompt>.md`, and the data between marks that no name in it can write."""
    document = json.dumps(data, ensure_ascii=False, indent=1)
    document = document.replace("<", r"\u003c").replace(">", r"\u003e")
    # A seed an image: two images with the same meta information get words of their own.
    more: dict[str, Any] = {
        "max_completion_tokens": settings.max_tokens,
        "response_format": {"type": "json_object"},
        "seed": draw_of(settings.seed, record.info.image_id) >> 32,  # some servers take 31 bits
    }
    if settings.temperature is not None:
        more["temperature"] = settings.temperature
    system = (files(__package__) / "prompts" / f"{prompt}.md").read_text("utf-8")
    messages = (
        {"role": "system", "content": system},
        {"role": "user", "content": f"<meta>\n{document}\n</meta>"},
    )
    return Request(settings.model, messages, more)


def converse(settings: ChatSettings, record: ImageRecord) -> Conversation:
    """The exchange about one image: yields requests, is sent replies, returns what came of it."""
    try:
        if not record.present:
            raise BadReply("no object is in the image")
        check_names(record)
        meta, plan = meta_of(record), plan_turns(record, settings.seed)
        caption = yield from _agree(
            settings, record, "caption", meta, lambda words: read_caption(record, words)
        )
        data = turns_data(meta, caption, plan)
        turns = yield from _agree(
            settings,
            record,
            "turns",
            data,
            lambda words: _accepted(settings, record, read_turns(record, plan, words)),
        )
    except BadReply as fault:
        return Refused(record.info.image_id, str(fault))
    return Dialogue(replace(record, caption=caption), turns, settings.model)


def _accepted(settings: ChatSettings, record: ImageRecord, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The turns, none of which people rejected. Raises BadReply."""
    for turn in turns if settings.rejected else ():
        why = settings.rejected.get(hash_of_turn(record.info.image_id, turn))
        if why is not None:
            raise BadReply(f"{turn.task}: rejected in review" + (f": {why}" if why else ""))
    return turns


def _agree(
    settings: ChatSettings,
    record: ImageRecord,
    prompt: str,
    data: dict[str, Any],
    read_words: Callable[[str], _Read],
) -> Generator[Request, Reply, _Read]:
    """Ask until a reply holds, at most `REPEATS` times again, each time with the reason."""
    reasons: list[str] = []
    for _ in range(1 + REPEATS):
        # All reasons so far, so that no request is the same as the one before: that would be answered by the store.
        asked = {**data, "refused_because": reasons} if reasons else data
        reply = yield request_for(settings, record, prompt, asked)
        try:
            return read_words(reply.words())
        except BadReply as fault:
            reasons = [*reasons, str(fault)]
            _log.debug("%s: %s refused: %s", record.info.image_id, prompt, fault)
    raise BadReply(f"{prompt}: {reasons[-1]}")


class ChatTeacher:
    """A `Teacher` that asks a chat model, several images at a time, and keeps every reply in `store`.

    A failure that is not the image's (no key, no connection, a limit that does not pass) raises ValueError: the images
    that are under way are finished and kept first, and a second run asks only for what is missing.
    """

    def __init__(self, settings: ChatSettings, store: Path) -> None:
        self.settings = settings
        self.store = ReplyStore(store)
        self.name = settings.model

    def dialogues(self, records: Iterable[ImageRecord]) -> Iterator[Dialogue | Refused]:
        """One result a record, in the order of the records."""
        line = _Line(self.settings, self.store)
        waiting: deque[Future[Dialogue | Refused]] = deque()
        try:
            for record in records:
                waiting.append(line.start(record))
                if len(waiting) >= 4 * self.settings.concurrency:  # a slow image does not hold up the others
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            line.close()


class _Line:
    """The calls of one run, in an event loop with a thread of its own: a notebook's loop is already running."""

    def __init__(self, settings: ChatSettings, store: ReplyStore) -> None:
        self.settings, self.store = settings, store
        self.client: AsyncOpenAI | None = None  # made when a reply has to be paid: stored ones need no key
        self.under_way: dict[str, asyncio.Task[Reply]] = {}
        self.free = asyncio.Semaphore(settings.concurrency)
        self.failure: Exception | None = None  # why no further call is made
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="bird-teacher", daemon=True)
        self.thread.start()

    def start(self, record: ImageRecord) -> Future[Dialogue | Refused]:
        return asyncio.run_coroutine_threadsafe(self._hold(record), self.loop)

    def close(self) -> None:
        """Let calls that are being paid for end and be kept; begin no others."""
        self.failure = self.failure or ValueError("the run was closed")
        asyncio.run_coroutine_threadsafe(self._finish(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _finish(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        if self.client is not None:
            await self.client.close()

    async def _hold(self, record: ImageRecord) -> Dialogue | Refused:
        conversation = converse(self.settings, record)
        try:
            request = next(conversation)
            while True:
                request = conversation.send(await self._reply(request))
        except StopIteration as end:
            return end.value

    async def _reply(self, request: Request) -> Reply:
        """The reply to a request: kept, on its way for another image, or paid now."""
        if kept := self.store.get(request.key):
            return kept
        if request.key not in self.under_way:
            self.under_way[request.key] = asyncio.create_task(self._pay(request))
        try:
            return await self.under_way[request.key]
        finally:
            self.under_way.pop(request.key, None)

    async def _pay(self, request: Request) -> Reply:
        async with self.free:
            if self.failure:
                raise self.failure
            try:
                self.client = self.client or connect(self.settings)
                reply = await _call(self.client, request)
                self.store.put(request.key, reply, request.payload())
            except Exception as error:
                self.failure = error  # what failed for one image fails for the next
                raise
            return reply


def connect(settings: ChatSettings) -> AsyncOpenAI:
    """The SDK's client. Raises ValueError where the package or the key is missing."""
    try:
        import openai
    except ImportError:
        raise ValueError(f"a chat teacher needs openai; {missing_extra('data')}") from None
    no_key = (
        "no API key for the teacher: set OPENAI_API_KEY (any word for a server of your own that wants none)"
    )
    try:
        client = openai.AsyncOpenAI(
            base_url=settings.base_url, max_retries=settings.max_retries, timeout=settings.timeout
        )
    except openai.OpenAIError:
        raise ValueError(no_key) from None
    if not client.api_key:
        raise ValueError(no_key)
    return client


async def _call(client: AsyncOpenAI, request: Request) -> Reply:
    """One call, the SDK's retries included. Raises ValueError where no reply is to be had."""
    import openai

    try:
        answer = await client.chat.completions.with_raw_response.create(**request.payload())
    except openai.BadRequestError as error:
        if error.code == "content_filter":  # a refusal of this image alone, and one that stays
            return Reply(error.status_code, error.response.text)
        raise ValueError(failure_of(client, error)) from None
    except openai.OpenAIError as error:
        raise ValueError(failure_of(client, error)) from None
    return Reply(200, answer.http_response.text)


def failure_of(client: AsyncOpenAI, error: Exception) -> str:
    """One line about a failed call, without the key that some servers repeat."""
    cause = "".join(filter(str.isprintable, " ".join(str(error).split()))).replace(client.api_key, "***")[
        :200
    ]
    host = client.base_url.host
    return f"the teacher at {host} does not answer: {cause}; replies so far are kept, run again to go on"
