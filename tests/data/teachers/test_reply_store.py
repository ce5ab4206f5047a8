"""The store of replies: one file per request, complete or absent."""

from __future__ import annotations

import pytest

from bird_hf.data.teachers.chat import ChatSettings, request_for
from bird_hf.data.teachers.reply_store import Reply, ReplyStore

from .example_records import ALL, record
from .scripted_server import Answer, result_for


def test_a_reply_is_stored_before_it_is_used(teacher, server, tmp_path):
    server.script = lambda payload, _: Answer("not JSON at all")
    result_for(teacher, record(*ALL))
    assert len([*tmp_path.rglob("*.json")]) == 3


def test_a_store_that_cannot_be_read_is_named(teacher, server, tmp_path):
    result_for(teacher, record(*ALL))
    path = next(tmp_path.rglob("*.json"))
    path.write_text("{")
    with pytest.raises(ValueError, match=rf"{path.name}: not a stored reply"):
        result_for(teacher, record(*ALL))


def test_a_draft_that_was_never_renamed_is_no_reply(tmp_path):
    request = request_for(ChatSettings("m"), record(*ALL), "caption", {})
    store = ReplyStore(tmp_path)
    store.put(request.key, Reply(200, "{}"), request.payload())
    (path,) = tmp_path.rglob("*.json")
    path.rename(path.with_suffix(".1.tmp"))
    assert store.get(request.key) is None
