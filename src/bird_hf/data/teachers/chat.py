"""The teacher of the paper: a chat model behind an OpenAI-compatible endpoint (BiRD 3, steps ii and iii).

It is sent meta information, never pixels, file names or coordinates. It first writes a caption, then one question and
answer for each planned turn; `replies.py` reads and checks its replies. The request of a faulty reply is repeated at
most twice, with the reasons. `converse` is that exchange without a network; `RequestRunner` sends the requests.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..draws import draw_of
from ..records import Axis, Dialogue, ImageRecord, Turn, hash_of_turn
from .analysis import MODALITY_NAMES
from .base import Refusal
from .calls import CallRunner, connect, failure_of
from .fact_check import FaultyReplyError, check_names
from .plan import PlannedTurn, plan_turns
from .positions import place_of
from .replies import read_caption, read_turns
from .reply_store import Reply, ReplyStore, Request
from .subjects import askable_absent

if TYPE_CHECKING:
    from openai import AsyncOpenAI

REPEATS = 2  # how often the request of a faulty reply is repeated

_log = logging.getLogger(__name__)
_Read = TypeVar("_Read")
Conversation = Generator[Request, Reply, Dialogue | Refusal]


@dataclass(frozen=True)
class ChatSettings:
    """The settings of a chat model. The API key is not among them: the SDK reads it from OPENAI_API_KEY.

    max_tokens: bound of a reply, reasoning tokens included. temperature: None uses the model's default. concurrency:
    simultaneous calls. max_retries: of failed calls (429, 500, a lost connection), with the SDK's back-off. timeout: in
    seconds. rejected: hashes of turns that were rejected in review -> reason; such turns are requested again.
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
            raise ValueError("the teacher has no model name; give the name of a chat model")
        for name in ("max_tokens", "concurrency", "timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")


def meta_of(record: ImageRecord) -> dict[str, Any]:
    """Return the meta information that the model gets: names, shares and ids, no coordinates and no file names."""
    info = record.info
    meta: dict[str, Any] = {"modality": MODALITY_NAMES[info.modality], "region": info.region}
    if any(map(str.isalpha, info.modality_detail)):  # "00" of SA-Med2D has no meaning
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


def turns_data(meta: dict[str, Any], caption: str, plan: Sequence[PlannedTurn]) -> dict[str, Any]:
    """Return the data for the turns: the meta information, the caption, and the subject of each planned turn."""
    turns = [{"task": turn.task.value, "about": turn.about or "the image"} for turn in plan]
    return {**meta, "caption": caption, "turns": turns}


def request_for(settings: ChatSettings, record: ImageRecord, prompt: str, data: dict[str, Any]) -> Request:
    """Return a request: the text of `prompts/<prompt>.md`, and the data in <meta> tags, which its text cannot close."""
    document = json.dumps(data, ensure_ascii=False, indent=1)
    document = document.replace("<", r"\u003c").replace(">", r"\u003e")
    # One seed per image, so that two images with the same meta information get different texts.
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
    """The exchange about one image: a generator that yields requests, receives replies and returns the result."""
    if not record.present:
        return Refusal(record.info.image_id, "no object is in the image")

    def read_accepted_turns(content: str) -> tuple[Turn, ...]:
        turns = read_turns(record, plan, content)
        _check_not_rejected(settings, record, turns)
        return turns

    try:
        check_names(record)
        meta, plan = meta_of(record), plan_turns(record, settings.seed)
        caption = yield from _usable_reply(settings, record, "caption", meta, partial(read_caption, record))
        data = turns_data(meta, caption, plan)
        turns = yield from _usable_reply(settings, record, "turns", data, read_accepted_turns)
    except FaultyReplyError as fault:
        return Refusal(record.info.image_id, str(fault))
    return Dialogue(replace(record, caption=caption), turns, settings.model)


def _check_not_rejected(settings: ChatSettings, record: ImageRecord, turns: Iterable[Turn]) -> None:
    """Raises FaultyReplyError if one of the turns was rejected in review."""
    for turn in turns if settings.rejected else ():
        reason = settings.rejected.get(hash_of_turn(record.info.image_id, turn))
        if reason is not None:
            raise FaultyReplyError(f"{turn.task}: rejected in review" + (f": {reason}" if reason else ""))


def _usable_reply(
    settings: ChatSettings,
    record: ImageRecord,
    prompt: str,
    data: dict[str, Any],
    read: Callable[[str], _Read],
) -> Generator[Request, Reply, _Read]:
    """Return what `read` makes of the reply; a faulty one is requested again with the reasons, `REPEATS` times."""
    reasons: list[str] = []
    for _ in range(1 + REPEATS):
        # All reasons so far: a request equal to the one before would get the same reply from the store.
        asked = {**data, "refused_because": reasons} if reasons else data
        reply = yield request_for(settings, record, prompt, asked)
        try:
            return read(reply.content())
        except FaultyReplyError as fault:
            reasons = [*reasons, str(fault)]
            _log.debug("%s: %s refused: %s", record.info.image_id, prompt, fault)
    raise FaultyReplyError(f"{prompt}: {reasons[-1]}")


class ChatTeacher:
    """A `Teacher` that queries a chat model for several images at a time, and keeps every reply in `store`.

    Raises ValueError on a failure that does not concern a single image (no key, no connection, an exhausted quota).
    Calls that are running are finished and stored first; a second run sends only the missing requests.
    """

    def __init__(self, settings: ChatSettings, store: Path) -> None:
        self.settings = settings
        self.store = ReplyStore(store)
        self.name = settings.model

    def dialogues(self, records: Iterable[ImageRecord]) -> Iterator[Dialogue | Refusal]:
        """Yield one result per record, in the order of the records."""
        runner = RequestRunner(self.settings, self.store)
        waiting: deque[Future[Dialogue | Refusal]] = deque()
        try:
            for record in records:
                waiting.append(runner.start(record))
                if len(waiting) >= 4 * self.settings.concurrency:  # a slow image does not hold up the others
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            runner.close()


class RequestRunner(CallRunner):
    """Runs the conversations about several images."""

    def __init__(self, settings: ChatSettings, store: ReplyStore) -> None:
        super().__init__(store, settings.concurrency)
        self.settings = settings
        self.client: AsyncOpenAI | None = None  # made at the first call: stored replies need no key

    def start(self, record: ImageRecord) -> Future[Dialogue | Refusal]:
        return self.run(self._converse(record))

    async def _converse(self, record: ImageRecord) -> Dialogue | Refusal:
        conversation = converse(self.settings, record)
        try:
            request = next(conversation)
            while True:
                request = conversation.send(await self.reply(request))
        except StopIteration as end:
            return end.value

    async def call(self, request: Request) -> Reply:
        self.client = self.client or connect(self.settings)
        return await _call(self.client, request)

    async def disconnect(self) -> None:
        if self.client is not None:
            await self.client.close()


async def _call(client: AsyncOpenAI, request: Request) -> Reply:
    """Make one call, with the SDK's retries. Raises ValueError if there is no reply."""
    import openai

    try:
        answer = await client.chat.completions.with_raw_response.create(**request.payload())
    except openai.BadRequestError as error:
        if error.code == "content_filter":  # concerns this image only, and is permanent
            return Reply(error.status_code, error.response.text)
        raise ValueError(failure_of(client, error)) from None
    except openai.OpenAIError as error:
        raise ValueError(failure_of(client, error)) from None
    return Reply(200, answer.http_response.text)
