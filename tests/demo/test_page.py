"""The demo's page, and how it is served: what it lists, what it reports, where it stores uploads."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from bird_hf.demo.callbacks import Callbacks
from bird_hf.demo.page import MAX_UPLOAD_MB, build_page, keep_uploads_private, launch, run_demo

from .page_content import callbacks, model_that_knows

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("names", [(), ("left kidney", "<b>liver")])
def test_the_page_lists_the_names_that_the_model_knows(names: tuple[str, ...]) -> None:
    config = build_page(Callbacks(model_that_knows(*names), [])).get_config_file()
    values = [
        each["props"].get("value") for each in config["components"] if each["props"].get("elem_id") == "names"
    ]
    assert len(values) == bool(names)
    for value in values:
        assert (
            "The 2 names that this model was trained on" in value and "left kidney, &lt;b&gt;liver" in value
        )


def test_a_folder_without_data_or_checkpoint_is_named(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ValueError, match="nothing is not a Med-GRIT folder"):
        run_demo(tmp_path, tmp_path / "nothing")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        run_demo(tmp_path, data)


@pytest.mark.slow
def test_a_page_reports_nothing_and_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Any] = []
    for call in ("version_check", "_do_analytics_request"):  # all that gradio sends goes through these
        monkeypatch.setattr(f"gradio.analytics.{call}", lambda *a, **k: reports.append((a, k)))
    page = build_page(callbacks())
    try:
        launch(page, "127.0.0.1", prevent_thread_lock=True, quiet=True)
        config = page.get_config_file()
        assert not page.share and not config["analytics_enabled"] and not config["run_history"]
        assert page.max_file_size == MAX_UPLOAD_MB * 1024 * 1024
        notice = [
            each["props"]["value"]
            for each in config["components"]
            if each["props"].get("elem_id") == "notice"
        ]
        assert notice == ["For research only. Not for clinical use."]
        assert not any(stylesheet for stylesheet in config["stylesheets"] if "http" in stylesheet)
    finally:
        page.close()
    assert reports == []


def test_a_taken_port_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot be served on 127.0.0.1, port {port} .*another --port"):
            launch(build_page(callbacks()), "127.0.0.1", port, prevent_thread_lock=True)


@pytest.fixture
def own_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_files_of_uploads_are_readable_by_their_owner_only(own_umask, monkeypatch):
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    keep_uploads_private()
    monkeypatch.setenv("GRADIO_TEMP_DIR", os.environ["GRADIO_TEMP_DIR"])  # removed after the test
    picture = gr.Image(format="png")
    cached = Path(picture.postprocess(np.zeros((9, 9, 3), np.uint8)).path)
    assert cached.is_relative_to(os.environ["GRADIO_TEMP_DIR"])
    assert cached.stat().st_mode & 0o777 == 0o600
    for folder in cached.relative_to(os.environ["GRADIO_TEMP_DIR"]).parents:
        assert Path(os.environ["GRADIO_TEMP_DIR"], folder).stat().st_mode & 0o777 == 0o700
