"""Registers BiRD with transformers' auto classes as soon as transformers loads them.

transformers has no entry points for models, and importing it in `import bird_hf` would cost every user seconds. So a
finder on `sys.meta_path` watches for the auto modules and registers BiRD's classes when they have been imported.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class _Registration:
    """Classes to register with one of transformers' auto modules.

    auto: the auto module. ours: the module of our classes. classes: pairs (auto class, our class).
    also: modules that import `auto` while they are themselves only half loaded, and that `ours` imports.
    """

    auto: str
    ours: str
    classes: tuple[tuple[str, str], ...]
    also: tuple[str, ...] = ()

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


_AUTO, _HUB = "transformers.models.auto", f"{__package__}.hub"
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


class _RegistrationFinder(importlib.abc.MetaPathFinder):
    """Finds nothing itself; it wraps the loaders of the modules that a pending registration waits for."""

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

        # This loader object belongs to this spec alone.
        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec

    def register_ready(self) -> None:
        """Run the registrations whose auto module is loaded and none of whose modules is still being loaded."""
        for registration in list(self.pending):
            if registration.auto in sys.modules and not self.loading & {*registration.modules}:
                self.pending.remove(registration)
                registration.run()


def install() -> None:
    """Register BiRD now with the auto modules that are loaded, and later with the others."""
    finder = _RegistrationFinder()
    sys.meta_path.insert(0, finder)
    finder.register_ready()
