"""Which dialect a model is asked in, and whether it fits the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import dialects
from ..dialects import FILE_NAME, Dialect

# Pictures by which two ways to see a picture are compared: small, large, wide, high.
_SIZES = ((64, 48), (800, 600), (4000, 3000), (1500, 100), (100, 1500))


def fitting_dialect(
    wanted: str | None,
    where: str,
    config: Mapping[str, Any],
    preprocessor: Mapping[str, Any],
    folder: Path | None = None,
) -> tuple[Dialect, list[str]]:
    """The dialect to ask a model in, and remarks about it, one sentence each.

    wanted: a name, or a `dialect.json`; by default the `dialect.json` of the model's folder, then what fits its
    configuration. where: how the model is called in errors. preprocessor: the settings of its image processor.
    Raises ValueError if the dialect is not known, or counts in pixels of another resizing than the processor's.
    """
    kept = dialects.read_dialect(folder) if folder and (folder / FILE_NAME).is_file() else None
    fitted = dialects.for_model(config, preprocessor)
    dialect = _wanted_dialect(wanted, kept, config, preprocessor) or kept or fitted
    if dialect is None:
        model_type = config.get("model_type")
        known = f"its model type {str(model_type)[:60]!r} tells none" if model_type else "nothing tells it"
        raise ValueError(
            f"{where}: how this model writes boxes is not known ({known}); give --dialect, one of "
            f"{', '.join(dialects.names())}, or a {FILE_NAME}"
        )
    _check_resizing(dialect, where, config, preprocessor)
    return dialect, _remarks(dialect, where, kept or fitted, kept is not None, preprocessor)


def _wanted_dialect(
    wanted: str | None, kept: Dialect | None, config: Mapping[str, Any], preprocessor: Mapping[str, Any]
) -> Dialect | None:
    if wanted is None:
        return None
    if wanted.endswith(".json"):
        path = Path(wanted)
        if not path.is_file():
            raise ValueError(f"--dialect {wanted}: no such file; give a {FILE_NAME}, or a name")
        return dialects.read_dialect(path)
    named = dialects.get(wanted)
    if kept is not None and kept.name == named.name:
        return kept
    return type(named).from_config(config, preprocessor)


def _check_resizing(
    dialect: Dialect, where: str, config: Mapping[str, Any], preprocessor: Mapping[str, Any]
) -> None:
    """Numbers in pixels of a resized picture are read by the sizes that the model's processor makes."""
    if not preprocessor or config.get("model_type") not in dialect.model_types:
        return
    ours = type(dialect).from_config(config, preprocessor)
    for size in _SIZES:
        if dialect.view(size) != ours.view(size):
            raise ValueError(
                f"{where}: the dialect is {dialect.settings}, and the model's processor resizes by {ours.settings}; "
                "boxes would be read from pictures of another size, so make the two agree"
            )


def _cuts(preprocessor: Mapping[str, Any]) -> bool:
    """Whether an image processor cuts off the sides of pictures that are not square."""
    size, crop = preprocessor.get("size"), preprocessor.get("crop_size")
    return bool(preprocessor.get("do_center_crop")) and (
        size != crop or "shortest_edge" in (size if isinstance(size, Mapping) else {})
    )


def _remarks(
    dialect: Dialect, where: str, right: Dialect | None, is_kept: bool, preprocessor: Mapping[str, Any]
) -> list[str]:
    found = []
    if right is not None and right.name != dialect.name:
        told = f"its {FILE_NAME}" if is_kept else "its configuration"
        found.append(
            f"{where} is asked in the dialect {dialect.name}, but {told} says {right.name}; give --dialect "
            f"{right.name} unless it was trained on the other"
        )
    if _cuts(preprocessor) and dialect.view((200, 100)).is_whole:
        found.append(
            f"the image processor of {where} cuts a square out of the middle of pictures, and {dialect.name} speaks of "
            "whole ones: what is outside the square is not seen"
        )
    return found
