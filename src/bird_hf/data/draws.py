"""Pseudo-random numbers that depend on a seed and a name only."""

from __future__ import annotations

import hashlib


def draw_of(seed: int, name: str) -> int:
    """A pseudo-random number in [0, 2**63) that depends on the seed and the name only."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8], "big") >> 1
