"""Run in lmms-eval's environment: evaluates an export with a model that answers as it is told to."""

import hashlib
import importlib.metadata
import json
from pathlib import Path

from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

question = json.loads(Path("question.json").read_text("utf-8"))


class Told(lmms):
    """A model that answers a document as the test says, and keeps what it was shown and asked."""

    def __init__(self, says: dict) -> None:
        super().__init__()
        self.says, self.seen = says, []

    def generate_until(self, requests: list) -> list:
        return [self._one(*request.args) for request in requests]

    def _one(self, text, second, third, number, task, split) -> str:
        doc = self.task_dict[task][split][number]
        if self.is_simple:  # text, settings, pictures of a document
            words, [picture], settings = text, third(doc), second
        else:  # text, messages of a document, settings
            [turn], settings = second(doc), third
            [shown, said] = turn["content"]
            words, picture = said["text"], shown["url"]
        self.seen.append(
            {
                "id": doc["id"],
                "text": words,
                "wh": picture.size,
                "pixels": hashlib.sha256(picture.convert("RGB").tobytes()).hexdigest(),
                "settings": settings,
            }
        )
        return self.says[doc["id"]]

    def loglikelihood(self, requests: list) -> list:
        raise AssertionError("the tasks ask for text")

    generate_until_multi_round = loglikelihood


class ToldByMessages(Told):
    is_simple = False


manager = TaskManager(include_path=question["out"])
answer = {"version": importlib.metadata.version("lmms-eval"), "runs": {}}
for kind in (Told, ToldByMessages):
    for name, says in question["says"].items():
        model = kind(says)
        found = simple_evaluate(model, tasks=list(question["tasks"]), task_manager=manager, log_samples=True)
        answer["runs"][f"{kind.__name__}, {name}"] = {
            "seen": model.seen,
            "results": found["results"],
            "higher_is_better": found.get("higher_is_better"),
            "targets": {
                sample["doc"]["id"]: sample["target"]
                for samples in found["samples"].values()
                for sample in samples
            },
        }
Path("answer.json").write_text(json.dumps(answer, default=str), encoding="utf-8")
