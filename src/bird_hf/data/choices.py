"""Choices by name, with errors that list the names."""

from __future__ import annotations

from enum import StrEnum


class NamedChoice(StrEnum):
    """A choice that is written by name in files and options: letter case does not count, errors list the names."""

    @classmethod
    def _missing_(cls, value: object) -> NamedChoice:
        wanted = str(value).strip().lower().replace("-", "_")
        for choice in cls:
            if choice.value == wanted:
                return choice
        raise ValueError(f"{value!r} is not a valid {cls.__name__}; use one of {', '.join(cls)}")
