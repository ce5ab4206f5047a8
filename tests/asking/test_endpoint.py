"""A scripted endpoint on loopback: failures are waited out or said in one line, and nothing is paid twice."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bird_hf import Box, Query, dialects
from bird_hf.answering import Decoding, StoppedError
from bird_hf.asking import ModelChoice, open_model
from bird_hf.asking.endpoint import EndpointModel, EndpointSettings, _asked_wait
from bird_hf.data.folder.publish import open_folder
from bird_hf.eval.predict import predict_dataset
from bird_hf.eval.predictions import read_predictions
from bird_hf.hub.grounding import Issue

from ..data.teachers.scripted_server import KEY, Answer, ChatServer, Payload

PICTURE = Image.new("RGB", (80, 60), (90, 20, 20))
QUESTION = "Where is the left kidney?"
BOX = Box(0.25, 0.15, 0.625, 0.55)
SAID = '[{"bbox_2d": [250, 150, 625, 550], "label": "left kidney"}]'
QUERY = Query(QUESTION, PICTURE)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    opened = ChatServer()
    opened.script = lambda payload, number: Answer(SAID)
    yield opened
    opened.close()


@pytest.fixture
def model(server: ChatServer, tmp_path: Path) -> Callable[..., EndpointModel]:
    def make(dialect: str = "qwen3-vl", **settings: Any) -> EndpointModel:
        quick = {"max_retries": 2, "timeout": 20.0, "wait": 0.01, **settings}
        chosen = EndpointSettings(server.url, "served", **quick)
        return EndpointModel(chosen, dialects.get(dialect), tmp_path / "replies")

    return make


def picture_in(payload: Payload) -> Image.Image:
    url = payload["messages"][0]["content"][0]["image_url"]["url"]
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))


def test_a_question_is_asked_in_the_dialect_and_its_boxes_are_ours(
    server: ChatServer, model: Callable[..., EndpointModel]
) -> None:
    answer = model().ask(PICTURE, QUESTION)
    assert (answer.text, answer.boxes, answer.raw, answer.model) == ("left kidney", (BOX,), SAID, "served")
    (payload,) = server.calls
    assert payload["messages"][0]["content"][1]["text"] == (
        "Locate the left kidney in this image and output the bbox coordinates in JSON format."
    )
    assert (payload["model"], payload["temperature"]) == ("served", 0)
    assert payload["max_completion_tokens"] == 1024
    assert "skip_special_tokens" not in payload and "seed" not in payload
    assert picture_in(payload).tobytes() == PICTURE.tobytes()


@pytest.mark.parametrize(
    ("dialect", "size", "has_special_tokens"),
    [
        ("medgemma", (80, 80), False),  # padded, because its processor does not pad
        ("qwen2.5-vl", (84, 56), False),  # in the size whose pixels are counted
        ("paligemma", (80, 60), True),
        ("maira-2", (80, 60), False),  # its processor cuts
        # <ref> and <box> are special tokens of these; vLLM would leave them out (InternVL#803, lmdeploy#2259)
        ("internvl", (80, 60), True),
        ("medrega", (80, 60), True),
        ("bird", (80, 60), True),  # Qwen-VL's tokenizer
    ],
)
def test_the_picture_is_sent_as_the_dialect_sees_it(
    server: ChatServer,
    model: Callable[..., EndpointModel],
    dialect: str,
    size: tuple[int, int],
    has_special_tokens: bool,
) -> None:
    model(dialect).generate([Query(QUESTION, PICTURE, names=("left kidney",))])
    (payload,) = server.calls
    assert picture_in(payload).size == size
    assert payload.get("skip_special_tokens") is (False if has_special_tokens else None)


CUT = json.dumps({"choices": [{"message": {"content": SAID}}]})[:-20]


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(Answer("slow down", status=429), id="429"),
        pytest.param(Answer("oops", status=500), id="500"),
        pytest.param(Answer(SAID, drop=True), id="connection lost in the middle"),
        pytest.param(Answer(body=CUT), id="JSON cut in half"),
        pytest.param(Answer(body="<html>gateway</html>"), id="no JSON"),
        pytest.param(Answer(body='{"choices": []}'), id="no answer in it"),
        pytest.param(Answer(body='{"choices": [{"message": {"content": [1]}}]}'), id="no text in it"),
        pytest.param(Answer(SAID, delay=1.0), id="stalled"),
    ],
)
def test_what_may_pass_is_waited_out(
    server: ChatServer, model: Callable[..., EndpointModel], failure: Answer, tmp_path: Path
) -> None:
    server.script = lambda payload, number: failure if number < 2 else Answer(SAID)
    asked = model(timeout=0.4) if failure.delay else model()
    assert asked.generate([QUERY]) == [SAID]
    assert len(server.calls) == 3
    assert asked.generate([QUERY]) == [SAID]  # from the store
    assert len(server.calls) == 3


@pytest.mark.parametrize(
    ("failure", "message", "calls"),
    [
        (Answer("slow down", status=429), "does not answer: .*slow down", 3),
        (Answer(body=CUT), "does not answer: the answer is cut", 3),
        (Answer(SAID, delay=1.0), r"no whole answer within 0\.4 seconds", 3),
        (Answer(f"bad key {KEY}", status=401), r"does not answer: .*bad key \*\*\*", 1),
        (Answer("no such model", status=404), "no such model", 1),
        (
            Answer(body='{"error": {"message": "no\\nGPU"}}'),
            "does not answer: the answer is an error: no GPU",
            3,
        ),
    ],
)
def test_what_does_not_pass_stops_the_run_in_one_line(
    server: ChatServer, model: Callable[..., EndpointModel], failure: Answer, message: str, calls: int
) -> None:
    server.script = lambda payload, number: failure
    with pytest.raises(StoppedError, match=message) as caught:
        model(timeout=0.4 if failure.delay else 20.0).generate([QUERY])
    assert "\n" not in str(caught.value) and KEY not in str(caught.value)
    assert len(server.calls) == calls


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_said_and_no_picture_is_sent_there(
    server: ChatServer, model: Callable[..., EndpointModel], status: int
) -> None:
    other = ChatServer()
    try:
        moved = {"location": other.url.replace("127.0.0.1", "localhost") + "/chat/completions"}
        server.script = lambda payload, number: Answer("moved", status=status, headers=moved)
        with pytest.raises(StoppedError, match=r"it redirects to http://localhost:.*give that one if"):
            model().generate([QUERY])
        assert (len(server.calls), len(other.calls)) == (1, 0)
    finally:
        other.close()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"type": "thinking", "thinking": []}, {"type": "text", "text": SAID}], SAID),
        ([{"type": "text", "text": SAID[:9]}, {"type": "text", "text": SAID[9:]}], SAID),
        (None, ""),
        ([], ""),
    ],
)
def test_content_in_parts_is_read_and_paid_once(
    server: ChatServer, model: Callable[..., EndpointModel], content: object, said: str
) -> None:
    body = json.dumps({"choices": [{"message": {"content": content}}]})
    server.script = lambda payload, number: Answer(body=body)
    assert [model().generate([QUERY]) for _ in range(2)] == [[said]] * 2
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "1000000000"}, 1e9),  # the runner waits no longer than 30 seconds
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        *[
            ({"retry-after": value}, 0)
            for value in ("nan", "-5", "soon", "", "Wed, 99 Oct 2015 07:28:00 GMT")
        ],
        ({}, 0),
    ],
)
def test_how_long_a_server_asks_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert _asked_wait(headers) == seconds


def test_a_server_may_say_when_to_try_again() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    assert 15 < _asked_wait({"retry-after": later}) <= 20


@pytest.mark.parametrize("key", ["sk-a\nb", "ключ"])
def test_a_key_that_cannot_be_sent_is_said_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OTHER_KEY", key)
    choice = ModelChoice("http://127.0.0.1:9/v1", "qwen3-vl", "served", key_variable="OTHER_KEY")
    with pytest.raises(ValueError, match="the key in OTHER_KEY holds a line break") as caught:
        open_model(choice)
    assert key not in str(caught.value)


def test_nothing_is_paid_for_if_answers_cannot_be_kept(server: ChatServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = EndpointModel(
        EndpointSettings(server.url, "served"), dialects.get("qwen3-vl"), tmp_path / "file" / "replies"
    )
    with pytest.raises(ValueError, match=r"file/replies: replies cannot be kept there \(Not a directory\)"):
        model.generate([QUERY])
    assert server.calls == []


def test_an_endpoint_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    settings = EndpointSettings("http://127.0.0.1:9/v1", "served", max_retries=1, wait=0.01)
    with pytest.raises(StoppedError, match=r"127\.0\.0\.1 does not answer: .*connection attempts failed"):
        EndpointModel(settings, dialects.get("qwen3-vl")).generate([QUERY])


def test_a_refused_question_does_not_cost_the_others(
    server: ChatServer, model: Callable[..., EndpointModel]
) -> None:
    def script(payload: Payload, number: int) -> Answer:
        is_bad = "spleen" in payload["messages"][0]["content"][1]["text"]
        return Answer("too many pixels", status=400) if is_bad else Answer(SAID)

    server.script = script
    queries = [Query(f"Where is the {name}?", PICTURE) for name in ("spleen", "liver", "left kidney")]
    with pytest.raises(ValueError, match=r"the model refuses this question: .*too many pixels"):
        model().generate(queries)
    paid = len(server.calls)
    assert model().generate(queries[1:]) == [SAID, SAID]
    assert len(server.calls) == paid


def test_an_answer_of_a_megabyte_is_cut_kept_and_unreadable(
    server: ChatServer, model: Callable[..., EndpointModel], tmp_path: Path
) -> None:
    server.script = lambda payload, number: Answer(SAID + " and so on" * 100_000)
    for _ in range(2):  # the second time from the store
        answer = model().ask(PICTURE, QUESTION)
        assert answer.issues == (Issue.TOO_LONG,) and answer.boxes == (BOX,)
        assert model().bird_text(answer.raw, QUERY).endswith("<box></box>")
    assert len(server.calls) == 1
    (kept,) = (tmp_path / "replies").rglob("*.json")
    assert kept.stat().st_size < 200_000
    server.script = lambda payload, number: Answer(body="x" * 9_000_000)
    with pytest.raises(ValueError, match="larger than 8 MiB"):
        model("shikra").generate([QUERY])


def test_a_kept_reply_holds_neither_key_nor_picture(
    server: ChatServer, model: Callable[..., EndpointModel], tmp_path: Path
) -> None:
    model().generate([QUERY])
    (kept,) = (tmp_path / "replies").rglob("*.json")
    text = kept.read_text()
    assert KEY not in text and "base64" not in text and "sha256:" in text and QUESTION[-12:-1] in text
    assert server.keys == {f"Bearer {KEY}"}


def test_several_answers_are_requests_of_their_own(
    server: ChatServer, model: Callable[..., EndpointModel]
) -> None:
    server.script = lambda payload, number: Answer(f"{payload['seed']}")
    decoding = Decoding(n=8, temperature=0.7, max_new_tokens=50, seed=3)
    said = model(concurrency=4).sample([QUERY, Query("Where is the liver?", PICTURE)], decoding)
    assert said == [tuple(str(seed) for seed in range(3, 11))] * 2
    assert server.most_at_once <= 4 and len(server.calls) == 16
    assert {payload["max_completion_tokens"] for payload in server.calls} == {50}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"served_model": None}, "give --served-model"),
        ({"dialect": None}, r"served at 127\.0\.0\.1: how this model writes boxes is not known .*give --dialect"),
        ({"model": "http://"}, "is not an address such as"),
        ({"model": "http://127.0.0.1:99999/v1"}, "is not an address such as"),
        ({"model": "http://[::1/v1"}, "is not an address such as"),
        ({"model": "http://me:secret@127.0.0.1/v1"}, "is not an address.*a key is read from OPENAI_API_KEY"),
        ({"dtype": "bfloat16"}, r"--dtype is of a model that runs here"),
        ({"load_in_4bit": True}, r"--load-in-4bit is of a model that runs here"),
        ({"timeout": 0}, "timeout is 0; it must be above 0"),
    ],
)  # fmt: skip
def test_a_wrong_choice_is_one_line(choice: dict[str, Any], message: str) -> None:
    chosen = {"model": "http://127.0.0.1:8000/v1", "served_model": "served", "dialect": "qwen3-vl"} | choice
    with pytest.raises(ValueError, match=message) as caught:
        open_model(ModelChoice(**chosen))
    assert "\n" not in str(caught.value)


# --- predictions ------------------------------------------------------------------------------------------


def test_predictions_hold_bird_text_and_what_was_said(
    server: ChatServer, run_bird: Callable[..., Any], med_grit: Path, tmp_path: Path
) -> None:
    broken = SAID[:-1] + ', {"bbox'
    server.script = lambda payload, number: Answer(broken if number == 0 else SAID)
    out = tmp_path / "vg.jsonl"
    options = ["--model", server.url, "--served-model", "served", "--dialect", "qwen3-vl", "--task", "vg"]
    ran = run_bird("predict", *options, "--data", med_grit, "--out", out, "--concurrency", 1)
    assert (ran.code, ran.err.count("remark")) == (0, 0), ran
    answers = read_predictions(out, "vg")
    readable = "<ref>left kidney</ref><box>(250,150),(625,550)</box>"
    assert sorted({each.response for each in answers}) == [readable, f"{readable}<box></box>"]
    assert {each.raw for each in answers} == {SAID, broken}
    assert {tuple(each.issues or ()) for each in answers} == {(), ("broken_json",)}
    paid = len(server.calls)
    out.unlink()
    assert run_bird("predict", *options, "--data", med_grit, "--out", out).code == 0
    assert len(server.calls) == paid == len(answers)
    assert run_bird("score", out, "--task", "vg", "--rules", "strict").code == 0


def test_half_a_character_in_an_answer_does_not_stop_a_run(
    server: ChatServer, model: Callable[..., EndpointModel], med_grit: Path, tmp_path: Path
) -> None:
    label = json.dumps(
        [{"bbox_2d": [250, 150, 625, 550], "label": "left \ud800 kidney"}]
    )  # an escape in the answer
    said = [label, "left \ud800 kidney"]
    server.script = lambda payload, number: Answer(said[number % 2])
    out = tmp_path / "vg.jsonl"
    predict_dataset(model(), open_folder(med_grit, "vg", "test"), out)
    texts = {each.response for each in read_predictions(out, "vg")}
    assert texts == {"left \ufffd kidney", "<ref>left \ufffd kidney</ref><box>(250,150),(625,550)</box>"}


def test_a_run_that_is_killed_pays_for_no_answer_twice(
    server: ChatServer, model: Callable[..., EndpointModel], med_grit: Path, tmp_path: Path
) -> None:
    rows, out = open_folder(med_grit, "vg", "test"), tmp_path / "vg.jsonl"
    server.script = lambda payload, number: Answer(SAID, delay=0.05)
    child = os.fork()
    if child == 0:
        predict_dataset(model(concurrency=1), rows, out, batch_size=2)
        os._exit(0)
    while len(server.calls) < 4:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kept = len([*(tmp_path / "replies").rglob("*.json")])
    assert kept >= 2
    before = len(server.calls)
    predict_dataset(model(concurrency=1), rows, out, batch_size=2)
    assert len(server.calls) - before == len(rows) - kept
    assert len(read_predictions(out, "vg")) == len(rows)


def test_questions_that_a_dialect_cannot_ask_are_said(
    server: ChatServer,
    run_bird: Callable[..., Any],
    med_grit: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = ["--model", server.url, "--served-model", "served", "--dialect", "florence-2"]
    ran = run_bird("predict", *options, "--task", "mia", "--data", med_grit, "--out", tmp_path / "mia.jsonl")
    assert ran.code == 2 and "florence-2 has no way to ask questions of the task mia" in ran.err
    run = tmp_path / "run"
    ran = run_bird("predict", *options, "--task", "all", "--data", med_grit, "--out", run, "--limit", 2)
    assert ran.code == 0 and "mia: 2 of 2 questions are left out" in caplog.text
    assert not (run / "mia.jsonl").exists() and (run / "vg.jsonl").exists()
    found = json.loads((run / "run.json").read_text())
    assert (found["model"], found["weights_sha256"], found["dialect"]) == ("served", "", "florence-2")


def test_ask_prints_each_answer(server: ChatServer, run_bird: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    PICTURE.save(path)
    options = ["--model", server.url, "--served-model", "served", "--dialect", "qwen3-vl"]
    ran = run_bird("ask", path, QUESTION, *options, "--n", 3, "--temperature", 0.5)
    assert (ran.code, ran.out.count("left kidney: 20,9,50,33")) == (0, 3)
    ran = run_bird("ask", path, QUESTION, *options, "--n", 3)
    assert ran.code == 2 and "give --temperature 0.7" in ran.err
    ran = run_bird("ask", path, "Anything unusual?", *options, "--name", "spleen", "--task", "vg", "--json")
    assert json.loads(ran.out)["spans"][0]["boxes_px"] == [[20.0, 9.0, 50.0, 33.0]]
    assert "Locate the spleen" in server.calls[-1]["messages"][0]["content"][1]["text"]
