"""The parts of benchmarks/data_scale.py."""
