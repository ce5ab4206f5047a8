"""Vision-language models behind an OpenAI-compatible endpoint: vLLM, SGLang, a hosted model.

A picture travels as PNG in the request. Every answer is kept in a folder by the content of its request, so that a run
that was stopped asks only what is missing. The API key is read from an environment variable and never written.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..answering import Decoding, StoppedError
from ..data.teachers.calls import CallRunner, RefusedRequestError, cause_of, connect, failure_of, words_of
from ..data.teachers.reply_store import LONGEST_BODY, Reply, ReplyStore, Request
from ..dialects import Dialect
from ..dialects.collect import without_surrogates
from ..progress import progress_bar
from ..questions import Query
from .dialect_model import MAX_ANSWER_CHARS, DialectModel

if TYPE_CHECKING:
    from openai import AsyncOpenAI

KEY_VARIABLE = "OPENAI_API_KEY"
_MAX_BODY = 8 * 1024 * 1024  # bytes of a server's answer that are read
_LONGEST_WAIT = 30.0  # seconds between two attempts
_NO_KEY = "none"  # own servers need none, and the SDK sends one


@dataclass(frozen=True)
class EndpointSettings:
    """How an endpoint is called.

    base_url: such as http://127.0.0.1:8000/v1. served_model: the model's name there. concurrency: simultaneous calls.
    max_retries: of a call that failed (429, 5xx, no connection, a stalled or cut answer). timeout: seconds for one
    answer. wait: seconds before the first retry; each further one waits twice as long, or as long as the server says.
    key_variable: the environment variable with the API key.
    """

    base_url: str
    served_model: str
    concurrency: int = 8
    max_retries: int = 6
    timeout: float = 120.0
    wait: float = 0.5
    key_variable: str = KEY_VARIABLE

    def __post_init__(self) -> None:
        for name in ("concurrency", "timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")

    @property
    def api_key(self) -> str:
        return os.environ.get(self.key_variable) or _NO_KEY

    def check_key(self) -> None:
        """Raises ValueError if no server can be told the API key."""
        if not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ValueError(
                f"the key in {self.key_variable} holds a line break, or letters that are not ASCII; copy it again"
            )


@dataclass(frozen=True)
class PictureRequest(Request):
    """A request with a picture, whose bytes are not kept beside the reply."""

    def described(self) -> dict[str, Any]:
        payload: dict[str, Any] = json.loads(json.dumps(self.payload()))
        for message in payload["messages"]:
            for part in message["content"]:
                if part["type"] == "image_url":
                    digest = hashlib.sha256(part["image_url"]["url"].encode()).hexdigest()
                    part["image_url"]["url"] = f"sha256:{digest}"
        return payload


class EndpointModel(DialectModel):
    """A model behind an endpoint. store: folder in which replies are kept; None keeps none."""

    def __init__(
        self,
        settings: EndpointSettings,
        dialect: Dialect,
        store: Path | None = None,
        remarks: Sequence[str] = (),
    ) -> None:
        super().__init__(dialect, settings.served_model, remarks)
        self.settings = settings
        self.store = ReplyStore(store) if store else None

    def sample(
        self, queries: Sequence[Query], decoding: Decoding, batch_size: int = 32, progress: bool = False
    ) -> list[tuple[str, ...]]:
        """All queries are sent at once, `concurrency` at a time; `batch_size` is of no matter.

        Raises StoppedError if the endpoint does not answer after all retries, ValueError if it refuses a question, or
        if answers cannot be kept.
        """
        if self.store:
            self.store.prepare()
        runner = EndpointRunner(self.settings, self.store)
        pictures: dict[int, str] = {}
        try:
            waiting: list[list[Future[Reply]]] = []
            for query in queries:
                key = id(query.image)
                if key not in pictures:
                    pictures[key] = _data_url(self.sent_picture(query))
                requests = self._requests(self.prompt(query), pictures[key], decoding)
                waiting.append([runner.run(runner.reply(request)) for request in requests])
            self._wait(waiting, progress)
        finally:
            runner.close()
        return [tuple(_text_of(future.result()) for future in futures) for futures in waiting]

    def _wait(self, waiting: Sequence[Sequence[Future[Reply]]], progress: bool) -> None:
        """Wait for all replies: one question that is refused does not keep the others from being answered and kept."""
        failures = []
        options: dict[str, Any] = {"desc": "answering", "unit": "question", "disable": not progress}
        with progress_bar(total=len(waiting), **options) as bar:
            for futures in waiting:
                failures += [error for future in futures if (error := future.exception())]
                bar.update(1)
        for error in sorted(failures, key=lambda error: not isinstance(error, StoppedError)):
            raise error

    def sent_picture(self, query: Query) -> Image.Image:
        """The picture that is sent. If boxes are in pixels of a resized picture, it is sent in that size.

        A server whose processor resizes by the same rule then leaves it as it is, whatever its limits of pixels are.
        """
        picture, view = self.picture(query), self.view(query)
        if view.resized_wh is None or view.resized_wh == picture.size:
            return picture
        return picture.resize(view.resized_wh, Image.Resampling.BICUBIC)

    def _requests(self, prompt: str, picture: str, decoding: Decoding) -> list[PictureRequest]:
        """A request for each sample, since not all servers know `n`."""
        content = [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": prompt},
        ]
        settings: dict[str, Any] = {
            "max_completion_tokens": decoding.max_new_tokens or self.new_tokens,
            "temperature": decoding.temperature,
        }
        if self.dialect.special_tokens:
            settings["skip_special_tokens"] = False  # of vLLM and SGLang, which would leave out boxes
        messages = ({"role": "user", "content": content},)
        if decoding.is_greedy:
            return [PictureRequest(self.settings.served_model, messages, settings)]
        return [
            PictureRequest(self.settings.served_model, messages, settings | {"seed": decoding.seed + number})
            for number in range(decoding.n)
        ]


class EndpointRunner(CallRunner):
    """Calls an endpoint, with retries."""

    def __init__(self, settings: EndpointSettings, store: ReplyStore | None) -> None:
        super().__init__(store, settings.concurrency)
        self.settings = settings
        self.client: AsyncOpenAI | None = None  # made at the first call

    async def disconnect(self) -> None:
        if self.client is not None:
            await self.client.close()

    async def call(self, request: Request) -> Reply:
        self.client = client = self.client or connect(_NoRetries(self.settings), self.settings.api_key)
        reason, wait = "", 0.0
        for attempt in range(self.settings.max_retries + 1):
            await asyncio.sleep(wait)
            try:
                async with asyncio.timeout(self.settings.timeout):
                    return _checked(await _body(client, request))
            except _Retry as error:
                reason, wait = str(error), error.wait
            except TimeoutError:
                reason, wait = f"no whole answer within {self.settings.timeout:g} seconds", 0.0
            except RefusedRequestError as error:
                raise RefusedRequestError(
                    f"the model refuses this question: {cause_of(client, error)}"
                ) from None
            except StoppedError as error:
                raise StoppedError(failure_of(client, error, "the model")) from None
            backoff = self.settings.wait * 2**attempt * random.uniform(0.5, 1)
            wait = min(wait or backoff, _LONGEST_WAIT)
        raise StoppedError(failure_of(client, reason, "the model"))


class _NoRetries:
    """The settings of a client that does not retry by itself: it would not retry answers that are cut."""

    max_retries = 0

    def __init__(self, settings: EndpointSettings) -> None:
        self.base_url, self.timeout = settings.base_url, settings.timeout


class _Retry(Exception):
    """A call failed in a way that may pass. wait: seconds, as the server says; 0 if it does not."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


async def _body(client: AsyncOpenAI, request: Request) -> bytes:
    """The body of the server's answer, up to `_MAX_BODY` bytes and one more.

    Raises _Retry on what may pass, RefusedRequestError if this request is refused, StoppedError if all would be.
    """
    import openai

    payload = request.payload()
    more = {key: payload.pop(key) for key in ("skip_special_tokens",) if key in payload}
    try:
        create = client.chat.completions.with_streaming_response.create
        async with create(**payload, extra_body=more or None) as response:
            return await _read_body(response)
    except openai.APIStatusError as error:
        if error.status_code in (400, 413, 422):
            raise RefusedRequestError(str(error)) from None
        if error.status_code in (408, 409, 429) or error.status_code >= 500:
            raise _Retry(str(error), _asked_wait(error.response.headers)) from None
        raise StoppedError(words_of(error)) from None
    except openai.OpenAIError as error:
        cause = error.__cause__  # such as a name that is not found: the SDK says "Connection error."
        raise _Retry(f"{type(error).__name__}: {error}" + (f" ({cause})" if cause else "")) from None


async def _read_body(response: Any) -> bytes:
    body = bytearray()
    try:
        async for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _MAX_BODY:
                break
    except Exception as error:  # of the SDK's HTTP library, which is another one in other versions
        raise _Retry(f"{type(error).__name__}: {error}") from None
    return bytes(body)


def _asked_wait(headers: Any) -> float:
    """How long the server asks to wait, in seconds; 0 if it does not say. It may say when, instead."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        said = headers.get(name, "")
        try:
            seconds = float(said) / unit
        except ValueError:
            seconds = _seconds_until(said)
        if seconds > 0:  # not NaN
            return seconds
    return 0.0


def _seconds_until(date: str) -> float:
    """Seconds until a date in the form of HTTP; 0 if it is none."""
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0


def _checked(body: bytes) -> Reply:
    """The reply in a body. Raises _Retry if it is cut or is no chat completion; a text that is too long is cut."""
    if len(body) > _MAX_BODY:
        raise RefusedRequestError(f"the answer is larger than {_MAX_BODY // 2**20} MiB")
    document = None
    try:
        whole = body.decode("utf-8")
        document = json.loads(whole)
        text = _content(document)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _Retry(_said_instead(document)) from None
    if len(whole) > LONGEST_BODY or len(text) > MAX_ANSWER_CHARS:
        # One character more than is read says that there was more.
        document = {"choices": [{"message": {"content": text[: MAX_ANSWER_CHARS + 1]}}]}
        return Reply(200, json.dumps(document))
    return Reply(200, whole)


def _content(document: Any) -> str:
    """The text of a chat completion: a string, none, or the parts of it that are text (others are thoughts).

    Raises LookupError, TypeError or AttributeError if it is no chat completion.
    """
    content = document["choices"][0]["message"].get("content") or ""
    if not isinstance(content, str):
        content = "".join([part["text"] for part in content if part["type"] == "text"])
    return without_surrogates(content)


def _said_instead(document: Any) -> str:
    """What is wrong with a document that is no chat completion: some servers send errors as if all were well."""
    error = document.get("error") if isinstance(document, dict) else None
    if not error:
        return "the answer is cut, or is not a chat completion"
    return f"the answer is an error: {error.get('message') if isinstance(error, dict) else error}"


def _text_of(reply: Reply) -> str:
    return _content(json.loads(reply.body))


def _data_url(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
