"""Calls of a chat model behind an OpenAI-compatible endpoint: several at a time, and every reply is kept.

`ChatTeacher` writes dialogues with it, `bird_hf.asking.endpoint` asks vision-language models.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ...extras import missing_extra
from .reply_store import Reply, ReplyStore, Request

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_Result = TypeVar("_Result")


class RefusedRequestError(ValueError):
    """A server refuses one request; others may be answered."""


class Connection(Protocol):
    """What `connect` needs to know. timeout: in seconds."""

    @property
    def base_url(self) -> str | None: ...
    @property
    def max_retries(self) -> int: ...
    @property
    def timeout(self) -> float: ...


class CallRunner(ABC):
    """Runs coroutines in an event loop in its own thread, since a notebook's loop is already running.

    store: where replies are kept; None keeps none. concurrency: simultaneous calls. After a failure that is not a
    RefusedRequestError no further call is made; calls that are running are finished, and their replies kept.
    """

    def __init__(self, store: ReplyStore | None, concurrency: int) -> None:
        self.store = store
        self.running: dict[str, asyncio.Task[Reply]] = {}
        self.free = asyncio.Semaphore(concurrency)
        self.failure: Exception | None = None  # the reason why no further call is made
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="bird-calls", daemon=True)
        self.thread.start()

    @abstractmethod
    async def call(self, request: Request) -> Reply:
        """Make one call, with its retries."""

    @abstractmethod
    async def disconnect(self) -> None:
        """Close the connections."""

    def run(self, work: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        """Start a coroutine in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        """Wait until running calls have ended and their replies are stored; start no others."""
        self.failure = self.failure or ValueError("the run was closed")
        self.run(self._finish()).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _finish(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        await self.disconnect()

    async def reply(self, request: Request) -> Reply:
        """The reply to a request: from the store, from a running call of an equal request, or from a new call."""
        if self.store and (kept := self.store.get(request.key)):
            return kept
        if request.key not in self.running:
            self.running[request.key] = asyncio.create_task(self._send(request))
        try:
            return await self.running[request.key]
        finally:
            self.running.pop(request.key, None)

    async def _send(self, request: Request) -> Reply:
        async with self.free:
            if self.failure:
                raise self.failure
            try:
                reply = await self.call(request)
                if self.store:
                    self.store.put(request.key, reply, request.described())
            except RefusedRequestError:
                raise
            except Exception as error:
                self.failure = error  # it would fail for the next request too
                raise
            return reply


def connect(settings: Connection, api_key: str | None = None) -> AsyncOpenAI:
    """Return the SDK's client; without `api_key` with OPENAI_API_KEY. Raises ValueError without package or key."""
    try:
        import openai
    except ImportError:
        raise ValueError(f"a chat model needs openai; {missing_extra('data')}") from None
    no_key = "no API key for the teacher: set OPENAI_API_KEY (any value if your own server needs none)"
    try:
        client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=settings.base_url,
            max_retries=settings.max_retries,
            timeout=settings.timeout,
            # A redirect would send pictures and words to a server that the user did not name.
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
        )
    except openai.OpenAIError:
        raise ValueError(no_key) from None
    if not client.api_key:
        raise ValueError(no_key)
    return client


def failure_of(client: AsyncOpenAI, error: Exception | str, who: str = "the teacher") -> str:
    """Return one line about a server that does not answer."""
    where = f"{who} at {client.base_url.host}"
    return (
        f"{where} does not answer: {cause_of(client, error)}; replies so far are kept, run again to continue"
    )


def words_of(error: Exception | str) -> str:
    """Return the message of an error; of a redirect, where to."""
    response = getattr(error, "response", None)
    target = response.headers.get("location") if response is not None and response.is_redirect else None
    if not target:
        return str(error)
    return (
        f"it redirects to {target[:90]}; requests go to no other address than the given one, so give that one if "
        "it is right"
    )


def cause_of(client: AsyncOpenAI, error: Exception | str) -> str:
    """Return the start of an error message on one line, without the API key, which some servers repeat."""
    words = "".join(filter(str.isprintable, " ".join(words_of(error).split())))
    return words.replace(client.api_key, "***")[:200]
