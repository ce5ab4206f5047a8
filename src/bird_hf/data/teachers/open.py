"""The teacher of a name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .base import Teacher
from .batch import BatchTeacher
from .chat import ChatSettings, ChatTeacher
from .templates import TemplateTeacher


def open_teacher(
    name: str,
    seed: int,
    store: Path,
    model: str | None = None,
    base_url: str | None = None,
    batch: bool = False,
    rejected: Mapping[str, str] | None = None,
) -> Teacher:
    """The teacher of a name: `templates`, or `openai`, a chat model behind any compatible endpoint.

    store: the folder that keeps every reply of a chat model. batch: ask it through its Batch API. rejected: hashes
    of turns that people rejected, and why. Raises ValueError for an unknown name, or where a chat model has none.
    """
    if name == "templates":
        return TemplateTeacher(seed)
    if name != "openai":
        raise ValueError(f"teacher {name!r} is unknown; use templates or openai")
    settings = ChatSettings(model=model or "", base_url=base_url, seed=seed, rejected=rejected or {})
    return BatchTeacher(settings, store) if batch else ChatTeacher(settings, store)
