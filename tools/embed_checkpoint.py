"""Copy a trained checkpoint into the package: `python tools/embed_checkpoint.py runs/nano/final`.

Copies weights, configuration, tokenizer and processor. The code is not copied, because `bird quickstart` adds it to
./bird; the model card stays as it is, until `tools/model_card.py` writes it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from bird_hf.sample import embedded_checkpoint

MAX_WEIGHT_BYTES = 20_000_000
COPIED = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "processor_config.json",
    "chat_template.jinja",
)


def main(source: Path, target: Path) -> None:
    weights = (source / "model.safetensors").stat().st_size
    if weights > MAX_WEIGHT_BYTES:
        raise SystemExit(f"{source}: the weights have {weights:,} bytes, more than {MAX_WEIGHT_BYTES:,}")
    target.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.copyfile(source / name, target / name)
    print(f"{target}: {weights:,} bytes of weights")


if __name__ == "__main__":
    main(Path(sys.argv[1]), embedded_checkpoint())
