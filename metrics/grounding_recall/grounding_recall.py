"""Recall@0.5 of visual grounding, as the paper scores it."""

import datasets
import evaluate

from bird_hf.eval.paper_rules import clean_response, grounding_recall
from bird_hf.eval.scores import total

_DESCRIPTION = """
The share of reference boxes that a predicted box overlaps with an IoU above 0.5. Texts hold boxes as
<box>(x1,y1),(x2,y2)</box> in thousandths of the image. These are the rules of the paper's own scripts: extra boxes
cost nothing, one box may serve two references, and references without a box are left out.
"""

_INPUTS = """
predictions: what the model wrote, one text a question.
references: the reference answer of each question, tagged the same way.

Returns recall (None where no reference holds a box), hits and total, counted over boxes.
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
    """Thin over `bird_hf.eval.paper_rules`."""

    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions, references):
        recall = total(
            grounding_recall(reference, clean_response(prediction))
            for prediction, reference in zip(predictions, references, strict=True)
        )
        return {"recall": recall.score, "hits": recall.hits, "total": recall.total}
