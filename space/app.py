"""The Space: serves the page of `bird demo`.

`BIRD_MODEL` is the checkpoint, a folder or a hub repository; the default is the embedded one.
`BIRD_DATA` is the Med-GRIT folder with the examples; by default the embedded sample is written to ./med-grit.
"""

import os
from pathlib import Path

from bird_hf.checkpoint.load import find_checkpoint
from bird_hf.data.embedded.sample_set import write_sample
from bird_hf.demo.page import run_demo
from bird_hf.sample import embedded_checkpoint

model = os.environ.get("BIRD_MODEL") or str(embedded_checkpoint())
data = Path(os.environ.get("BIRD_DATA", "med-grit"))
if not data.is_dir():
    write_sample(data)
run_demo(find_checkpoint(model), data)
