"""The Java archives of SPICE: found, downloaded with a scripted server, continued, checked, and refused in one line."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bird_hf.eval.corenlp import JARS, Jar, corenlp_folder, find_jars, set_up

CONTENT = bytes(range(256)) * 1000
JAR = Jar("a.jar", "org/a/1", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
WRONG = CONTENT[::-1]


class Server:
    """Serves one content; keeps the ranges that it was asked for."""

    def __init__(self) -> None:
        self.content, self.ends_after, self.knows_ranges, self.status = CONTENT, len(CONTENT), True, 200
        self.asked: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                outer.asked.append((self.path, wanted))
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and outer.knows_ranges else 0
                self.send_response(206 if start and outer.status == 200 else outer.status)
                self.send_header("Content-Length", str(len(outer.content) - start))
                self.end_headers()
                self.wfile.write(outer.content[start : outer.ends_after])

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    thread = threading.Thread(target=served.http.serve_forever, daemon=True)
    thread.start()
    yield served
    served.http.shutdown()
    served.http.server_close()


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("BIRD_CORENLP", str(tmp_path / "jars"))
    return tmp_path / "jars"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_is_in_the_users_cache_unless_named(monkeypatch, folder, tmp_path):
    assert corenlp_folder() == folder
    monkeypatch.delenv("BIRD_CORENLP")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert corenlp_folder() == tmp_path / "cache" / "bird-hf" / "corenlp"


def test_archives_are_downloaded_once(server, folder):
    assert set_up(base_url=server.url, jars=[JAR]) == folder
    assert (folder / "a.jar").read_bytes() == CONTENT
    assert names(folder) == ["a.jar"]
    assert find_jars([JAR]) == [folder / "a.jar"]
    set_up(base_url=server.url, jars=[JAR])
    assert server.asked == [("/org/a/1/a.jar", None)]


@pytest.mark.parametrize("knows_ranges", [True, False])  # a server without ranges sends all of it again
def test_a_stopped_download_goes_on(server, folder, knows_ranges):
    server.ends_after = 1000
    with pytest.raises(ValueError, match=r"run `bird setup spice` again"):
        set_up(base_url=server.url, jars=[JAR])
    assert names(folder) == ["a.jar.part"]
    assert (folder / "a.jar.part").stat().st_size == 1000
    server.ends_after, server.knows_ranges = len(CONTENT), knows_ranges
    set_up(base_url=server.url, jars=[JAR])
    assert server.asked[-1][1] == "bytes=1000-"
    assert (folder / "a.jar").read_bytes() == CONTENT


def test_other_content_is_not_kept(server, folder):
    server.content = WRONG
    with pytest.raises(ValueError, match=f"instead of {JAR.sha256}; nothing was kept"):
        set_up(base_url=server.url, jars=[JAR])
    assert names(folder) == []


def test_no_more_than_the_archive_is_received(server, folder):
    server.content, server.ends_after = CONTENT * 2, 2 * len(CONTENT)
    set_up(base_url=server.url, jars=[JAR])
    assert (folder / "a.jar").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_refuses_is_named(server, status):
    server.status = status
    with pytest.raises(ValueError, match=r"could not be downloaded .*--from") as caught:
        set_up(base_url=server.url, jars=[JAR])
    assert "\n" not in str(caught.value)


def test_a_folder_is_copied_from(folder, tmp_path):
    source = tmp_path / "given"
    source.mkdir()
    with pytest.raises(ValueError, match=r"a\.jar: no such file"):
        set_up(source, jars=[JAR])
    for content, message in [(CONTENT[1:], f"{len(CONTENT) - 1} bytes"), (WRONG, "sha256")]:
        (source / "a.jar").write_bytes(content)
        with pytest.raises(ValueError, match=f"is not the archive of Maven Central .*{message}"):
            set_up(source, jars=[JAR])
        assert names(folder) == []
    (source / "a.jar").write_bytes(CONTENT)
    set_up(source, jars=[JAR])
    assert (folder / "a.jar").read_bytes() == CONTENT


def test_a_damaged_archive_is_replaced(server, folder):
    folder.mkdir()
    (folder / "a.jar").write_bytes(WRONG)
    set_up(base_url=server.url, jars=[JAR])
    assert (folder / "a.jar").read_bytes() == CONTENT


def test_missing_and_cut_archives_are_named_with_both_remedies(folder):
    with pytest.raises(ValueError, match=r"a\.jar in .*bird setup spice.*--rc-measure scene_graph_f1"):
        find_jars([JAR])
    folder.mkdir()
    (folder / "a.jar").write_bytes(CONTENT[:7])
    with pytest.raises(ValueError, match=f"has 7 bytes, and the archive has {len(CONTENT)}"):
        find_jars([JAR])


def test_a_folder_that_cannot_be_made_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BIRD_CORENLP", str(tmp_path / "file" / "jars"))
    with pytest.raises(ValueError, match="set BIRD_CORENLP to a folder"):
        set_up(jars=[JAR])


def test_the_archives_are_those_of_corenlp_and_rhino():
    assert [jar.name for jar in JARS] == [
        "stanford-corenlp-3.6.0.jar",
        "stanford-corenlp-3.6.0-models.jar",
        "rhino-1.7.15.jar",
        "rhino-engine-1.7.15.jar",
    ]
    assert all(len(jar.sha256) == 64 and jar.url_path.endswith(f"/{jar.name}") for jar in JARS)
