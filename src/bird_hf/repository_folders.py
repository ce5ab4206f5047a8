"""Folders at the top of the repository that the wheel contains as well: model cards, recipes and metrics."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def repository_folder(name: str) -> Path:
    """Returns a top-level folder of the repository, such as `model_card`.

    The wheel contains it as `bird_hf/assets/NAME` (`force-include` in pyproject.toml). In a checkout or an editable
    install it is the folder itself. Raises FileNotFoundError if neither exists.
    """
    for folder in (_PACKAGE / "assets" / name, _PACKAGE.parents[1] / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{_PACKAGE} was installed without its {name} folder; install bird-hf again")
