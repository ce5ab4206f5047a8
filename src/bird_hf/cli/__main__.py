"""`python -m bird_hf.cli`: the same as `bird`, for launchers such as torchrun."""

from . import main

main()
