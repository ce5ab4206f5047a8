"""What to install if a package is missing: one sentence for every error message."""

from __future__ import annotations


def missing_extra(*names: str) -> str:
    """The remedy for packages of an extra that are not installed: `missing_extra("eval")`.

    The package is on no index, so the extras are installed from a copy of the repository.
    """
    return f'in the folder of the repository run pip install -e ".[{",".join(names)}]"'
