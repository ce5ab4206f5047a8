"""The fingerprint of a source, and the files below a folder."""

from __future__ import annotations

from pathlib import Path

from bird_hf.data.sources.base import files_below, fingerprint

from .example_sources import BLOB, NOISE, sa_med2d, save


def test_the_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    root = sa_med2d(tmp_path, {"0001_000": BLOB})
    first = fingerprint(root)
    assert fingerprint(root) == first
    save(root / "masks" / "more.png", NOISE)
    assert fingerprint(root) != first


def test_hidden_folders_and_links_are_not_entered(tmp_path: Path) -> None:
    for name in ("top.png", "a/b/deep.png", ".hidden/secret.png"):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "source" / "loop").symlink_to(tmp_path / "source", target_is_directory=True)
    assert {entry.name for entry in files_below(tmp_path / "source")} == {"top.png", "deep.png"}
    assert [entry.name for entry in files_below(tmp_path / "source", deep=False)] == ["top.png"]
