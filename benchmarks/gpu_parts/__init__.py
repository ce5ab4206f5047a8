"""The parts of benchmarks/gpu.py: one module each with `run(part)`, and what they share."""
