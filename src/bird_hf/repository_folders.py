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


def metric(name: str) -> str:
    """Returns the folder of a metric, for `evaluate.load(bird_hf.metric("grounding_recall"))`.

    Raises ValueError if there is no such metric.
    """
    folders = {path.parent.name: str(path.parent) for path in repository_folder("metrics").glob("*/app.py")}
    if name not in folders:
        raise ValueError(f"{name!r} is not a metric; use one of {', '.join(sorted(folders))}")
    return folders[name]


def find_recipe(path: Path) -> Path:
    """Returns the recipe `path`; if there is no such file, recipes/NAME.yaml is the one that comes with the package.

    Raises ValueError if there is neither.
    """
    if path.is_file():
        return path
    folder = repository_folder("recipes")
    if path.parent == Path("recipes") and (folder / path.name).is_file():
        return folder / path.name
    known = ", ".join(f"recipes/{each.name}" for each in sorted(folder.glob("*.yaml")))
    raise ValueError(f"{path}: no such recipe; give your file, or one of {known}")
