"""Progress bars for loops that the user waits for, and progress lines where there is no terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

_SECONDS_PER_LINE = 30.0
# Read by tqdm, datasets and huggingface_hub when they are imported.
_OTHERS_BARS = ("TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS")


def progress_bar(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """tqdm on stderr; if that is a file or a pipe, a line at the start, every 30 seconds, and at the end.

    options: tqdm's.
    """
    from tqdm import tqdm  # after `silence_bars_in_files`

    if sys.stderr.isatty():
        return tqdm(iterable, **options)
    lines = {"file": _Lines(), "mininterval": _SECONDS_PER_LINE, "ncols": 100, "disable": False}
    return tqdm(iterable, **lines | options)


def silence_bars_in_files() -> None:
    """Turn off the progress bars of libraries if stderr is not a terminal; call it before they are imported."""
    if not sys.stderr.isatty():
        for name in _OTHERS_BARS:
            os.environ.setdefault(name, "1")


class _Lines:
    """Writes each state of a bar to stderr as a line of its own."""

    def __init__(self) -> None:
        self._last = ""

    def write(self, text: str) -> None:
        line = text.strip()
        if line and line != self._last:
            sys.stderr.write(f"{line}\n")
            self._last = line

    def flush(self) -> None:
        sys.stderr.flush()
