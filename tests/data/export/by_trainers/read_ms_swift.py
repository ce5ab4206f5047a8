"""Run in ms-swift's environment: loads an export as `swift sft` does, and encodes it by a model's template."""

import hashlib
import json
import os
from pathlib import Path

question = json.loads(Path("question.json").read_text("utf-8"))
os.environ["ROOT_IMAGE_DIR"] = question["out"]  # read when ms-swift opens a picture

import swift  # noqa: E402
from swift.dataset import load_dataset, register_dataset_info  # noqa: E402
from swift.model import get_processor  # noqa: E402
from swift.template import get_template  # noqa: E402
from swift.template.vision_utils import load_image  # noqa: E402

register_dataset_info(str(Path(question["out"], "dataset_info.json")))
rows, _ = load_dataset(question["datasets"], strict=True)


def loaded(row: dict) -> dict:
    """A row as ms-swift holds it, and its picture."""
    [cell] = row["images"]
    picture = load_image(cell["bytes"] or cell["path"])
    return {
        "texts": [message["content"] for message in row["messages"]],
        "roles": [message["role"] for message in row["messages"]],
        "objects": row.get("objects"),
        "path": cell["path"],
        "wh": picture.size,
        "pixels": hashlib.sha256(picture.tobytes()).hexdigest(),
    }


def encoded(row: dict, template) -> dict:
    """What a model is trained on: the text of all tokens, of those with a loss, and the patches of the picture."""
    found = template.encode(dict(row))
    learned = [token for token in found["labels"] if token != -100]
    return {
        "all": template.tokenizer.decode(found["input_ids"]),
        "learned": template.tokenizer.decode(learned),
        "grid": found["image_grid_thw"].tolist() if "image_grid_thw" in found else None,
    }


answer = {"version": swift.__version__, "rows": [loaded(row) for row in rows], "encoded": {}}
for kind, folder in question["models"].items():
    template = get_template(get_processor(folder, model_type=kind), template_type=kind)
    template.set_mode("train")
    answer["encoded"][kind] = [encoded(row, template) for row in rows]
Path("answer.json").write_text(json.dumps(answer), encoding="utf-8")
