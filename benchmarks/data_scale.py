"""How much the scores gain from more images: the paper's data-scale study (BiRD, Table 1, rows 3 to 6), in small.

    python benchmarks/data_scale.py [--jobs 8 --use_cpu false] [--field value ...]
    python benchmarks/data_scale.py --score runs/data-scale/results [--json docs/data_scale.json --plot PICTURE.png]
    python benchmarks/data_scale.py --table docs/data_scale.json

The recipe of bird-nano (recipes/nano.yaml, without its second run) is trained on 1/12, 1/6, 1/3 and all of one set of
images, with equal steps and two seeds. The parts are nested: every part holds the smaller ones of its seed. All runs
answer the same questions about phantoms and volumes that are never trained on, and are scored by the paper's rules.
Other fields of the recipe may be given as for `bird train`.

The images are rendered once. Every run is a process of its own; finished runs are skipped when the command is
repeated, stopped ones go on from their last checkpoint. RESULTS then holds runs.json and predictions.jsonl.xz, from
which --score makes data_scale.json and data_scale.png again, on any machine: SPICE and METEOR need Java.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from data_scale_parts import results, runs, show
from data_scale_parts.study import RECIPE, Study, StudyRun, begin, make_data, write_recipe

from bird_hf.atomic_writes import write_text

JSON_FILE, PLOT_FILE = "data_scale.json", "data_scale.png"


def recipe_of(config: Path, arguments: list[str]) -> dict[str, Any]:
    """The fields of a recipe file, and `--field value ...` as a recipe has them.

    Raises ValueError if there is no such file, or a field is not one of a recipe.
    """
    if not config.is_file():
        raise ValueError(f"{config}: no such file; --config names a recipe such as {RECIPE.name}")
    from bird_hf.train.from_scratch.config import FromScratchConfig
    from bird_hf.train.recipe import read_recipe

    # On a CPU, so that no context of the card is made in this process.
    recipe = read_recipe(["--config", str(config), *arguments, "--use_cpu", "true"], FromScratchConfig)
    groups = [vars(recipe.script), vars(recipe.training), vars(recipe.model)]
    names = [text.removeprefix("--").split("=")[0] for text in arguments if text.startswith("--")]
    given = {name: next(group[name] for group in groups if name in group) for name in names}
    return yaml.safe_load(config.read_text(encoding="utf-8")) | given


def run_study(study: Study, options: argparse.Namespace) -> list[str]:
    """Render, train, answer and score; returns what went wrong, a line each."""
    deadline = time.monotonic() + 60 * options.minutes
    begin(study, options.out)
    make_data(study, options.out, options.render_workers or os.cpu_count() or 1)
    is_cpu = options.use_cpu == "true"
    commands = []
    for run in study.runs:
        recipe = write_recipe(study, run, options.out, options.workers, is_cpu)
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--out",
            str(options.out),
            "--here",
            run.name,
        ]
        commands.append((recipe.parent, [*command, "--batch-size", str(options.batch_size)]))

    def collect() -> None:
        results.collect(study, options.out, options.results)

    errors = runs.run_all(commands, options.jobs, deadline, collect, options.out / "cache")
    collect()
    return errors


def show_results(folder: Path, measures: list[str], json_file: Path, plot_file: Path) -> None:
    """Score the answers in `folder`, write JSON and picture, and print the table."""
    document = results.score_study(folder, measures)
    write_text(json_file, json.dumps(document, indent=1) + "\n")
    show.save_figure(document, plot_file)
    print(show.table_of(document))


def read_options() -> tuple[argparse.Namespace, list[str]]:
    """The options of the command, and those of the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    default = Study()
    parser.add_argument("--images", type=int, default=default.images, help="images of the whole set")
    parser.add_argument(
        "--steps", type=int, default=default.steps, help="of every run, half of them for vision"
    )
    parser.add_argument(
        "--shares", type=int, nargs="+", default=[*default.shares], help="one in so many images"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[*default.seeds])
    parser.add_argument("--test-phantoms", type=int, default=default.test_phantoms, help="of each modality")
    parser.add_argument(
        "--test-slices", type=int, default=default.test_slices, help="of each axis of a volume"
    )
    parser.add_argument("--config", type=Path, default=RECIPE, help="a recipe for a model from scratch")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--workers", type=int, default=1, help="processes of each run that load data")
    parser.add_argument("--render-workers", type=int, help="by default one for each core")
    parser.add_argument("--batch-size", type=int, default=128, help="questions that are answered at a time")
    parser.add_argument("--use_cpu", choices=["true", "false"], default="true")
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="runs that are not finished then are stopped"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/data-scale"), help="folder of data and runs")
    parser.add_argument(
        "--results", type=Path, help="folder of the answers and scores; by default OUT/results"
    )
    parser.add_argument("--score", type=Path, metavar="RESULTS", help="only score the answers in this folder")
    tasks = [task.value for task in results.MEASURES]
    parser.add_argument(
        "--measures", nargs="+", choices=tasks, default=tasks, help="tasks to score; by default all"
    )
    parser.add_argument("--json", type=Path, help="by default RESULTS/data_scale.json")
    parser.add_argument("--plot", type=Path, help="by default RESULTS/data_scale.png")
    parser.add_argument("--table", type=Path, metavar="JSON", help="only print the table of a finished study")
    parser.add_argument("--here", help=argparse.SUPPRESS)  # one run, in this process
    options, rest = parser.parse_known_args()
    if options.jobs < 1 or options.workers < 0 or options.batch_size < 1:
        parser.error("--jobs and --batch-size must be at least 1, and --workers at least 0")
    options.results = options.score or options.results or options.out / "results"
    options.json = options.json or options.results / JSON_FILE
    options.plot = options.plot or options.results / PLOT_FILE
    return options, rest


def main() -> None:
    options, rest = read_options()
    errors: list[str] = []
    if options.here:
        share, seed = options.here.removeprefix("1-of-").split("-seed-")
        runs.train_and_answer(options.out, StudyRun(int(share), int(seed)), options.batch_size)
        return
    try:
        if options.table:
            print(show.table_of(json.loads(options.table.read_text(encoding="utf-8"))))
            return
        if not options.score:
            study = Study(
                options.images,
                options.steps,
                tuple(options.shares),
                tuple(options.seeds),
                options.test_phantoms,
                options.test_slices,
                recipe_of(options.config, rest),
            )
            errors = run_study(study, options)
        show_results(options.results, options.measures, options.json, options.plot)
    except ValueError as error:
        sys.exit(str(error))
    if errors:
        sys.exit("\n".join(errors))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the runs end too
    main()
