"""From own images to an own model, timed and scored: the commands of docs/own_images.md at full length.

    python benchmarks/own_images.py draw hands --images 240     # images, label maps and labels.yaml, nothing else
    python benchmarks/own_images.py run --out docs/own_images.json

The images are drawn: hands as an X-ray might show them, with five names that bird-nano has never been trained on.
`run` needs ./bird (`bird quickstart` puts it there), works in runs/own_images, and prints recalls of the test split
before and after the training.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from bird_hf.atomic_writes import write_text
from bird_hf.markdown import table as markdown_table

SIDE_PX = 256
LABELS = {1: "radius", 2: "ulna", 3: "carpus", 4: "thumb", 5: "metal ring"}
DESCRIPTION = f"""\
dataset: phantom_hands
modality: x_ray
region: hand
labels: {{{", ".join(f"{value}: {name}" for value, name in LABELS.items())}}}
exhaustive: true
patient: "^(hand[0-9]+)_"
"""
TASKS = ("vg", "roc")

# Of a left hand seen from the back, wrist at the origin, in shares of the picture: x to the right, y to the fingers.
FINGERS = (
    (-0.10, 0.50, -0.06),
    (-0.03, 0.54, -0.02),
    (0.04, 0.51, 0.02),
    (0.11, 0.43, 0.07),
)  # tip x, tip y, knuckle
KNUCKLE_Y, WRIST_Y = 0.24, -0.02


class Hand:
    """One drawn hand: brightness in `picture` and classes in `classes`, both of mode "L"."""

    def __init__(self, rng: np.random.Generator, mirrored: bool) -> None:
        self.rng = rng
        self.picture = Image.new("L", (SIDE_PX, SIDE_PX), int(rng.integers(5, 25)))
        self.classes = Image.new("L", (SIDE_PX, SIDE_PX), 0)
        angle, scale = rng.uniform(-0.35, 0.35), rng.uniform(0.75, 1.05)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.to_picture = turn @ np.diag([-1.0 if mirrored else 1.0, -1.0])  # pixels grow downwards
        self.scale, self.origin = scale, np.array([0.5, 0.66]) + rng.uniform(-0.07, 0.07, 2)

    def pixels(self, *points: tuple[float, float]) -> list[tuple[float, float]]:
        return [tuple(SIDE_PX * (self.origin + self.to_picture @ np.array(point))) for point in points]

    def bone(
        self, start: tuple[float, float], end: tuple[float, float], width: float, value: int = 0
    ) -> None:
        """A thick line with round ends, on the picture and, if it has a class, on the label map."""
        (x1, y1), (x2, y2) = self.pixels(start, end)
        radius = max(1.0, SIDE_PX * self.scale * width / 2)
        layers = [(self.picture, int(self.rng.integers(150, 200)))]
        layers += [(self.classes, value)] if value else []
        for image, fill in layers:
            pen = ImageDraw.Draw(image)
            pen.line((x1, y1, x2, y2), fill=fill, width=round(2 * radius))
            for x, y in ((x1, y1), (x2, y2)):
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    def flesh(self, points: list[tuple[float, float]], width: float) -> None:
        pen = ImageDraw.Draw(self.picture)
        pen.line(self.pixels(*points), fill=70, width=round(SIDE_PX * self.scale * width), joint="curve")


def draw_hand(rng: np.random.Generator, mirrored: bool) -> tuple[Image.Image, Image.Image]:
    """(picture, label map), both (SIDE_PX, SIDE_PX) in mode "L"; the metal ring is there in half of the pictures."""
    hand = Hand(rng, mirrored)
    spread = rng.uniform(0.8, 1.3)
    tips = [(x * spread, y + rng.uniform(-0.03, 0.03)) for x, y, _ in FINGERS]
    knuckles = [(x, KNUCKLE_Y) for _, _, x in FINGERS]
    thumb = [(-0.06, 0.06), (-0.13 * spread, 0.15), (-0.19 * spread, 0.25)]
    hand.flesh([(0.0, -0.40), (0.0, WRIST_Y)], 0.17)
    hand.flesh([(0.0, WRIST_Y), (0.0, KNUCKLE_Y)], 0.22)
    hand.flesh(thumb, 0.07)
    for knuckle, tip in zip(knuckles, tips, strict=True):
        hand.flesh([knuckle, tip], 0.06)
        hand.bone((knuckle[0] * 0.7, 0.09), knuckle, 0.028)
        hand.bone(tuple(np.add(knuckle, np.subtract(tip, knuckle) * 0.12)), tip, 0.022)
    hand.bone((-0.05, -0.40), (-0.035, -0.07), 0.05, 1)
    hand.bone((0.05, -0.40), (0.045, -0.09), 0.034, 2)
    hand.bone((-0.035, 0.01), (0.045, 0.01), 0.085, 3)
    hand.bone(thumb[0], thumb[1], 0.03, 4)
    hand.bone(thumb[1], thumb[2], 0.026, 4)
    if rng.random() < 0.5:
        finger = int(rng.integers(len(FINGERS)))
        along = np.subtract(tips[finger], knuckles[finger])
        middle = np.add(knuckles[finger], along * 0.35)
        across = np.array([along[1], -along[0]]) / np.linalg.norm(along) * 0.03
        ring = Image.new("L", hand.picture.size, 0)
        ImageDraw.Draw(ring).line(
            hand.pixels(tuple(middle - across), tuple(middle + across)), fill=255, width=round(8 * hand.scale)
        )
        hand.picture.paste(250, mask=ring)
        hand.classes.paste(5, mask=ring)
    picture = np.asarray(hand.picture.filter(ImageFilter.GaussianBlur(1.2)), dtype=np.float32)
    picture = picture * rng.uniform(0.8, 1.2) + rng.normal(0, 4, picture.shape)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8)), hand.classes


def draw_hands(folder: Path, images: int, seed: int = 0) -> None:
    """Images, label maps and labels.yaml of `images` hands, two for each person, in a new folder."""
    if folder.exists():
        raise SystemExit(f"{folder} exists already; give another name or remove it")
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(images):
        name = f"hand{number // 2:03d}_{'ab'[number % 2]}.png"
        rng = np.random.default_rng([seed, number])
        for kind, image in zip(("images", "masks"), draw_hand(rng, mirrored=number % 2 == 1), strict=True):
            image.save(folder / kind / name)
    (folder / "labels.yaml").write_text(DESCRIPTION, encoding="utf-8")


def bird(*arguments: object) -> str:
    """Run a `bird` command; returns what it printed. Progress goes to stderr."""
    command = [sys.executable, "-m", "bird_hf.cli", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def scores(model: Path, data: Path, folder: Path) -> dict[str, dict]:
    """task -> the JSON of `bird score`, under the paper's rules, on the test split."""
    found = {}
    folder.mkdir(parents=True)
    for task in TASKS:
        predictions = folder / f"{task}.jsonl"
        bird("predict", "--model", model, "--data", data, "--task", task, "--out", predictions)
        found[task] = json.loads(bird("score", predictions, "--task", task, "--json"))
    return found


def run(images: int, work: Path, model: Path) -> dict:
    """Draw, build, train and score; returns recalls before and after, and seconds of each step."""
    shutil.rmtree(work, ignore_errors=True)
    hands, data, trained = work / "hands", work / "hands-grit", work / "model"
    seconds = {}
    start = time.perf_counter()

    def lap(step: str) -> None:
        nonlocal start
        seconds[step] = round(time.perf_counter() - start, 1)
        start = time.perf_counter()

    draw_hands(hands, images)
    lap("draw")
    print(bird("data", "build", hands, "--out", data), file=sys.stderr)
    lap("build")
    before = scores(model, data, work / "before")
    lap("score before")
    recipe = Path(__file__).parents[1] / "recipes" / "finetune.yaml"
    bird(
        "train", "--config", recipe, "--model_name_or_path", model, "--dataset_name", data,
        "--output_dir", trained,
    )  # fmt: skip
    lap("train")
    after = scores(trained / "final", data, work / "after")
    lap("score after")
    return {"images": images, "cpus": os.cpu_count(), "seconds": seconds, "before": before, "after": after}


def table(report: dict) -> str:
    """The report as Markdown."""
    rows = []
    for name, key in (("bird-nano", "before"), ("after training on own images", "after")):
        scored = [report[key][task] for task in TASKS]
        asked = [sum(cell["total"] for cell in task["modalities"].values()) for task in scored]
        rows.append([name, *(f"{task['mean']:.2f} ({n})" for task, n in zip(scored, asked, strict=True))])
    seconds = report["seconds"]
    return (
        markdown_table(["model", "VG Recall@0.5 (boxes)", "ROC recall (questions)"], rows)
        + f"\n\n{report['images']} drawn images, {report['cpus']} CPUs: build {seconds['build']:.0f} s, "
        f"training {seconds['train']:.0f} s."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    draw = commands.add_parser("draw", help="write images, label maps and labels.yaml")
    draw.add_argument("folder", type=Path)
    draw.add_argument("--images", type=int, default=240)
    whole = commands.add_parser("run", help="draw, build, train, score")
    whole.add_argument("--images", type=int, default=240)
    whole.add_argument("--model", type=Path, default=Path("bird"), help="checkpoint to start from")
    whole.add_argument("--work", type=Path, default=Path("runs/own_images"), help="emptied first")
    whole.add_argument("--out", type=Path, help="write the report here as JSON")
    options = parser.parse_args()
    if options.command == "draw":
        draw_hands(options.folder, options.images)
        return
    report = run(options.images, options.work, options.model)
    print(table(report))
    if options.out:
        write_text(options.out, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
