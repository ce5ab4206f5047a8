"""Requests and replies of a chat model, and a folder that keeps one file per reply so that none is paid for twice."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...atomic_writes import replacing_file
from .fact_check import FaultyReplyError

LONGEST_BODY = 1_000_000  # characters of a server's answer that are kept


@dataclass(frozen=True)
class Request:
    """The input of a chat completion. `settings` are its fields besides model and messages."""

    model: str
    messages: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def payload(self) -> dict[str, Any]:
        """Return the body of the HTTP request."""
        return {
            "model": self.model,
            "messages": [dict(message) for message in self.messages],
            **self.settings,
        }

    def described(self) -> dict[str, Any]:
        """Return the payload as it is kept beside its reply, for readers of the file."""
        return self.payload()

    @property
    def key(self) -> str:
        """The sha256 of the payload."""
        text = json.dumps(self.payload(), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Reply:
    """The answer of a server: HTTP status and unchanged body, errors included."""

    status: int
    body: str

    def content(self) -> str:
        """Return the text that the model wrote. Raises FaultyReplyError if there is none, or it is cut off."""
        try:
            document = json.loads(self.body)
            if self.status != 200:
                raise FaultyReplyError(f"the server refused: {str(document['error']['code'])[:80]}")
            choice = document["choices"][0]
            content, reason = choice["message"]["content"], choice.get("finish_reason")
        except FaultyReplyError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise FaultyReplyError("the server's answer is not a chat completion") from None
        if reason == "length":
            raise FaultyReplyError("the reply is cut off: it was too long")
        if not isinstance(content, str) or not content.strip():
            raise FaultyReplyError("the reply is empty")
        return content


class ReplyStore:
    """A folder of replies: `<folder>/ab/<key>.json`, each with its request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder. Raises ValueError if that fails: a reply that cannot be kept would be paid for in vain."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise ValueError(
                f"{self.folder}: replies cannot be kept there ({error.strerror}); give another folder"
            ) from None

    def get(self, key: str) -> Reply | None:
        """Return the reply to the request with this key, or None. Raises ValueError for a damaged file."""
        path = self._path(key)
        try:
            kept = json.loads(path.read_text("utf-8"))
            return Reply(int(kept["status"]), str(kept["body"]))
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError):
            raise ValueError(f"{path}: not a stored reply; remove the file to ask (and pay) again") from None

    def put(self, key: str, reply: Reply, asked: Mapping[str, Any]) -> None:
        """Store a reply; it is on the disk when this returns. asked: the request, for readers of the file only."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"status": reply.status, "body": reply.body[:LONGEST_BODY], "asked": dict(asked)}
        with replacing_file(path) as making:
            making.write_text(json.dumps(kept, ensure_ascii=True), encoding="utf-8")

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
