"""Replies that were paid for, kept: one file a question asked, so that nothing is paid twice.

A file is written under another name and renamed when it is whole: a process that is killed leaves a reply or none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .fact_check import BadReply

LONGEST_BODY = 1_000_000  # characters of a server's answer that are kept


@dataclass(frozen=True)
class Request:
    """What a model is asked. `settings` are the further fields of a chat completion."""

    model: str
    messages: tuple[Mapping[str, str], ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def payload(self) -> dict[str, Any]:
        """The body of the call."""
        return {
            "model": self.model,
            "messages": [dict(message) for message in self.messages],
            **self.settings,
        }

    @property
    def key(self) -> str:
        """The sha256 of all that is asked: model, messages, settings."""
        text = json.dumps(self.payload(), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Reply:
    """What a server answered: the HTTP status and the body as it came, faults included."""

    status: int
    body: str

    def words(self) -> str:
        """The words of the model. Raises BadReply where there are none, or they are cut off."""
        try:
            document = json.loads(self.body)
            if self.status != 200:
                raise BadReply(f"the server refused: {str(document['error']['code'])[:80]}")
            choice = document["choices"][0]
            content, reason = choice["message"]["content"], choice.get("finish_reason")
        except BadReply:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise BadReply("the server's answer is not a chat completion") from None
        if reason == "length":
            raise BadReply("the reply is cut off: it was too long")
        if not isinstance(content, str) or not content.strip():
            raise BadReply("the reply is empty")
        return content


class ReplyStore:
    """A folder of replies: `<folder>/ab/<key>.json`, each with what was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Reply | None:
        """The reply to the request of this key, or None. Raises ValueError for a file that is none."""
        path = self._path(key)
        try:
            kept = json.loads(path.read_text("utf-8"))
            return Reply(int(kept["status"]), str(kept["body"]))
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError):
            raise ValueError(f"{path}: not a stored reply; remove the file to ask (and pay) again") from None

    def put(self, key: str, reply: Reply, asked: Mapping[str, Any]) -> None:
        """Store a reply, for good: it is on the disk when this returns. `asked` is for people who look into it."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"status": reply.status, "body": reply.body[:LONGEST_BODY], "asked": dict(asked)}
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        with draft.open("w", encoding="utf-8") as file:
            json.dump(kept, file, ensure_ascii=True)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
