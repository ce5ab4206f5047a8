"""Numbers that look random and depend on a seed and a name alone."""

from __future__ import annotations

import hashlib


def draw_of(seed: int, name: str) -> int:
    """A number that looks random and depends on a seed and a name alone, in [0, 2**63)."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8], "big") >> 1
