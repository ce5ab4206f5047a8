"""A scripted server for chat teachers, with OpenAI's chat and batch endpoints, and replies that it can give."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bird_hf.data.records import Dialogue, ImageRecord
from bird_hf.data.teachers.base import Refusal
from bird_hf.data.teachers.chat import ChatSettings, ChatTeacher

KEY = "sk-a-key-that-nobody-may-see"
Payload = dict[str, Any]


def meta_in(payload: Payload) -> dict[str, Any]:
    """Return the meta information of a request, as the model reads it."""
    text = payload["messages"][-1]["content"]
    return json.loads(text.removeprefix("<meta>").removesuffix("</meta>"))


def good_reply(payload: Payload) -> str:
    """Return a correct reply: a caption, or the planned turns."""
    meta = meta_in(payload)
    if "turns" not in meta:
        shown = meta["objects"][0]["name"]
        return json.dumps({"caption": f"{meta['modality']} of the {meta['region']} that shows the {shown}."})
    turns = []
    for wanted in meta["turns"]:
        asked, said = good_turn(meta, wanted["task"], wanted["about"])
        turns.append({"task": wanted["task"], "question": asked, "answer": said})
    return json.dumps({"turns": turns})


def good_turn(meta: dict[str, Any], task: str, about: str) -> tuple[str, str]:
    if task == "mia":
        return "Which imaging modality is this?", f"This is {meta['modality']}."
    if about in meta["not_in_the_image"]:
        return f"Where is the {about}?", f"There is no {about} in this image."
    (item, *others) = [item for item in meta["objects"] if about in (item["name"], item["id"])]
    ids = "|".join(other["id"] for other in [item, *others])
    return {
        "vg": (f"Where is the {about}?", f"Here is the [[{about}|{ids}]]."),
        "roc": (f"What is [[this structure|{about}]]?", f"It is the {item['name']}."),
        "rc": (f"Describe [[this region|{about}]].", f"The {item['name']}, {item['place']}."),
    }[task]


def changed_reply(payload: Payload, **turns: tuple[str, str]) -> str:
    """Return a correct reply with some turns replaced; for a caption request, the correct caption."""
    words = json.loads(good_reply(payload))
    for turn in words.get("turns", ()):
        turn["question"], turn["answer"] = turns.get(turn["task"], (turn["question"], turn["answer"]))
    return json.dumps(words)


@dataclass(frozen=True)
class Answer:
    """One HTTP answer. `drop` closes the connection after the headers and half of the body."""

    words: str = ""
    status: int = 200
    finish: str = "stop"
    delay: float = 0.0
    drop: bool = False
    body: str | None = None
    headers: dict[str, str] = field(default_factory=lambda: {"retry-after-ms": "10"})

    def document(self) -> str:
        if self.body is not None:
            return self.body
        if self.status != 200:
            return json.dumps({"error": {"message": self.words, "type": "error", "code": self.finish}})
        message = {"role": "assistant", "content": self.words}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        return json.dumps({"id": "c", "object": "chat.completion", "created": 0, "choices": [choice]})


class ChatServer:
    """Serves until `close`. `script(payload, number)` returns the answer to call `number`, from 0."""

    def __init__(self) -> None:
        self.script: Callable[[Payload, int], Answer] = lambda payload, number: Answer(good_reply(payload))
        self.calls: list[Payload] = []
        self.keys: set[str] = set()
        self.batches = ScriptedBatches(self)
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, payload: Payload) -> Answer:
        with self._lock:
            self.calls.append(payload)
            number = len(self.calls) - 1
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        answer = self.script(payload, number)
        time.sleep(answer.delay)
        with self._lock:
            self._now -= 1
        return answer

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                server.keys.add(self.headers["authorization"])
                if self.path.endswith("/chat/completions"):
                    self.send(server.answer(json.loads(content)))
                else:
                    self.send(Answer(body=server.batches.post(self.path, content)))

            def do_GET(self) -> None:
                self.send(Answer(body=server.batches.get(self.path)))

            def send(self, answer: Answer) -> None:
                body = answer.document().encode()
                self.send_response(answer.status)
                for name, value in {"content-type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if answer.drop else body)
                self.close_connection = answer.drop

            def log_message(self, *_: object) -> None:
                """Write no log."""

        return Handler


class ScriptedBatches:
    """The server's files and batches; the script answers a batch, which is completed when its status is requested."""

    def __init__(self, server: ChatServer) -> None:
        self.server = server
        self.files: dict[str, str] = {}
        self.batches: list[dict[str, Any]] = []
        self.lost = 0  # requests of each batch that expire without a reply

    def post(self, path: str, content: bytes) -> str:
        if path.endswith("/files"):
            lines = [line for line in content.decode().splitlines() if line.startswith("{")]
            return json.dumps({"id": self._keep("\n".join(lines)), "object": "file", "purpose": "batch"})
        asked = json.loads(content)
        rows = map(json.loads, self.files[asked["input_file_id"]].splitlines())
        replies = [self._row(row) for row in rows][self.lost :]
        batch = {"id": f"batch_{len(self.batches)}", "object": "batch", "status": "in_progress", **asked}
        self.batches.append({**batch, "created_at": 0, "output_file_id": self._keep("\n".join(replies))})
        return json.dumps({**batch, "created_at": 0})

    def get(self, path: str) -> str:
        if "/files/" in path:
            return self.files[path.split("/")[-2]]
        for batch in self.batches:
            batch["status"] = "completed"
        wanted = [batch for batch in self.batches if path.endswith(batch["id"])]
        return json.dumps(
            wanted[0] if wanted else {"object": "list", "data": self.batches, "has_more": False}
        )

    def _row(self, row: dict[str, Any]) -> str:
        answer = self.server.answer(row["body"])
        response = {"status_code": answer.status, "body": json.loads(answer.document())}
        return json.dumps({"custom_id": row["custom_id"], "response": response})

    def _keep(self, content: str) -> str:
        self.files[f"file_{len(self.files)}"] = content
        return f"file_{len(self.files) - 1}"


def teacher_for(server: ChatServer, folder: Path, **settings: object) -> ChatTeacher:
    chosen = {"base_url": server.url, "max_retries": 3, "timeout": 20.0, **settings}
    return ChatTeacher(ChatSettings("scripted", **chosen), folder / "replies")


def result_for(teacher: ChatTeacher, image: ImageRecord) -> Dialogue | Refusal:
    (result,) = teacher.dialogues([image])
    return result
