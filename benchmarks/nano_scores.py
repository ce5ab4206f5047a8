"""How well a small checkpoint answers on images it has never seen: one line a source.

    python benchmarks/nano_scores.py [--model src/bird_hf/assets/bird-nano] [--out docs/nano_scores.json]
    python benchmarks/nano_scores.py --model runs/smollm2/final --beside docs/nano_scores.json

Sources: phantoms of each modality with seeds that were never trained on, and the real test volumes (the MNI152 head,
brain2, lung2) on all their planes. VG asks for every object of at least 0.3 % of the picture, ROC for every one of at
least 1 % on real heads (0.3 % elsewhere), and absent-object questions ask where something is that is not there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bird_hf.checkpoint import load_checkpoint
from bird_hf.data.embedded.cases import EMBEDDED_CASES
from bird_hf.data.embedded.sample_set import Split, sample_phantoms, spaced_slices
from bird_hf.data.records import ImageRecord, MaskedImage, Turn
from bird_hf.data.teachers.subjects import askable_absent
from bird_hf.data.teachers.templates import classify, ground
from bird_hf.eval.hallucination import box_given
from bird_hf.eval.predict import Query, generate_answers
from bird_hf.eval.report import MALFORMED
from bird_hf.eval.runs import sha256
from bird_hf.eval.scores import Recall, grounding_recall, mean_score, name_recall, total
from bird_hf.hub.grounding import read

ROC_MIN_AREA_HEAD = 0.01
ABSENT_QUESTIONS = 2  # an image


@dataclass(frozen=True)
class Question:
    """A turn about an image; `kind` is vg, roc or absent, `name` what it is about."""

    source: str
    kind: str
    name: str
    turn: Turn
    image: Image.Image


def questions_about(source: str, image: MaskedImage, record: ImageRecord, seed: int) -> Iterator[Question]:
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(image.pixels)
    labels = list(dict.fromkeys(item.label for item in record.present))
    for label in labels:
        yield Question(source, "vg", label, ground(record, label, rng), picture)
    least = ROC_MIN_AREA_HEAD if "head" in source else 0.0
    for item in record.present:
        if item.area >= least:
            yield Question(source, "roc", item.label, classify(record, item, rng), picture)
    missing = askable_absent(record)
    for place in rng.permutation(len(missing))[:ABSENT_QUESTIONS]:
        label = missing[int(place)]
        yield Question(source, "absent", label, ground(record, label, rng), picture)


def all_questions(phantoms: int, slices: int, split: Split = "test") -> list[Question]:
    pairs = [
        (f"phantom {image.info.modality.value}", image, record)
        for image, record in sample_phantoms(split, phantoms)
    ]
    for case in EMBEDDED_CASES:
        if case.split == split:
            name = f"real {case.name}{'' if case.lesions else ' head'}"
            pairs += [(name, image, record) for image, record in spaced_slices(case, slices)]
    return [
        question
        for number, (source, image, record) in enumerate(pairs)
        for question in questions_about(source, image, record, number)
    ]


def score(questions: list[Question], answers: list[str]) -> dict:
    """Recalls by source and kind, the rate of boxes given for absent objects, and the malformed rate."""
    found: dict[str, dict[str, list[Recall]]] = {}
    malformed = 0
    for question, raw in zip(questions, answers, strict=True):
        answer = read(raw)
        malformed += not MALFORMED.isdisjoint(answer.issues)
        if question.kind == "vg":
            reference = [box for span in question.turn.answer_spans for box in span.boxes]
            recall = grounding_recall(reference, answer.boxes)
        elif question.kind == "roc":
            recall = name_recall(question.name, answer.text)
        else:
            recall = box_given(raw)
        found.setdefault(question.source, {}).setdefault(question.kind, []).append(recall)
    sums = {
        source: {kind: total(recalls) for kind, recalls in kinds.items()} for source, kinds in found.items()
    }
    phantom = [kinds for source, kinds in sums.items() if source.startswith("phantom")]
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
        "malformed_rate": malformed / len(questions),
        "questions": len(questions),
    }


def table(report: dict) -> str:
    """The report as Markdown."""

    def cell(kinds: dict, kind: str) -> str:
        return f"{kinds[kind]['score']:.2f} ({kinds[kind]['total']})" if kind in kinds else "-"

    lines = [
        "| source | VG Recall@0.5 (boxes) | ROC recall (questions) | absent objects boxed (questions) |",
        "|---|---|---|---|",
    ]
    for source, kinds in report["sources"].items():
        lines.append(f"| {source} | {cell(kinds, 'vg')} | {cell(kinds, 'roc')} | {cell(kinds, 'absent')} |")
    means = report["phantom_mean"]
    lines.append(f"| **mean of the eight phantoms** | **{means['vg']:.2f}** | **{means['roc']:.2f}** | |")
    lines.append(
        f"\nAbsent objects answered with a box: {report['absent_boxed_rate']:.3f} of {report['absent_questions']}. "
        f"Malformed answers: {report['malformed_rate']:.4f} of {report['questions']}."
    )
    return "\n".join(lines)


def side_by_side(reports: dict[str, dict]) -> str:
    """Reports on the same questions beside each other, as Markdown: VG, ROC and absent objects boxed of each model.

    Raises ValueError where their questions are not the same number.
    """
    if len({report["questions"] for report in reports.values()}) != 1:
        raise ValueError(
            "the reports are of different questions; run both with the same --phantoms and --slices"
        )

    def cells(kinds: dict) -> str:
        scores = [f"{kinds[kind]['score']:.2f}" if kind in kinds else "-" for kind in ("vg", "roc", "absent")]
        return " | ".join(scores)

    lines = [
        "| source | " + " | ".join(f"{name}: VG | ROC | absent boxed" for name in reports) + " |",
        "|---" * (1 + 3 * len(reports)) + "|",
    ]
    for source in next(iter(reports.values()))["sources"]:
        found = " | ".join(cells(report["sources"][source]) for report in reports.values())
        lines.append(f"| {source} | {found} |")
    means = [report["phantom_mean"] | {"absent": report["absent_boxed_rate"]} for report in reports.values()]
    found = " | ".join(
        f"**{mean['vg']:.2f}** | **{mean['roc']:.2f}** | {mean['absent']:.2f} (all)" for mean in means
    )
    malformed = ", ".join(f"{name} {report['malformed_rate']:.4f}" for name, report in reports.items())
    count = next(iter(reports.values()))["questions"]
    return "\n".join(
        [
            *lines,
            f"| **mean of the eight phantoms** | {found} |",
            "",
            f"Malformed answers of {count}: {malformed}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("src/bird_hf/assets/bird-nano"))
    parser.add_argument("--out", type=Path, help="write the report here as JSON")
    parser.add_argument(
        "--beside", type=Path, help="another report, of the same questions, to print beside this one"
    )
    parser.add_argument("--phantoms", type=int, default=40, help="pictures of each modality")
    parser.add_argument("--slices", type=int, default=14, help="slices of each plane of a volume")
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument(
        "--box-smoothing", type=float, help="in thousandths, instead of what the model is set to"
    )
    parser.add_argument(
        "--split", default="test", choices=["train", "test"], help="train: to choose settings by"
    )
    options = parser.parse_args()
    model, processor = load_checkpoint(options.model, dtype=getattr(torch, options.dtype))
    if options.box_smoothing is not None:
        model.config.box_smoothing = options.box_smoothing
    questions = all_questions(options.phantoms, options.slices, options.split)
    queries = [Query(question.turn.tagged()[0], question.image) for question in questions]
    answers = generate_answers(model, processor, queries, options.batch_size, progress=True)
    weights = sha256(options.model / "model.safetensors")
    report = score(questions, answers) | {"split": options.split, "weights_sha256": weights}
    print(table(report))
    if options.beside:
        other = json.loads(options.beside.read_text(encoding="utf-8"))
        print(side_by_side({options.beside.stem: other, options.model.parent.name: report}))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
