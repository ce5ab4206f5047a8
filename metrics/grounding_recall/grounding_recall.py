"""Recall@0.5 of visual grounding, under the paper's rules or strict ones."""

import datasets
import evaluate

from bird_hf.data.records import Task
from bird_hf.eval.score import score_recall

_DESCRIPTION = """
The share of reference boxes that a predicted box overlaps with an IoU above 0.5 (BiRD, MICCAI 2024, Recall@0.5 of
visual grounding). Texts hold boxes as <box>(x1,y1),(x2,y2)</box> in thousandths of the image.
"""

_INPUTS = """
Args:
    predictions (list of str): what the model wrote, one text per question.
    references (list of str): the reference answer of each question, tagged the same way.
    rules (str): "paper" (the default) repeats the original scripts: extra boxes cost nothing, one box may serve
        two references, references without a box are left out. "strict" matches boxes one to one under their names,
        charges every false box, and counts an answer that says that an absent object is absent as one hit.
    modalities (list of str, optional): ct, mr, x_ray, pet, endoscopy, dermoscopy, fundus or ultrasound,
        one per question.

Returns:
    recall (float, or None if no reference holds a box), hits and total (int), counted over boxes.
    With modalities also: modalities (each that asks for a box: score, hits, total), mean (of their scores,
    unweighted) and n_modalities.
    Strict rules add unreadable_rate (float), the share of answers that cannot be read, also by modality.

Example:

    >>> import evaluate
    >>> recall = evaluate.load("metrics/grounding_recall")
    >>> recall.compute(
    ...     predictions=["<ref>liver</ref><box>(100,100),(400,300)</box>"],
    ...     references=["<ref>liver</ref><box>(110,100),(400,310)</box>"],
    ... )
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


class GroundingRecall(evaluate.Metric):
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
        return score_recall(Task.VISUAL_GROUNDING, predictions, references, rules, modalities)
