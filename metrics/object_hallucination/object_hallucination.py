"""Boxes for objects that are not in the image, and answers that say so."""

import datasets
import evaluate

from bird_hf.eval.missing_scores import score_missing

_DESCRIPTION = """
Of the questions for objects that are not in the image, the share that was answered with a box (BiRD, MICCAI 2024,
Fig. 4), the share whose answer says that the object is absent, and the share that cannot be read.
"""

_INPUTS = """
Args:
    predictions (list of str): what the model wrote, one text per question.
    references (list of str): the reference answer of each question. Those with a box are left out: the object is there.
    rules (str): "paper" (the default) or "strict"; both count alike.
    modalities (list of str, optional): ct, mr, x_ray, pet, endoscopy, dermoscopy, fundus or ultrasound,
        one per question.

Returns:
    false_box_rate, rejection_rate and unreadable_rate (float, or None if every object is there), and total (int), the
    number of questions for absent objects. Lower is better for the first and the last.
    With modalities also: modalities (each that asks for an absent object, with the same keys), mean (of each rate over
    them, unweighted) and n_modalities.

Example:

    >>> import evaluate
    >>> hallucination = evaluate.load("metrics/object_hallucination")
    >>> hallucination.compute(
    ...     predictions=["<ref>liver</ref><box>(100,100),(400,300)</box>", "There is no spleen in this image."],
    ...     references=["There is no liver in this image.", "There is no spleen in this image."],
    ... )
    {'false_box_rate': 0.5, 'rejection_rate': 0.5, 'unreadable_rate': 0.0, 'total': 2}
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


class ObjectHallucination(evaluate.Metric):
    """The metric as an evaluate module; `bird_hf.eval.missing_scores.score_missing` computes it."""

    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions, references, rules="paper", modalities=None):
        return score_missing(predictions, references, rules, modalities)
