"""LLaVA-Med's questions with GPT-4's answers, "LLaVA-Med-qa0.2k" in BiRD's Table 1, and scores of answers to them.

The file is `data/eval/llava_med_eval_qa50_qa.jsonl` of github.com/microsoft/LLaVA-Med: 193 questions about 50 figures
of PubMed Central, one JSON object a line:

    {"question_id": 0, "image": "18063892_F3.jpg", "pair_id": "18063892_F3", "text": "What is ...?\\n<image>",
     "gpt4_answer": "...", "domain": {"chest_xray": false, "mri": false, ...}, "type": "conversation", ...}

GPT-4 has not seen the images: its answers were made from the captions and mentions of the figures. BiRD reports an mBMR
for this set and does not say whether it is of all answers as one set or a mean over domains; both are computed here.
The images are not in LLaVA-Med's repository; its script downloads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.original.file_names import check_plain_stem
from ..hub.pixels import open_image
from ..markdown import Cell, Table
from .intervals import cases_of, interval_of
from .outcomes import Outcome, outcomes
from .percent import interval_text, percent
from .predictions import LLAVA_MED, Prediction, check_length, numbered_lines, read_json
from .score import compared_texts, text_row
from .text_scores import text_scores

TEST_SET = "LLaVa-Med-qa0.2k"  # its name in BiRD's Table 1
_IMAGE = "<image>"  # where LLaVA-Med puts the image; BiRD's processor places it itself
_MAX_QUESTIONS = 100_000
_MAX_NAME = 200  # characters of pair_id and type
_ALL = "all"
LLAVA_MED_NOTE = (
    "The reference is GPT-4's answer, which was made from the caption of the figure and the text around it, not from "
    "the image. The paper reports one mBMR for this set and does not say how it averages. Percent; intervals are those "
    "of mBMR, over figures. A figure of several domains counts as the first of chest X-ray, MRI, histology, gross, CT."
)


class Domain(StrEnum):
    """The domains in LLaVA-Med's order; of a figure with several, its summary counts the first."""

    CHEST_XRAY = "chest_xray"
    MRI = "mri"
    HISTOLOGY = "histology"
    GROSS = "gross"
    CT_SCAN = "ct_scan"


def read_llava_med(path: Path) -> list[Prediction]:
    """The questions of a file, without answers: the reference is GPT-4's answer, a case is a figure.

    `facts` hold LLaVA-Med's `question_id`, the `domain` and the `type`. Raises ValueError, in one line with its number,
    if the file is missing or empty, or a line is not such a question.
    """
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; it is llava_med_eval_qa50_qa.jsonl of LLaVA-Med's repository"
        )
    questions: list[Prediction] = []
    known: set[int] = set()
    for number, row in _objects(path):
        try:
            question = _question(len(questions), row)
            question_id = question.facts["question_id"] if question.facts else 0
            if question_id in known:
                raise ValueError(f"question_id {question_id} occurs twice")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        known.add(question_id)
        questions.append(question)
    if not questions:
        raise ValueError(f"{path} is empty; it has one question a line")
    return questions


def with_answers(questions: Sequence[Prediction], path: Path) -> list[Prediction]:
    """The questions with the answers that LLaVA-Med's `model_vqa.py` wrote, one {"question_id", "text"} a line.

    Raises ValueError, in one line, if an answer is broken, missing, given twice, or to no question.
    """
    answers: dict[int, str] = {}
    wanted = {_facts(each)["question_id"] for each in questions}
    for number, row in _objects(path):
        question_id, text = row.get("question_id"), row.get("text")
        where = f"{path}, line {number}"
        if type(question_id) is not int or not isinstance(text, str):
            raise ValueError(f"{where}: an answer has question_id, a whole number, and text")
        if question_id not in wanted or question_id in answers:
            reason = "answered twice" if question_id in answers else "not one of the questions"
            raise ValueError(f"{where}: question_id {question_id} is {reason}")
        check_length(f"{where}: text", text)
        answers[question_id] = text
    if missing := sorted(wanted - answers.keys()):
        raise ValueError(f"{path} has no answers to {len(missing)} questions (question_id {missing[0]}, ...)")
    return [replace(each, response=answers[_facts(each)["question_id"]]) for each in questions]


class FolderImages:
    """The images of a folder by file name."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError if there is no such folder."""
        if not folder.is_dir():
            raise ValueError(
                f"--images {folder}: no such folder; it holds the images that the questions name"
            )
        self._folder = folder.resolve()

    def __getitem__(self, name: str) -> Image.Image:
        """Raises ValueError if the image is missing, cannot be read, or is a link that leads out of the folder."""
        path = self._folder / name
        if not path.resolve().is_relative_to(self._folder):
            raise ValueError(f"image {name} is a link to a file outside {self._folder}")
        return open_image(path)


def score_llava_med(predictions: Sequence[Prediction], rules: str = "paper") -> dict[str, Any]:
    """The scores of answers: of `all` as one set, by `domains` and `types`, and `domain_mean`, the mean over domains.

    Each row has bleu_4, meteor, rouge_l, mbmr, n, cases, and the interval of mbmr. Raises ValueError if Java or the
    caption toolkit is missing.
    """
    groups: dict[tuple[str, str], list[Prediction]] = {(_ALL, ""): [*predictions]}
    for kind in ("domain", "type"):
        for each in predictions:
            groups.setdefault((kind, str(_facts(each).get(kind) or "not given")), []).append(each)
    names = {str(number): key for number, key in enumerate(groups)}
    pairs = {
        name: compared_texts([each.annotation for each in groups[key]], [each.response for each in groups[key]], rules)
        for name, key in names.items()
    }  # fmt: skip
    rows: dict[str, dict[str, Any]] = {_ALL: {}, "domain": {}, "type": {}}
    for name, scores in text_scores(pairs).items():
        kind, label = names[name]
        cases, _ = cases_of(groups[names[name]])
        number = len(set(cases))
        interval = interval_of(scores.draws(cases)["mbmr"], number)
        rows[kind][label] = {**text_row(scores), "n": len(cases), "cases": number, "interval": interval}
    means = [row["mbmr"] for row in rows["domain"].values()]
    kinds = outcomes(LLAVA_MED, predictions)
    return {
        "test_set": TEST_SET,
        "rules": rules,
        "all": rows[_ALL][""],
        "domains": rows["domain"],
        "types": rows["type"],
        "domain_mean": sum(means) / len(means),
        "unreadable_rate": kinds.count(Outcome.UNREADABLE) / len(kinds),
    }


def llava_med_table(scored: Mapping[str, Any]) -> Table:
    """The result of `score_llava_med` in percent."""
    rows = [("all, as one set", scored["all"]), *scored["domains"].items(), *scored["types"].items()]
    lines: list[list[object]] = [
        [
            name,
            *(percent(row[measure]) for measure in ("bleu_4", "meteor", "rouge_l")),
            Cell(percent(row["mbmr"]), below=interval_text(row["interval"])),
            row["n"],
            row["cases"],
        ]
        for name, row in rows
    ]
    lines.insert(1, ["mean of the domains", *"---", percent(scored["domain_mean"]), *"--"])
    header = ["answers", "BLEU-4", "METEOR", "ROUGE-L", "mBMR", "n", "figures"]
    return Table(header, lines, "95 % interval")


def _objects(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    lines = numbered_lines(path)
    if len(lines) > _MAX_QUESTIONS:
        raise ValueError(f"{path} has {len(lines):,} lines; the limit is {_MAX_QUESTIONS:,}")
    for number, line in lines:
        try:
            row = read_json(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: not a JSON object")
        yield number, row


def _question(number: int, row: Mapping[str, Any]) -> Prediction:
    texts = ("image", "text", "gpt4_answer")
    if lacking := [name for name in ("question_id", *texts) if name not in row]:
        raise ValueError(f"lacks {', '.join(lacking)}, which LLaVA-Med's questions have")
    if type(row["question_id"]) is not int or not all(isinstance(row[name], str) for name in texts):
        raise ValueError("question_id must be a whole number; image, text and gpt4_answer must be strings")
    for name in texts:
        check_length(name, row[name])
    try:
        check_plain_stem(row["image"])
    except ValueError:
        raise ValueError(f"image {row['image'][:80]!r} is not a plain file name") from None
    kind, case = row.get("type", ""), row.get("pair_id", row["image"])
    for name, value in (("type", kind), ("pair_id", case)):
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a string")
        check_length(name, value, _MAX_NAME)
    given = row.get("domain", {})
    if not isinstance(given, dict):
        raise ValueError("domain must be an object of the five domains, true or false")
    domain = next((each.value for each in Domain if given.get(each.value) is True), "")
    facts = {"question_id": row["question_id"], "domain": domain, "type": kind}
    question = row["text"].replace(_IMAGE, "").strip()
    return Prediction(
        number, row["image"], question, row["gpt4_answer"], "", LLAVA_MED, facts=facts, case_id=case
    )


def _facts(prediction: Prediction) -> Mapping[str, Any]:
    if prediction.facts is None or "question_id" not in prediction.facts:
        raise ValueError(f"answer {prediction.id} is to no question of LLaVA-Med; it has no question_id")
    return prediction.facts
