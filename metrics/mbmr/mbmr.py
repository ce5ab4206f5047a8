"""mBMR of medical image analysis: the mean of BLEU-4, METEOR and ROUGE-L."""

import datasets
import evaluate

from bird_hf.eval.score import score_texts

_DESCRIPTION = """
The mean of BLEU-4, METEOR 1.5 and ROUGE-L as the COCO caption toolkit computes them (BiRD, MICCAI 2024, mBMR of medical
image analysis). Needs Java, which the extra `eval` installs: `pip install -e ".[eval]"` in the repository.
"""

_INPUTS = """
Args:
    predictions (list of str): what the model wrote, one text per question.
    references (list of str): the reference answer of each question.
    rules (str): "paper" (the default) compares texts as they stand, after the original's cleanup. "strict" removes
        tags and boxes from both first, so that only words count.
    modalities (list of str, optional): ct, mr, x_ray, pet, endoscopy, dermoscopy, fundus or ultrasound,
        one per question.

Returns:
    bleu_4, meteor, rouge_l and mbmr (float, 0 to 1) of all answers as one set, and total (int), their number.
    With modalities also: modalities (the same of each that has questions, scored by itself), mean (of each score
    over them, unweighted) and n_modalities. The paper reports the mean; the
    BLEU of all answers is not the mean of its groups.
    Strict rules add unreadable_rate (float), the share of answers that cannot be read, also by modality.

Example:

    >>> import evaluate
    >>> mbmr = evaluate.load("metrics/mbmr")
    >>> scores = mbmr.compute(
    ...     predictions=["The image shows the liver and the left kidney."],
    ...     references=["The image shows the liver and the right kidney."],
    ... )
    >>> {name: round(score, 3) for name, score in scores.items()}
    {'bleu_4': 0.751, 'meteor': 0.459, 'rouge_l': 0.889, 'mbmr': 0.7, 'total': 1}
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


class MBMR(evaluate.Metric):
    """The metric as an evaluate module; `bird_hf.eval.score.score_texts` computes it."""

    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions, references, rules="paper", modalities=None):
        return score_texts(predictions, references, rules, modalities)
