"""The tables of the README: how well a small checkpoint answers on images it has never seen.

    python benchmarks/nano_scores.py [--model src/bird_hf/assets/bird-nano] [--out docs/nano_scores.json] [--run DIR]

Sources: phantoms of each modality with seeds that were never trained on, and the real test volumes (the MNI152 head,
brain2, lung2) on all their planes. VG asks for every object of at least 0.3 % of the picture, ROC for every one of at
least 1 % on real heads (0.3 % elsewhere), and absent-object questions ask where something is that is not in the image.
MIA asks two questions per image. A second table holds the checks of `bird_hf.eval.checks`: other wordings, names that
are not in the image, yes or no, counts, descriptions.

The answers are scored by `bird_hf.eval.score` under the paper's rules, as `bird report` scores a run. With --run they
are also written as a run: `bird report DIR` then gives the same scores by modality.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bird_hf.atomic_writes import write_text
from bird_hf.checkpoint.load import find_checkpoint
from bird_hf.data.embedded.cases import EMBEDDED_CASES, embedded_names
from bird_hf.data.embedded.sample_set import Split, sample_phantoms, spaced_slices
from bird_hf.data.records import ImageRecord, MaskedImage, Turn
from bird_hf.data.teachers.analysis import analyse
from bird_hf.data.teachers.subjects import askable_absent
from bird_hf.data.teachers.templates import classify, ground
from bird_hf.eval.check_scores import CHECKS_NOTE, score_checks, table_of_checks
from bird_hf.eval.checks import CHECKS, check_questions
from bird_hf.eval.predictions import Prediction, write_predictions
from bird_hf.eval.recall import Recall, mean_score, total
from bird_hf.eval.run import Run, begin_run, prediction_file, weights_sha256
from bird_hf.eval.score import malformed_rate, recall_rule, score_predictions
from bird_hf.inference import GroundingModel, Query, load
from bird_hf.markdown import Markup
from bird_hf.markdown import table as markdown_table
from bird_hf.progress import progress_bar

ROC_MIN_AREA_HEAD = 0.01
ABSENT_QUESTIONS = 2  # per image
ANALYSES = 2  # per image
PHANTOM = "phantom "
TABLE_KINDS = ("vg", "roc", "absent")
KINDS = (*TABLE_KINDS, "mia", CHECKS)


@dataclass(frozen=True)
class Question:
    """A question without its answer yet; `source` is the line of the table that counts it."""

    source: str
    image: Image.Image
    prediction: Prediction


def questions_about(
    image: MaskedImage, record: ImageRecord, seed: int, is_head: bool
) -> Iterator[tuple[str, Turn]]:
    """Pairs (kind, turn); kinds are vg, roc, absent and mia."""
    rng = np.random.default_rng(seed)
    for label in dict.fromkeys(item.label for item in record.present):
        yield "vg", ground(record, label, rng)
    for item in record.present:
        if item.area >= (ROC_MIN_AREA_HEAD if is_head else 0.0):
            yield "roc", classify(record, item, rng)
    missing = askable_absent(record)
    for place in rng.permutation(len(missing))[:ABSENT_QUESTIONS]:
        yield "absent", ground(record, missing[int(place)], rng)
    for _ in range(ANALYSES):
        yield "mia", analyse(record, rng)


def all_questions(phantoms: int, slices: int, split: Split = "test") -> list[Question]:
    """The questions about all sources; ids are counted by kind, as prediction files have them."""
    pairs = [
        (f"{PHANTOM}{image.info.modality.value}", image, record)
        for image, record in sample_phantoms(split, phantoms)
    ]
    for case in EMBEDDED_CASES:
        if case.split == split:
            name = f"real {case.name}{'' if case.lesions else ' head'}"
            pairs += [(name, image, record) for image, record in spaced_slices(case, slices)]
    ids = {kind: count() for kind in KINDS}
    questions = []
    for number, (source, image, record) in enumerate(pairs):
        picture = Image.fromarray(image.pixels)
        for kind, turn in questions_about(image, record, number, source.endswith(" head")):
            asked, reference = turn.tagged()
            name = f"{image.info.image_id}.png"
            prediction = Prediction(next(ids[kind]), name, asked, reference, "", kind, image.info.synthetic)
            questions.append(Question(source, picture, prediction))
        for check in check_questions([record], embedded_names()):
            questions.append(Question(source, picture, replace(check, id=next(ids[CHECKS]))))
    return questions


def answer(model: GroundingModel, questions: list[Question], batch_size: int) -> list[Prediction]:
    """The questions' predictions with the model's answers. Batches hold few images, whose features are shared."""
    answered = []
    with progress_bar(total=len(questions), desc="answering", unit="question") as bar:
        for start in range(0, len(questions), batch_size):
            batch = questions[start : start + batch_size]
            queries = [Query(question.prediction.question, question.image) for question in batch]
            responses = model.generate(queries, batch_size)
            pairs = zip(batch, responses, strict=True)
            answered += [replace(question.prediction, response=response) for question, response in pairs]
            bar.update(len(batch))
    return answered


def score(questions: list[Question], answered: list[Prediction]) -> dict[str, Any]:
    """Recalls by source and kind, the rate of boxes given for absent objects, the malformed rate, and the checks."""
    found: dict[str, dict[str, list[Recall]]] = {}
    for question, each in zip(questions, answered, strict=True):
        if each.task not in TABLE_KINDS:
            continue
        recall = recall_rule(each.task, "paper")(each.annotation, each.response)
        found.setdefault(question.source, {}).setdefault(each.task, []).append(recall)
    sums = {
        source: {kind: total(recalls) for kind, recalls in kinds.items()} for source, kinds in found.items()
    }
    phantom = [kinds for source, kinds in sums.items() if source.startswith(PHANTOM)]
    absent = total(kinds["absent"] for kinds in sums.values() if "absent" in kinds)
    return {
        "sources": {
            source: {
                kind: {"score": sum_.score, "hits": sum_.hits, "total": sum_.total}
                for kind, sum_ in kinds.items()
            }
            for source, kinds in sums.items()
        },
        "phantom_mean": {
            kind: mean_score(kinds[kind] for kinds in phantom if kind in kinds) for kind in ("vg", "roc")
        },
        "absent_boxed_rate": absent.score,
        "absent_questions": absent.total,
        "malformed_rate": malformed_rate(answered),
        "questions": len(questions),
        "mia": score_analysis([each for each in answered if each.task == "mia"]),
        "checks": score_checks([each for each in answered if each.task == CHECKS]),
    }


def score_analysis(answered: list[Prediction]) -> dict[str, Any]:
    """The mean scores of MIA; the error instead if the packages or Java are missing, to keep the other scores."""
    try:
        found = score_predictions(answered, "mia")["mean"]
    except ValueError as error:
        found = {"error": str(error)}
    return {**found, "questions": len(answered)}


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""

    def cell(kinds: dict[str, Any], kind: str) -> str:
        return f"{kinds[kind]['score']:.2f} ({kinds[kind]['total']})" if kind in kinds else "-"

    header = ["source", "VG Recall@0.5 (boxes)", "ROC recall (questions)", "absent objects boxed (questions)"]
    lines: list[list[str]] = [
        [Markup(source), *(cell(kinds, kind) for kind in ("vg", "roc", "absent"))]
        for source, kinds in report["sources"].items()
    ]
    means = [Markup(f"**{report['phantom_mean'][kind]:.2f}**") for kind in ("vg", "roc")]
    lines.append([Markup("**mean of the eight phantoms**"), *means, Markup()])
    return (
        f"{markdown_table(header, lines)}\n\n"
        f"Absent objects answered with a box: {report['absent_boxed_rate']:.3f} of {report['absent_questions']}. "
        f"Malformed answers: {report['malformed_rate']:.4f} of {report['questions']}."
    )


def table_of_rest(report: dict[str, Any]) -> str:
    """The score of MIA and the checks as Markdown."""
    mia = report["mia"]
    score = f"{mia['mbmr']:.4f}" if "mbmr" in mia else f"not scored ({mia['error']})"
    return (
        f"MIA mBMR, mean of the modalities: {score} of {mia['questions']} questions.\n\n"
        f"{CHECKS_NOTE}\n\n{table_of_checks(report['checks'])}"
    )


def write_run(folder: Path, checkpoint: Path, split: str, answered: list[Prediction]) -> None:
    """Write the answers as a run that `bird report` reads."""
    kinds = {kind: [each for each in answered if each.task == kind] for kind in KINDS}
    counts = {kind: len(answers) for kind, answers in kinds.items()}
    name = checkpoint.resolve().name
    begin_run(folder, Run(name, weights_sha256(checkpoint), "nano_scores", split, counts))
    for kind, answers in kinds.items():
        write_predictions(prediction_file(folder, kind), answers)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("src/bird_hf/assets/bird-nano"))
    parser.add_argument("--out", type=Path, help="write the report to this JSON file")
    parser.add_argument("--run", type=Path, help="write the answers to this folder, for `bird report`")
    parser.add_argument("--phantoms", type=int, default=40, help="pictures per modality")
    parser.add_argument("--slices", type=int, default=14, help="slices per plane of a volume")
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--device", help="a torch device such as cuda; by default the CPU")
    parser.add_argument(
        "--coordinate-smoothing", type=float, help="in thousandths; overrides the checkpoint's value"
    )
    parser.add_argument(
        "--split", default="test", choices=["train", "test"], help="train: to choose settings"
    )
    options = parser.parse_args()
    checkpoint = find_checkpoint(options.model)
    model = load(checkpoint, device=options.device)
    if options.coordinate_smoothing is not None:
        model.model.config.coordinate_smoothing_sigma = options.coordinate_smoothing
    questions = all_questions(options.phantoms, options.slices, options.split)
    answered = answer(model, questions, options.batch_size)
    report = score(questions, answered) | {
        "split": options.split,
        "weights_sha256": weights_sha256(checkpoint),
    }
    print(f"{table(report)}\n\n{table_of_rest(report)}")
    if options.run:
        write_run(options.run, checkpoint, options.split, answered)
    if options.out:
        write_text(options.out, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
