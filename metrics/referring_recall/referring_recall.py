"""Recall of names in referring object classification, under the paper's rules or strict ones."""

import datasets
import evaluate

from bird_hf.data.records import Task
from bird_hf.eval.score import score_recall

_DESCRIPTION = """
The share of answers that hold the name of the object in the box asked about (BiRD, MICCAI 2024, Recall of referring
object classification). Every word of the reference must stand in the answer; their order and case do not matter.
"""

_INPUTS = """
Args:
    predictions (list of str): what the model wrote, one text per question.
    references (list of str): the name of each object.
    rules (str): "paper" (the default) repeats the original scripts: a word may stand inside another one ("rib" in
        "tribal"). "strict" compares whole words and sides, knows synonyms, removes tags and boxes from both texts
        first, and counts no unreadable answer.
    modalities (list of str, optional): ct, mr, x_ray, pet, endoscopy, dermoscopy, fundus or ultrasound,
        one per question.

Returns:
    recall (float), hits and total (int), counted over questions.
    With modalities also: modalities (each that has questions: score, hits, total), mean (of their scores,
    unweighted) and n_modalities.
    Strict rules add unreadable_rate (float), the share of answers that cannot be read, also by modality.

Example:

    >>> import evaluate
    >>> recall = evaluate.load("metrics/referring_recall")
    >>> recall.compute(predictions=["This is the left kidney."], references=["left kidney"])
    {'recall': 1.0, 'hits': 1, 'total': 1}
"""

_CITATION = """
@inproceedings{huang2024bird,
  title = {A Refer-and-Ground Multimodal Large Language Model for Biomedicine},
  author = {Huang, Xiaoshuang and Huang, Haifeng and Shen, Lingdong and Yang, Yehui and Shang, Fangxin and
            Liu, Junwei and Liu, Jia},
  booktitle = {MICCAI},
  year = {2024}
}
"""


class ReferringRecall(evaluate.Metric):
    """The metric as an evaluate module; `bird_hf.eval.score.score_recall` computes it."""

    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions, references, rules="paper", modalities=None):
        return score_recall(Task.REFERRING_CLASSIFICATION, predictions, references, rules, modalities)
