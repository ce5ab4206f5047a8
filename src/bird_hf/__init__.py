"""bird-hf: biomedical refer-and-ground for Hugging Face.

    import bird_hf
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained("bird")  # the auto classes know BiRD
    answer = bird_hf.ask("scan.png", "Where is the right lung?", model="bird")
    print(answer.text, answer.boxes_px)

Importing the package loads neither torch nor transformers: each public name is imported on its first use.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from . import registration as _registration

if _TYPE_CHECKING:
    from .answering import Answer
    from .hub.boxes import Box
    from .hub.configuration_bird import BirdConfig, BirdVisionConfig
    from .hub.grounding import GroundedText, Span, read, write
    from .hub.image_processing_bird import BirdImageProcessor
    from .hub.modeling_bird import BirdForConditionalGeneration, BirdModel
    from .hub.processing_bird import BirdProcessor
    from .images.open import open_image
    from .images.view import View
    from .inference import GroundingModel, ask, load
    from .questions import Query
    from .repository_folders import metric

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "BirdConfig",
    "BirdForConditionalGeneration",
    "BirdImageProcessor",
    "BirdModel",
    "BirdProcessor",
    "BirdVisionConfig",
    "Box",
    "GroundedText",
    "GroundingModel",
    "Query",
    "Span",
    "View",
    "ask",
    "load",
    "metric",
    "open_image",
    "read",
    "write",
]

_PUBLIC_NAMES = {
    "answering": ("Answer",),
    "inference": ("GroundingModel", "ask", "load"),
    "questions": ("Query",),
    "images.open": ("open_image",),
    "images.view": ("View",),
    "hub.boxes": ("Box",),
    "hub.grounding": ("GroundedText", "Span", "read", "write"),
    "hub.configuration_bird": ("BirdConfig", "BirdVisionConfig"),
    "hub.image_processing_bird": ("BirdImageProcessor",),
    "hub.processing_bird": ("BirdProcessor",),
    "repository_folders": ("metric",),
    "hub.modeling_bird": ("BirdForConditionalGeneration", "BirdModel"),
}
_MODULE_OF = {name: module for module, names in _PUBLIC_NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])


_registration.install()
