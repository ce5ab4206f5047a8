"""The dialects by name, and that of a model's configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from . import families
from .base import Dialect


@cache
def _classes() -> dict[str, type[Dialect]]:
    """Every dialect of the modules in `families`, by name."""
    found: dict[str, type[Dialect]] = {}
    for module in iter_modules(families.__path__):
        members = vars(import_module(f"{families.__name__}.{module.name}"))
        for member in members.values():
            if isinstance(member, type) and issubclass(member, Dialect) and not inspect.isabstract(member):
                found[member.name] = member
    return dict(sorted(found.items()))


def names() -> tuple[str, ...]:
    """The names of all dialects."""
    return tuple(_classes())


def get(name: str, **settings: Any) -> Dialect:
    """A dialect by name, with settings in place of its defaults.

    Raises ValueError if there is no such dialect, naming the nearest, or no such setting.
    """
    wanted = str(name).strip().lower().replace("_", "-")
    if wanted not in _classes():
        near = get_close_matches(wanted, names(), n=1, cutoff=0.4)
        hint = f"; the nearest is {near[0]}" if near else ""
        raise ValueError(f"there is no dialect {str(name)[:80]!r}{hint}; known are {', '.join(names())}")
    kind = _classes()[wanted]
    known = tuple(kind().settings)
    for setting in settings:
        if setting not in known:
            raise ValueError(
                f"dialect {wanted} has no setting {setting!r}; it has {', '.join(known) or 'none'}"
            )
    return kind(**settings)


def for_model(config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None) -> Dialect | None:
    """The dialect of a model's configuration (the content of config.json); None if it is not known.

    preprocessor: the content of preprocessor_config.json, from which sizes are taken. A model type that models of
    several dialects share decides nothing by itself: the checkpoint's name (`_name_or_path`) must tell.
    """
    fitting = [kind for kind in _classes().values() if kind.fits(config)]
    fitting.sort(key=lambda kind: not kind.name_parts)  # a name tells more than a model type
    return fitting[0].from_config(config, preprocessor or {}) if fitting else None
