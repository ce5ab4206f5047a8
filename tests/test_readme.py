"""What the README and the page of results say of the embedded checkpoint is what the kept command printed."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from bird_hf.eval.run import weights_sha256
from bird_hf.sample import embedded_checkpoint

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


@pytest.fixture
def nano_scores(load_script) -> ModuleType:
    return load_script(ROOT / "benchmarks" / "nano_scores.py")


@pytest.fixture
def report() -> dict:
    return json.loads((ROOT / "docs" / "nano_scores.json").read_text(encoding="utf-8"))


def test_the_scores_are_those_of_the_report(nano_scores, report):
    assert nano_scores.table(report) in RESULTS
    assert nano_scores.table_of_rest(report) in RESULTS


def test_each_row_of_the_readmes_table_is_one_of_the_report(nano_scores, report):
    whole = nano_scores.table(report).splitlines()
    shown = re.search(r"^\| source \|.*?(?=\n\n)", README, re.MULTILINE | re.DOTALL)[0].splitlines()
    assert len(shown) >= 5 and set(shown) <= set(whole)


def test_the_report_is_of_the_embedded_checkpoint(report):
    assert report["weights_sha256"] == weights_sha256(embedded_checkpoint())


def test_the_size_is_that_of_the_embedded_checkpoint():
    from safetensors import safe_open

    with safe_open(embedded_checkpoint() / "model.safetensors", "pt") as weights:
        count = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118
    assert f"{count / 1e6:.1f} M parameters" in README


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_what_the_readme_links_to_exists(target):
    assert (ROOT / target).exists()


def test_the_contents_link_to_headings():
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    linked = set(re.findall(r"\]\(#([^)]+)\)", README))
    assert linked and linked <= anchors


def test_the_badges_are_true():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    badges = re.findall(r"badge/(\w+)-(.*?)-blue", README)
    shown = {name: value.replace("--", "-").replace("%2B", "+") for name, value in badges}
    assert shown == {"licence": project["license"], "python": project["requires-python"][2:] + "+"}


def test_the_extras_of_the_install_command_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    for listed in re.findall(r'-e "\.\[([\w,]+)\]"', README):
        assert set(listed.split(",")) <= extras.keys()


def test_ci_runs_the_test_commands_of_the_readme_and_nothing_else():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
