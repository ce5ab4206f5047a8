"""The hash of a checkpoint's weights, by which a run identifies its model."""

from __future__ import annotations

import hashlib

from bird_hf.eval.run import weights_sha256


def test_weights_are_hashed_shard_after_shard(tmp_path):
    for name, content in {
        "model-2.safetensors": b"b" * 300_000,
        "model-1.safetensors": b"a",
        "x.bin": b"c",
    }.items():
        (tmp_path / name).write_bytes(content)
    assert weights_sha256(tmp_path) == hashlib.sha256(b"a" + b"b" * 300_000).hexdigest()
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    assert weights_sha256(tmp_path) == hashlib.sha256(b"c").hexdigest()
