"""The chat teacher through the Batch API: the same conversations in rounds, cheaper and slower.

One batch has all captions, the next all turns, and further ones the requests that have to be repeated. The metadata of
a batch hold the name of its reply store, so that a run that was killed finds its batches on the server and collects
them before it sends new ones.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...atomic_writes import write_text
from ..records import Dialogue, ImageRecord
from .base import Refusal
from .calls import connect, failure_of
from .chat import ChatSettings, Conversation, converse
from .reply_store import Reply, ReplyStore, Request

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import Batch

IMAGES_PER_ROUND = 20_000  # OpenAI takes up to 50,000 requests and 200 MB per batch
_STORE_KEY = "bird_hf_store"  # in a batch's metadata: the name of its reply store
_UNFINISHED = {"validating", "in_progress", "finalizing", "cancelling"}
_REQUEST_KEY = re.compile(r"[0-9a-f]{64}")


class BatchTeacher:
    """A `Teacher` that sends its requests in batches. poll: seconds between two status requests.

    Raises ValueError if a batch fails, or returns none of the requested replies.
    """

    def __init__(
        self, settings: ChatSettings, store: Path, poll: float = 60.0, images: int = IMAGES_PER_ROUND
    ) -> None:
        self.settings = settings
        self.store = ReplyStore(store)
        self.name = settings.model
        self._client = BatchClient(settings, self.store, poll)
        self._images = images

    def dialogues(self, records: Iterable[ImageRecord]) -> Iterator[Dialogue | Refusal]:
        """Yield one result per record, in the order of the records, `images` of them per round."""
        records = iter(records)
        while states := [
            ConversationState(converse(self.settings, record)) for record in islice(records, self._images)
        ]:
            while missing := self._missing(states):
                self._client.fetch(missing)
            for state in states:
                assert state.result is not None
                yield state.result

    def _missing(self, states: Iterable[ConversationState]) -> dict[str, Request]:
        """Advance every conversation; returns the requests without a stored reply by their keys."""
        requests = (state.advance(self.store) for state in states)
        return {request.key: request for request in requests if request}


@dataclass
class ConversationState:
    """A conversation with the request that it waits for, or its result."""

    conversation: Conversation
    request: Request | None = None
    result: Dialogue | Refusal | None = None

    def advance(self, store: ReplyStore) -> Request | None:
        """Continue as far as the store has replies; returns the next request, or None at the end."""
        try:
            if self.request is None and self.result is None:
                self.request = next(self.conversation)
            while self.request and (reply := store.get(self.request.key)):
                self.request = self.conversation.send(reply)
        except StopIteration as end:
            self.request, self.result = None, end.value
        return self.request


class BatchClient:
    """Creates batches and stores their replies; a batch whose replies are stored is marked by a file."""

    def __init__(self, settings: ChatSettings, store: ReplyStore, poll: float) -> None:
        self.settings, self.store, self.poll = settings, store, poll

    def fetch(self, missing: Mapping[str, Request]) -> None:
        """Store replies to at least one of the requests, from unfinished batches or else from a new one."""
        with ThreadPoolExecutor(1) as thread:  # a notebook's own event loop is already running in this one
            thread.submit(asyncio.run, self._fetch(missing)).result()

    async def _fetch(self, missing: Mapping[str, Request]) -> None:
        import openai

        async with connect(self.settings) as client:
            try:
                async for batch in client.batches.list(limit=100):
                    if self._is_uncollected(batch):
                        await self._collect(client, batch, missing)
                if any(self.store.get(key) for key in missing):
                    return
                faults = await self._collect(client, await self._create(client, missing), missing)
            except openai.OpenAIError as error:
                raise ValueError(failure_of(client, error)) from None
        if not any(self.store.get(key) for key in missing):
            raise ValueError(
                f"the batch came back without a reply: {faults or 'no reason given'}; run again later"
            )

    async def _create(self, client: AsyncOpenAI, missing: Mapping[str, Request]) -> Batch:
        lines = (
            {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": request.payload()}
            for key, request in missing.items()
        )
        content = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        file = await client.files.create(file=("requests.jsonl", content), purpose="batch")
        return await client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={_STORE_KEY: self._store_name()},
        )

    async def _collect(self, client: AsyncOpenAI, batch: Batch, requests: Mapping[str, Request]) -> str:
        """Wait for a batch and store its replies; returns the first reason for a missing reply, if one is given."""
        while batch.status in _UNFINISHED:
            await asyncio.sleep(self.poll)
            batch = await client.batches.retrieve(batch.id)
        faults = [error.message or "" for error in (batch.errors and batch.errors.data) or ()]
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            for line in (await client.files.content(file_id)).text.split("\n"):
                if line.strip() and (fault := self._store_line(line, requests)):
                    faults.append(fault)
        self._collected_file(batch).touch()
        return "".join(filter(str.isprintable, faults[0]))[:200] if faults else ""

    def _store_line(self, line: str, requests: Mapping[str, Request]) -> str:
        """Store the reply in one line of a batch's results; returns the fault of a line without a reply."""
        try:
            row: dict[str, Any] = json.loads(line)
            key, answer = row["custom_id"], row["response"]
            status, body = int(answer["status_code"]), answer["body"]
            filtered = status == 400 and body["error"]["code"] == "content_filter"
        except (ValueError, LookupError, TypeError):
            return f"a line that is not a result: {line}"
        if not _REQUEST_KEY.fullmatch(str(key)) or not (status == 200 or filtered):
            return f"status {status}: {json.dumps(body)}"
        if not self.store.get(key):
            payload = requests[key].payload() if key in requests else {}
            self.store.put(key, Reply(status, json.dumps(body)), payload)
        return ""

    def _is_uncollected(self, batch: Batch) -> bool:
        ours = (batch.metadata or {}).get(_STORE_KEY) == self._store_name()
        return ours and not self._collected_file(batch).exists()

    def _collected_file(self, batch: Batch) -> Path:
        name = "".join(letter if letter.isalnum() else "_" for letter in batch.id)
        return self.store.folder / "batches" / f"{name[:100]}.collected"

    def _store_name(self) -> str:
        """Return the name of this store, which is created at its first use."""
        path = self.store.folder / "batches" / "store_name"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, uuid.uuid4().hex)
        return path.read_text("utf-8").strip()
