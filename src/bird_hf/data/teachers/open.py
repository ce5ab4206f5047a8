"""Make a teacher from its name."""

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
    turns: int | None = None,
) -> Teacher:
    """Return the teacher `templates`, or `openai`: a chat model behind any OpenAI-compatible endpoint.

    store: folder where all replies of a chat model are kept. batch: use its Batch API. rejected: hashes of turns that
    were rejected in review -> reason. turns: most turns per image, of the templates. Raises ValueError if the name is
    unknown, or a chat model has no model name, or is given a number of turns.
    """
    if name == "templates":
        return TemplateTeacher(seed, turns)
    if name != "openai":
        raise ValueError(f"teacher {name!r} is unknown; use templates or openai")
    if turns is not None:
        raise ValueError(f"--turns is of the teacher templates; {name} plans its own turns, so drop it")
    settings = ChatSettings(model=model or "", base_url=base_url, seed=seed, rejected=rejected or {})
    return BatchTeacher(settings, store) if batch else ChatTeacher(settings, store)
