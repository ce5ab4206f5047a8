"""SPICE of referring captions: the original program of Anderson et al., ECCV 2016."""

import datasets
import evaluate

from bird_hf.eval.score import score_captions

_DESCRIPTION = """
SPICE, as the original Java program computes it (BiRD, MICCAI 2024, referring captioning): the F1 of the objects,
attributes and relations that a parser finds in the answer and in the reference. Needs Java, which the extra `eval`
installs, and Stanford CoreNLP, which `bird setup spice` downloads once.
"""

_INPUTS = """
Args:
    predictions (list of str): what the model wrote, one text per question.
    references (list of str): the reference answer of each question.
    rules (str): "paper" (the default) compares texts as they stand, after the original's cleanup. "strict" removes
        tags and boxes from both first.
    modalities (list of str, optional): ct, mr, x_ray, pet, endoscopy, dermoscopy, fundus or ultrasound,
        one per question.

Returns:
    spice (float, 0 to 1), the mean over all answers, and total (int), their number.
    With modalities also: modalities (the same of each that has questions), mean (over them, unweighted) and
    n_modalities. The paper reports the mean.
    Strict rules add unreadable_rate (float), the share of answers that cannot be read, also by modality.
"""

_CITATION = """
@inproceedings{anderson2016spice,
  title = {{SPICE}: Semantic Propositional Image Caption Evaluation},
  author = {Anderson, Peter and Fernando, Basura and Johnson, Mark and Gould, Stephen},
  booktitle = {ECCV},
  year = {2016}
}
"""


class Spice(evaluate.Metric):
    """The metric as an evaluate module; `bird_hf.eval.score.score_captions` computes it."""

    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions, references, rules="paper", modalities=None):
        return score_captions(predictions, references, rules, modalities, "spice")
