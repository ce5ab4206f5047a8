"""The trees of files on docs/sources.md are made as they stand, and built."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from bird_hf.data.build.pipeline import BuildSettings, build
from bird_hf.data.folder.publish import open_folder

from .example_sources import SIDE, photograph, save

PAGE = Path(__file__).parents[3] / "docs" / "sources.md"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MASK = re.compile(r"^masks/|_mask")


def blocks_of(section: str) -> dict[str, str]:
    """The first block of each language of a section; the tree has none."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return dict(reversed(_BLOCK.findall(text)))


def make(root: Path, blocks: dict[str, str]) -> None:
    """Make the files of a tree: noise as images, one rectangle each as masks."""
    if "yaml" in blocks:
        root.mkdir()
        (root / "labels.yaml").write_text(blocks["yaml"])
    for number, line in enumerate(blocks[""].splitlines()[1:]):
        name = line.partition("#")[0].strip()
        if name.endswith(".csv"):
            (root / name).write_text(blocks["csv"])
        elif _MASK.search(name):
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[8 + number : 30 + number, 20:44] = 255
            save(root / name, mask)
        elif name.endswith(".png"):
            photograph(root / name, seed=number)


@pytest.mark.parametrize(
    ("section", "kind", "images", "objects"),
    [
        ("CSV of boxes", "CSV of boxes", 2, {"nodule", "left lung"}),
        ("A folder of masks per class", "masks in a folder per class", 2, {"polyp", "instrument"}),
        ("Masks with a suffix", "masks with a suffix", 2, {"tumor"}),
        ("BiomedParse", "BiomedParse", 2, {"lung nodule", "glioma", "brain edema"}),
    ],
)
def test_the_files_of_a_section_are_built(
    tmp_path: Path, section: str, kind: str, images: int, objects: set[str]
) -> None:
    make(tmp_path / "src", blocks_of(section))
    manifest = build(tmp_path / "src", tmp_path / "out", BuildSettings(), workers=1)
    assert not manifest["dropped"]
    assert (manifest["source"]["kind"], manifest["source"]["images"]) == (kind, images)
    rows = [row for split in ("train", "test") for row in open_folder(tmp_path / "out", "chat", split)]
    assert {thing["label"] for row in rows for thing in row["objects"] if thing["present"]} == objects
