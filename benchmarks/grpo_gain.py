"""Whether GRPO with box rewards raises strict VG: an early bird-nano, recipes/grpo.yaml on it, both scored.

    python benchmarks/grpo_gain.py --out runs/grpo-gain              # on a GPU
    python benchmarks/grpo_gain.py --out runs/grpo-gain --use_cpu --images 800 --answers 512 --grpo_steps 125
    python benchmarks/grpo_gain.py --out runs/grpo-gain --early FOLDER --train_data FOLDER    # from another checkpoint

Parts, each done once and resumed if it was stopped:

    early    recipes/nano.yaml on fewer images for fewer steps, from random weights; left out with --early
    grpo     recipes/grpo.yaml from there, on the same images
    scores   both answer the VG test split of the embedded sample, whose cases neither has seen; strict rules, with
             bootstrap intervals over cases, of each and of the difference; how often each denies, and how well boxes
             lie that both give; under the default decoding, and without the checkpoint's smoothing of coordinates and
             bias ("plain")

OUT/grpo_gain.json is written after each part and printed at the end. --tiny runs all of it on a few images in a minute:
that is a test of this file, and no figure of it means anything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from bird_hf.atomic_writes import write_text
from bird_hf.hub.grounding import read

ROOT = Path(__file__).parents[1]
_LAST_CHARS = 2000  # of the log of a run that failed

_GPU = {"use_cpu": False, "bf16": True, "report_to": "none"}
_GPU_EARLY = {"dataloader_num_workers": 12}
_GPU_GRPO = {"dataloader_num_workers": 4}
_TINY_GRPO = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_generations": 2,
    "logging_steps": 1,
}


@dataclass(frozen=True)
class Settings:
    """What the figures depend on; a folder holds the parts of one of them."""

    images: int
    early_steps: int
    grpo_steps: int
    answers: int
    learning_rate: float
    early: str | None
    train_data: str | None
    data: str | None
    use_cpu: bool
    tiny: bool


class Gain:
    """The parts, in a folder, with the document that says which are done."""

    def __init__(self, out: Path, settings: Settings) -> None:
        self.out, self.settings, self.file = out, settings, out / "grpo_gain.json"
        out.mkdir(parents=True, exist_ok=True)
        self.document: dict[str, Any] = {"settings": asdict(settings)}
        if self.file.is_file():
            self.document = json.loads(self.file.read_text(encoding="utf-8"))
        if self.document["settings"] != asdict(settings):
            raise ValueError(f"{self.file} was made with other settings; choose another --out, or remove it")

    def part(self, name: str, run: Callable[[], dict[str, Any]]) -> None:
        """Run a part unless it is done, and write the document."""
        if name in self.document:
            return
        start = time.monotonic()
        self.document[name] = run()
        self.document[name]["seconds"] = round(time.monotonic() - start, 1)
        write_text(self.file, json.dumps(self.document, indent=1) + "\n")

    # --- the parts ---

    @property
    def _early(self) -> Path:
        return Path(self.settings.early or self.out / "early" / "final")

    @property
    def _train_data(self) -> Path:
        return Path(self.settings.train_data or self.out / "data")

    def early(self) -> dict[str, Any]:
        if self.settings.early is not None:
            return {"checkpoint": self.settings.early}
        steps = self.settings.early_steps
        self._train(
            "early",
            self._recipe("nano", _GPU_EARLY)
            | {
                "render_images": self.settings.images,
                "dataset_name": str(self._train_data),
                "max_steps": steps,
                "stages": [{"train": "vision", "steps": steps // 2}, {"train": "answers"}],
            },
        )
        return {"steps": steps}

    def grpo(self) -> dict[str, Any]:
        self._train(
            "grpo",
            self._recipe("grpo", _GPU_GRPO)
            | {
                "model_name_or_path": str(self._early),
                "dataset_name": str(self._train_data),
                "max_steps": self.settings.grpo_steps,
                # All of a step at once, so that the answers to a question are in one batch and share its prompt.
                "per_device_train_batch_size": self.settings.answers,
                "gradient_accumulation_steps": 1,
                "learning_rate": self.settings.learning_rate,
                "max_completion_length": 48,  # coordinates are tokens of bird-nano: two boxes take about 40
                "save_steps": max(1, min(25, self.settings.grpo_steps)),
            }
            | (_TINY_GRPO if self.settings.tiny else {}),
        )
        last = max((self.out / "grpo").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        history = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
        names = ("step", "reward", "frac_reward_zero_std", "completions/clipped_ratio")
        curve = [{name: row.get(name) for name in names} for row in history if "reward" in row]
        return {"steps": self.settings.grpo_steps, "curve": curve}

    def scores(self) -> dict[str, Any]:
        from bird_hf.data.embedded.sample_set import write_sample
        from bird_hf.data.folder.publish import open_folder

        data = Path(self.settings.data or self.out / "med-grit")
        if not data.exists():
            write_sample(data)
        rows = open_folder(data, "vg", "test")
        # Users have the default decoding; without smoothing and bias the policy itself is scored.
        return {"questions": len(rows), **self._compared(rows), "plain": self._compared(rows, "-plain")}

    def _compared(self, rows: Any, suffix: str = "") -> dict[str, Any]:
        """Both models under the strict rules; with a suffix, without what changes the model's probabilities."""
        from bird_hf.eval.compare import compare_predictions
        from bird_hf.eval.predict import load_for_prediction, predict_dataset
        from bird_hf.eval.predictions import read_predictions

        folders = {"early": self._early, "grpo": self.out / "grpo" / "final"}
        files = {name: self.out / f"{name}{suffix}.jsonl" for name in folders}
        for folder, file in zip(folders.values(), files.values(), strict=True):
            model = load_for_prediction(folder)
            if suffix:
                model.model.config.coordinate_smoothing_sigma = None
                model.model.generation_config.sequence_bias = None
            predict_dataset(model, rows, file, 64)
        answers = {name: read_predictions(file, "vg") for name, file in files.items()}
        compared = compare_predictions(answers["early"], answers["grpo"], "vg", "strict")
        return {
            "cases": compared["first"]["cases"]["total"],
            "early": summary(compared["first"]) | kinds(answers["early"]),
            "grpo": summary(compared["second"]) | kinds(answers["grpo"]),
            "difference": compared["difference"]["score"],
            "boxes_of_both": boxes_of_both(answers["early"], answers["grpo"]),
        }

    # --- training ---

    def _recipe(self, name: str, on_gpu: dict[str, Any]) -> dict[str, Any]:
        recipe = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
        return recipe if self.settings.use_cpu else recipe | _GPU | on_gpu

    def _train(self, name: str, recipe: dict[str, Any]) -> None:
        """`bird train` in a process of its own; what a stopped run has trained is kept."""
        file, log = self.out / f"{name}.yaml", self.out / f"{name}.log"
        write_text(file, yaml.safe_dump(recipe | {"output_dir": str(self.out / name)}))
        command = [sys.executable, "-m", "bird_hf.cli", "train", "--config", str(file)]
        with log.open("a", encoding="utf-8") as output:
            done = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            last = log.read_text(encoding="utf-8", errors="replace")[-_LAST_CHARS:]
            raise RuntimeError(
                f"the part {name} ended with code {done.returncode}; the end of its log:\n{last}"
            )


def summary(scored: dict[str, Any]) -> dict[str, Any]:
    """The strict scores of a file that a page shows."""
    measures = scored["grounding"]["all"]
    shown = ("recall@0.5", "mean_iou", "false_boxes_per_answer", "rejection_rate", "unreadable_rate")
    return {
        "mean": scored["mean"],
        "interval": scored["interval"]["mean"],
        "modalities": scored["modalities"],
        "measures": {name: measures[name] for name in shown},
    }


def kinds(answers: Sequence[Any]) -> dict[str, int]:
    """How often a model gives no box for what is there, and a box for what is not."""
    there, gives = (
        [bool(read(text).boxes) for text in texts]
        for texts in ([each.annotation for each in answers], [each.response for each in answers])
    )
    return {
        "there": sum(there),
        "without_a_box": sum(not box for box, is_there in zip(gives, there, strict=True) if is_there),
        "absent": len(there) - sum(there),
        "with_a_box": sum(box for box, is_there in zip(gives, there, strict=True) if not is_there),
    }


def boxes_of_both(early: Sequence[Any], grpo: Sequence[Any]) -> dict[str, float]:
    """IoU where the reference and both models have one box: where boxes are, apart from whether they are given.

    standard_error: of the mean difference, over questions.
    """
    ious = []
    for one, other in zip(early, grpo, strict=True):
        boxes = [read(text).boxes for text in (one.annotation, one.response, other.response)]
        if [len(each) for each in boxes] == [1, 1, 1]:
            reference, first, second = (each[0] for each in boxes)
            ious.append((first.iou(reference), second.iou(reference)))
    if len(ious) < 2:
        return {"questions": len(ious)}
    differences = [second - first for first, second in ious]
    return {
        "questions": len(ious),
        "early": statistics.mean(first for first, _ in ious),
        "grpo": statistics.mean(second for _, second in ious),
        "difference": statistics.mean(differences),
        "standard_error": statistics.stdev(differences) / len(ious) ** 0.5,
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"card": card, "torch": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/grpo-gain"), help="folder of all files")
    parser.add_argument("--images", type=int, default=3000, help="rendered for training")
    parser.add_argument("--early_steps", type=int, default=1000, help="half of them for vision alone")
    parser.add_argument("--grpo_steps", type=int, default=300)
    parser.add_argument("--answers", type=int, default=1024, help="in a step of GRPO, 8 to a question")
    parser.add_argument("--learning_rate", type=float, default=7e-5, help="of GRPO")
    parser.add_argument("--early", help="checkpoint to start from, in place of one that is trained here")
    parser.add_argument("--train_data", help="Med-GRIT folder to train on; by default OUT/data, rendered")
    parser.add_argument(
        "--data", help="Med-GRIT folder to score on; by default the embedded sample, written to OUT"
    )
    parser.add_argument("--use_cpu", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="a test of this file, on a CPU")
    options = parser.parse_args()
    given = {each.name: getattr(options, each.name) for each in fields(Settings)}
    tiny = {"images": 16, "early_steps": 2, "grpo_steps": 2, "use_cpu": True} if options.tiny else {}
    settings = Settings(**given | tiny)
    gain = Gain(options.out.resolve(), settings)
    gain.part("machine", machine)
    for part in (gain.early, gain.grpo, gain.scores):
        gain.part(part.__name__, part)
    print(json.dumps(gain.document, indent=1))


if __name__ == "__main__":
    main()
