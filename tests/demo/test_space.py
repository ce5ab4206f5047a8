"""The files of `space/` name the packages that the demo needs."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_the_space_asks_for_what_the_package_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = {*project["dependencies"], *extras["data"], *extras["space"]}
    lines = (ROOT / "space" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = {line for line in lines if not line.startswith("#")}
    assert listed == {each for each in needed if not each.startswith("gradio")}


def test_the_spaces_card_names_the_tested_gradio() -> None:
    card = yaml.safe_load((ROOT / "space" / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert card["sdk"] == "gradio"
    assert f"gradio=={card['sdk_version']}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert (ROOT / "space" / card["app_file"]).is_file()
    assert len(card["short_description"]) <= 60  # the hub refuses longer ones
