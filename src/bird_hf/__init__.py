"""bird-hf: biomedical refer-and-ground for Hugging Face.

Importing this package makes the auto classes know BiRD, and loads neither torch nor transformers itself:
names arrive when they are used, and registration happens when transformers loads its auto classes.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hub.boxes import Box
    from .hub.configuration_bird import BirdConfig, BirdVisionConfig
    from .hub.grounding import GroundedText, Span, read, write
    from .hub.image_processing_bird import BirdImageProcessor
    from .hub.modeling_bird import BirdForConditionalGeneration, BirdModel
    from .hub.processing_bird import BirdProcessor

__all__ = [
    "BirdConfig",
    "BirdForConditionalGeneration",
    "BirdImageProcessor",
    "BirdModel",
    "BirdProcessor",
    "BirdVisionConfig",
    "Box",
    "GroundedText",
    "Span",
    "read",
    "write",
]

_HOMES = {
    "boxes": ("Box",),
    "grounding": ("GroundedText", "Span", "read", "write"),
    "configuration_bird": ("BirdConfig", "BirdVisionConfig"),
    "image_processing_bird": ("BirdImageProcessor",),
    "processing_bird": ("BirdProcessor",),
    "modeling_bird": ("BirdForConditionalGeneration", "BirdModel"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".hub.{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


@dataclass(frozen=True)
class _Registration:
    """What to tell one of transformers' auto modules once it, and the file of ours it needs, are loaded."""

    auto: str
    ours: str
    classes: tuple[tuple[str, str], ...]  # auto class, class of ours
    also: tuple[str, ...] = ()  # modules that import `auto` half-way, and that `ours` imports

    @property
    def modules(self) -> tuple[str, ...]:
        return (self.auto, self.ours, *self.also)

    def run(self) -> None:
        from .hub.configuration_bird import BirdConfig

        auto, ours = sys.modules[self.auto], importlib.import_module(self.ours)
        for auto_name, our_name in self.classes:
            auto_class, our_class = getattr(auto, auto_name), getattr(ours, our_name)
            if auto_name == "AutoConfig":
                auto_class.register(BirdConfig.model_type, our_class, exist_ok=True)
            elif auto_name == "AutoImageProcessor":
                auto_class.register(BirdConfig, image_processor_classes={"pil": our_class}, exist_ok=True)
            else:
                auto_class.register(BirdConfig, our_class, exist_ok=True)


_AUTO, _HUB = "transformers.models.auto", f"{__name__}.hub"
_REGISTRATIONS = (
    _Registration(
        f"{_AUTO}.configuration_auto", f"{_HUB}.configuration_bird", (("AutoConfig", "BirdConfig"),)
    ),
    _Registration(
        f"{_AUTO}.modeling_auto",
        f"{_HUB}.modeling_bird",
        (
            ("AutoModel", "BirdModel"),
            ("AutoModelForImageTextToText", "BirdForConditionalGeneration"),
        ),
        also=("transformers.modeling_layers",),
    ),
    _Registration(
        f"{_AUTO}.image_processing_auto",
        f"{_HUB}.image_processing_bird",
        (("AutoImageProcessor", "BirdImageProcessor"),),
    ),
    _Registration(
        f"{_AUTO}.processing_auto", f"{_HUB}.processing_bird", (("AutoProcessor", "BirdProcessor"),)
    ),
)


class _RegisterWhenLoaded(importlib.abc.MetaPathFinder):
    """Registers BiRD as soon as transformers' auto modules are loaded.

    transformers has no entry points for models, and to import it here would cost every user seconds.
    """

    def __init__(self) -> None:
        self.pending = list(_REGISTRATIONS)
        self.loading: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not any(fullname in registration.modules for registration in self.pending):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            self.loading.add(fullname)
            try:
                execute(module)
            finally:
                self.loading.discard(fullname)
            self.register_ready()

        # Of this one loader, which loads this one module.
        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec

    def register_ready(self) -> None:
        """Register what is loaded; what is only half loaded has its turn when it is finished."""
        for registration in list(self.pending):
            if registration.auto in sys.modules and not self.loading & {*registration.modules}:
                self.pending.remove(registration)
                registration.run()


_finder = _RegisterWhenLoaded()
sys.meta_path.insert(0, _finder)
_finder.register_ready()
