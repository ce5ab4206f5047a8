"""scene_graph_f1 of referring captions: SPICE's measure with another parser, without Java."""

import datasets
import evaluate

from bird_hf.eval.score import score_captions

_DESCRIPTION = """
The F1 of the objects, attributes and relations of the answer against those of the reference, by the published
definition of SPICE (Anderson et al., ECCV 2016), with spaCy's parser and WordNet's synonyms. It needs no Java. It
is not SPICE: its card says how far the two agree.
"""

_INPUTS = """
Args:
    predictions (list of str): what the model wrote, one text per question.
    references (list of str): the reference answer of each question.
    rules (str): "paper" (the default) compares texts as they stand, after the original's cleanup. "strict" removes
        tags and boxes from both first, and an object of the other side, or one that is denied, is another object.
    modalities (list of str, optional): ct, mr, x_ray, pet, endoscopy, dermoscopy, fundus or ultrasound,
        one per question.

Returns:
    scene_graph_f1 (float, 0 to 1), the mean over all answers, and total (int), their number.
    With modalities also: modalities (the same of each that has questions), mean (over them, unweighted) and
    n_modalities.
    Strict rules add unreadable_rate (float), the share of answers that cannot be read, also by modality.

Example:

    >>> import evaluate
    >>> scene_graph_f1 = evaluate.load("metrics/scene_graph_f1")
    >>> predictions, references = ["The left kidney is big."], ["The right kidney is large."]
    >>> round(scene_graph_f1.compute(predictions=predictions, references=references)["scene_graph_f1"], 3)
    0.667
    >>> scene_graph_f1.compute(predictions=predictions, references=references, rules="strict")
    {'scene_graph_f1': 0.0, 'total': 1, 'unreadable_rate': 0.0}
"""

_CITATION = """
@inproceedings{anderson2016spice,
  title = {{SPICE}: Semantic Propositional Image Caption Evaluation},
  author = {Anderson, Peter and Fernando, Basura and Johnson, Mark and Gould, Stephen},
  booktitle = {ECCV},
  year = {2016}
}
"""


class SceneGraphF1(evaluate.Metric):
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
        return score_captions(predictions, references, rules, modalities, "scene_graph_f1")
