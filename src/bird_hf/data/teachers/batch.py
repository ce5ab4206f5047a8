"""The chat teacher through the Batch API: the same conversations, in rounds, at the price of patience.

All captions are one batch, then all turns, then what has to be asked again. A batch carries the name of the store it
is for, so that a run that was killed finds its batches on the server and collects them before it asks for more.
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

from ..records import Dialogue, ImageRecord
from .base import Refused
from .chat import ChatSettings, Conversation, connect, converse, failure_of
from .reply_store import Reply, ReplyStore, Request

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import Batch

ROUND = 20_000  # images at once: OpenAI takes 50,000 requests and 200 MB a batch
_MARK = "bird_hf_store"  # the entry of a batch's metadata that names its store
_UNDER_WAY = {"validating", "in_progress", "finalizing", "cancelling"}
_KEY = re.compile(r"[0-9a-f]{64}")


class BatchTeacher:
    """A `Teacher` that asks in batches. `poll` is the pause between two looks at a batch, in seconds.

    Raises ValueError where a batch fails, or comes back without any reply that was asked for.
    """

    def __init__(self, settings: ChatSettings, store: Path, poll: float = 60.0, images: int = ROUND) -> None:
        self.settings = settings
        self.store = ReplyStore(store)
        self.name = settings.model
        self._desk = _Desk(settings, self.store, poll)
        self._images = images

    def dialogues(self, records: Iterable[ImageRecord]) -> Iterator[Dialogue | Refused]:
        """One result a record, in the order of the records, `images` of them at once."""
        records = iter(records)
        while talks := [_Talk(converse(self.settings, record)) for record in islice(records, self._images)]:
            while missing := self._missing(talks):
                self._desk.pay(missing)
            for talk in talks:
                assert talk.result is not None
                yield talk.result

    def _missing(self, talks: Iterable[_Talk]) -> dict[str, Request]:
        """Go on with every conversation as far as the store has replies; what they then wait for."""
        requests = (talk.go_on(self.store) for talk in talks)
        return {request.key: request for request in requests if request}


@dataclass
class _Talk:
    """One conversation, and where it stands: a request that waits for its reply, or the result."""

    conversation: Conversation
    request: Request | None = None
    result: Dialogue | Refused | None = None

    def go_on(self, store: ReplyStore) -> Request | None:
        try:
            if self.request is None and self.result is None:
                self.request = next(self.conversation)
            while self.request and (reply := store.get(self.request.key)):
                self.request = self.conversation.send(reply)
        except StopIteration as end:
            self.request, self.result = None, end.value
        return self.request


class _Desk:
    """Hands batches in and collects them. What is collected is stored, and then marked as collected."""

    def __init__(self, settings: ChatSettings, store: ReplyStore, poll: float) -> None:
        self.settings, self.store, self.poll = settings, store, poll

    def pay(self, missing: Mapping[str, Request]) -> None:
        """Store replies to at least one of the requests: those of batches that were left, else of a new one."""
        with ThreadPoolExecutor(1) as thread:  # of its own: a notebook's event loop is already running
            thread.submit(asyncio.run, self._pay(missing)).result()

    async def _pay(self, missing: Mapping[str, Request]) -> None:
        import openai

        async with connect(self.settings) as client:
            try:
                async for batch in client.batches.list(limit=100):
                    if self._is_left(batch):
                        await self._collect(client, batch, missing)
                if any(self.store.get(key) for key in missing):
                    return
                faults = await self._collect(client, await self._hand_in(client, missing), missing)
            except openai.OpenAIError as error:
                raise ValueError(failure_of(client, error)) from None
        if not any(self.store.get(key) for key in missing):
            raise ValueError(
                f"the batch came back without a reply: {faults or 'no reason given'}; run again later"
            )

    async def _hand_in(self, client: AsyncOpenAI, missing: Mapping[str, Request]) -> Batch:
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
            metadata={_MARK: self._store_name()},
        )

    async def _collect(self, client: AsyncOpenAI, batch: Batch, asked: Mapping[str, Request]) -> str:
        """Wait for a batch and store its replies. Returns why it has none for some requests, as far as it says."""
        while batch.status in _UNDER_WAY:
            await asyncio.sleep(self.poll)
            batch = await client.batches.retrieve(batch.id)
        faults = [error.message or "" for error in (batch.errors and batch.errors.data) or ()]
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            for line in (await client.files.content(file_id)).text.split("\n"):
                if line.strip() and (fault := self._keep(line, asked)):
                    faults.append(fault)
        self._mark_of(batch).touch()
        return "".join(filter(str.isprintable, faults[0]))[:200] if faults else ""

    def _keep(self, line: str, asked: Mapping[str, Request]) -> str:
        """Store the reply of one line of a batch's results; for a line without one, why."""
        try:
            row: dict[str, Any] = json.loads(line)
            key, answer = row["custom_id"], row["response"]
            status, body = int(answer["status_code"]), answer["body"]
            filtered = status == 400 and body["error"]["code"] == "content_filter"
        except (ValueError, LookupError, TypeError):
            return f"a line that is no result: {line}"
        if not _KEY.fullmatch(str(key)) or not (status == 200 or filtered):
            return f"status {status}: {json.dumps(body)}"
        if not self.store.get(key):
            payload = asked[key].payload() if key in asked else {}
            self.store.put(key, Reply(status, json.dumps(body)), payload)
        return ""

    def _is_left(self, batch: Batch) -> bool:
        ours = (batch.metadata or {}).get(_MARK) == self._store_name()
        return ours and not self._mark_of(batch).exists()

    def _mark_of(self, batch: Batch) -> Path:
        name = "".join(letter if letter.isalnum() else "_" for letter in batch.id)
        return self.store.folder / "batches" / f"{name[:100]}.collected"

    def _store_name(self) -> str:
        """The name of this store, made when it is first needed."""
        path = self.store.folder / "batches" / "store_name"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".tmp")
            draft.write_text(uuid.uuid4().hex, "utf-8")
            draft.replace(path)
        return path.read_text("utf-8").strip()
