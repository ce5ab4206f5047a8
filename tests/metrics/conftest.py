"""The evaluate modules, loaded as a user loads them: by their folder's name, from the repository's root."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def load_metric(tmp_path_factory):
    """Gives a metric by its name; each is loaded once."""
    import evaluate

    cache, loaded = str(tmp_path_factory.mktemp("evaluate")), {}

    def load(name):
        if name not in loaded:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(ROOT)
                loaded[name] = evaluate.load(f"metrics/{name}", cache_dir=cache)
        return loaded[name]

    return load
