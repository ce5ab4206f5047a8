"""The trainers by name."""

from __future__ import annotations

from typing import Any

from ...dialects import get
from .base import Trainer
from .internvl import InternVL
from .llama_factory import LlamaFactory
from .lmms_eval import LmmsEval
from .ms_swift import MsSwift
from .prefix_suffix import Florence2, PaliGemma
from .qwen import Qwen
from .trl import MedGemma, Trl
from .vlmevalkit import VlmEvalKit

_KINDS: tuple[type[Trainer], ...] = (
    MsSwift, LlamaFactory, Qwen, InternVL, PaliGemma, Florence2, MedGemma, Trl, LmmsEval, VlmEvalKit,
)  # fmt: skip
TRAINERS = {kind.name: kind for kind in _KINDS}


def open_trainer(name: str, dialect: str | None = None, **settings: Any) -> Trainer:
    """A trainer by name, with a dialect and its settings; by default with its own dialect, if it has one.

    Raises ValueError if a dialect is missing, unknown, or not one that the trainer takes.
    """
    kind = TRAINERS[name]
    chosen = dialect or next(iter(kind.dialects), None)
    if chosen is None and settings:
        raise ValueError("--set is about a dialect; give its name with --dialect")
    return kind(get(chosen, **settings) if chosen else None)
