"""The Space: the page of `bird demo`, with a checkpoint and images that a Space has.

`BIRD_MODEL` names the checkpoint, a folder or a repository of the hub; by default it is the embedded one.
`BIRD_DATA` names the Med-GRIT folder of the examples; by default the embedded sample is rendered into ./med-grit.
"""

import os
from pathlib import Path

from bird_hf.checkpoint.load import find_checkpoint
from bird_hf.data.embedded.sample_set import write_sample
from bird_hf.demo import run_demo
from bird_hf.sample import embedded_checkpoint

model = os.environ.get("BIRD_MODEL") or str(embedded_checkpoint())
data = Path(os.environ.get("BIRD_DATA", "med-grit"))
if not data.is_dir():
    write_sample(data)
run_demo(find_checkpoint(model), data)
