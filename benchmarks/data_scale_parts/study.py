"""What a study is made of: its settings, its runs, its images, and the nested parts of them that the runs see."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bird_hf.atomic_writes import write_text
from bird_hf.data.embedded.sample_set import sample_dialogues
from bird_hf.data.embedded.training_set import render_training_set
from bird_hf.data.folder.publish import publish

RECIPE = Path(__file__).parents[2] / "recipes" / "nano.yaml"
STUDY_FILE = "study.json"
_RENDER_SEED = 1
_CARD = (
    "# Test questions of the data-scale study\n\nPhantoms, and slices of the test volumes of the package.\n"
)


@dataclass(frozen=True)
class Study:
    """The settings that decide the result; a folder holds runs of one study.

    images: of the whole set. shares: a run sees one in so many of them. steps: of every run, half of them on the
    detection loss alone. test_phantoms: of each modality. test_slices: of each axis of each test volume.
    recipe: its fields; those that depend on the run are set by `write_recipe`.
    """

    images: int = 6000
    steps: int = 1200
    shares: tuple[int, ...] = (12, 6, 3, 1)
    seeds: tuple[int, ...] = (1, 2)
    test_phantoms: int = 30
    test_slices: int = 8
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"--steps is {self.steps}, but must be at least 2: one for each stage")
        if not self.shares or min(self.shares) < 1 or self.images < max(self.shares):
            raise ValueError(f"--shares {self.shares} of --images {self.images} leave a run without images")
        if len({*self.shares}) < len(self.shares) or len({*self.seeds}) < len(self.seeds) or not self.seeds:
            raise ValueError("--shares and --seeds name each run once")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Study:
        return cls(**{**values, "shares": tuple(values["shares"]), "seeds": tuple(values["seeds"])})

    def as_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))

    @property
    def runs(self) -> list[StudyRun]:
        """The largest sets first, so that a study that is cut short lacks the cheapest point."""
        return [StudyRun(share, seed) for share in sorted(self.shares) for seed in self.seeds]


@dataclass(frozen=True)
class StudyRun:
    """One training run: on one in `share` of the images."""

    share: int
    seed: int

    @property
    def name(self) -> str:
        return f"1-of-{self.share}-seed-{self.seed}"


def subset(image_ids: Iterable[str], share: int, seed: int) -> set[str]:
    """One in `share` of the images; what a larger share leaves is part of what a smaller one leaves.

    The order of the images follows from seed and name alone, not from rows.
    """
    ordered = sorted({*image_ids}, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    return {*ordered[: len(ordered) // share]}


def begin(study: Study, out: Path) -> None:
    """Create the folder of a study, or continue it. Raises ValueError if it holds another study."""
    file = out / STUDY_FILE
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        now = study.as_json()
        if other := [name for name in now if before.get(name) != now[name]]:
            name = other[0]
            raise ValueError(
                f"{out} holds another study ({name} {before.get(name)!r}, now {now[name]!r}); choose another --out"
            )
    out.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(study.as_json(), indent=1) + "\n")


def make_data(study: Study, out: Path, workers: int) -> None:
    """Render the images of all runs into OUT/train, and the test questions into OUT/test, if they are not there."""
    if not (out / "train").exists():
        render_training_set(out / "train", study.images, _RENDER_SEED, workers)
    if not (out / "test").exists():
        questions = sample_dialogues("test", phantoms=study.test_phantoms, slices=study.test_slices)
        publish({"test": questions}, out / "test", _CARD)


def write_recipe(study: Study, run: StudyRun, out: Path, workers: int, use_cpu: bool) -> Path:
    """The recipe of one run, as a file that `bird train` could read too."""
    folder = out / "runs" / run.name
    recipe = {
        **study.recipe,
        "dataset_name": str(out / "train"),
        "output_dir": str(folder / "model"),
        "seed": run.seed,
        "max_steps": study.steps,
        "stages": [{"train": "vision", "steps": study.steps // 2}, {"train": "answers"}],
        "save_steps": max(1, study.steps // 4),
        "save_total_limit": 1,
        "dataloader_num_workers": workers,
        "dataloader_persistent_workers": workers > 0,  # small sets have many epochs
        "use_cpu": use_cpu,
    }
    recipe.pop("render_images", None)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "recipe.yaml", yaml.safe_dump(recipe))
    return folder / "recipe.yaml"
