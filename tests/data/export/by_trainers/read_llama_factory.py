"""Run in LLaMA-Factory's environment: loads an export as `llamafactory-cli train` does, up to a batch."""

import hashlib
import json
from pathlib import Path

from llamafactory.data import MultiModalDataCollatorForSeq2Seq, get_dataset, get_template_and_fix_tokenizer
from llamafactory.data.loader import _get_merged_dataset
from llamafactory.extras.env import VERSION
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer
from PIL import Image

question = json.loads(Path("question.json").read_text("utf-8"))
model, data, training, _, _ = get_train_args(
    {
        "model_name_or_path": question["model"],
        "template": question["template"],
        "stage": "sft",
        "do_train": True,
        "dataset_dir": question["out"],
        "media_dir": question["out"],
        "dataset": ",".join(question["datasets"]),
        "output_dir": str(Path("run").absolute()),
        "cutoff_len": 4096,
        "preprocessing_num_workers": None,
        "use_cpu": True,
        "report_to": "none",
    }
)
opened = load_tokenizer(model)
tokenizer = opened["tokenizer"]
template = get_template_and_fix_tokenizer(tokenizer, data)
aligned = _get_merged_dataset(data.dataset, model, data, training, stage="sft")
ready = get_dataset(template, model, data, training, stage="sft", **opened)["train_dataset"]
collate = MultiModalDataCollatorForSeq2Seq(template=template, **opened)


def loaded(row: dict) -> dict:
    """A row in the form that every dataset is brought into, and its picture."""
    [path] = row["_images"]
    picture = Image.open(path)
    return {
        "texts": [message["content"] for message in row["_prompt"] + row["_response"]],
        "roles": [message["role"] for message in row["_prompt"] + row["_response"]],
        "path": path,
        "wh": picture.size,
        "pixels": hashlib.sha256(picture.convert("RGB").tobytes()).hexdigest(),
    }


def encoded(row: dict) -> dict:
    """What a model is trained on: the text of all tokens, of those with a loss, and the patches of the picture."""
    batch = collate([dict(row)])
    learned = [token for token in batch["labels"][0].tolist() if token >= 0]
    return {
        "all": tokenizer.decode(batch["input_ids"][0]),
        "learned": tokenizer.decode(learned),
        "grid": batch["image_grid_thw"].tolist(),
    }


answer = {
    "version": VERSION,
    "rows": [loaded(row) for row in aligned],
    "encoded": [encoded(row) for row in ready],
}
Path("answer.json").write_text(json.dumps(answer), encoding="utf-8")
