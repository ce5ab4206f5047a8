"""Fixtures for tests of teachers, and of builds with a chat teacher."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bird_hf.data.teachers.chat import ChatTeacher

from .teachers.scripted_server import KEY, ChatServer, teacher_for


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A scripted server; the API key is set."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = ChatServer()
    yield server
    server.close()


@pytest.fixture
def teacher(server: ChatServer, tmp_path: Path) -> ChatTeacher:
    """A chat teacher of the scripted server."""
    return teacher_for(server, tmp_path)
