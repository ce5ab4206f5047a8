"""A conversion that was killed goes on where it stopped, and ends as one that was not."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

import bird_hf
import bird_hf.convert as converter
from bird_hf.convert import convert

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen_vl_tiny"

# Converts in forked processes, which end by SIGKILL at one of the moments at which they touch a file.
KILLS = """
import hashlib, json, os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tqdm import tqdm

from bird_hf.convert import convert, weight_writer

weight_writer.SHARD_BYTES = 1_000_000
src, root = map(Path, sys.argv[1:])
at = passed = -1

def pass_moment(*_):
    global passed
    passed += at >= 0
    if 0 < at == passed:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(lambda event, _: event in ("open", "os.rename", "os.mkdir", "os.remove") and pass_moment())
update = tqdm.update
tqdm.update = lambda bar, n=1: (pass_moment(), update(bar, n))  # while a file is written

def run(dst, moment=0):
    global at, passed
    child = os.fork()
    if child == 0:
        at, passed = moment, 0
        convert(src, dst)
        at, moments = -1, passed
        (root / "moments").write_text(str(moments))
        os._exit(0)
    return os.waitpid(child, 0)[1]

def files(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}

def written(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}

assert run(root / "whole") == 0
moments = int((root / "moments").read_text())
rows = []
for eighth in range(1, 8):
    dst = root / f"killed-{eighth}"
    died = run(dst, moments * eighth // 8) == signal.SIGKILL
    nothing_yet = not dst.exists()
    kept = written(root / f".{dst.name}.making" / "checkpoint")
    again = run(dst)
    rows.append(dict(
        died=died, nothing_yet=nothing_yet, kept=len(kept), again=again, same=files(dst) == files(root / "whole"),
        untouched=kept.items() <= written(dst).items(), left=[str(p) for p in root.glob(".*")],
    ))
print(json.dumps(rows))
"""


@pytest.fixture
def source(tmp_path):
    """The tiny checkpoint in two .bin files."""
    folder = tmp_path / "source"
    folder.mkdir()
    shutil.copyfile(GOLDEN / "config.json", folder / "config.json")
    tensors = load_file(GOLDEN / "model.safetensors")
    names = sorted(tensors)
    for number, part in enumerate((names[:60], names[60:]), start=1):
        torch.save(
            {name: tensors[name] for name in part}, folder / f"pytorch_model-0000{number}-of-00002.bin"
        )
    return folder


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(source, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(source), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(Path(bird_hf.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout.splitlines()[-1])
    for row in rows:
        assert row["died"] and row["nothing_yet"]
        assert row["again"] == 0 and row["same"] and not row["left"]
        assert row["untouched"]  # what was whole was not written again
    assert max(row["kept"] for row in rows) >= 3


def interrupt(monkeypatch, source, dst):
    """Ctrl+C after the first file, of several."""
    monkeypatch.setattr("bird_hf.convert.weight_writer.SHARD_BYTES", 1_000_000)
    write = converter.write_shard

    def finished():
        return list(dst.parent.glob(f".{dst.name}.making/checkpoint/*.safetensors"))

    def write_once(*args):
        if finished():
            raise KeyboardInterrupt
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(converter, "write_shard", write_once)
        with pytest.raises(KeyboardInterrupt):
            convert(source, dst)
    assert finished()
    assert not dst.exists()


def weights_of(folder):
    found = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_another_source_does_not_go_on_with_what_an_older_one_left(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    shutil.copyfile(GOLDEN / "config.json", source / "config.json")
    tensors = load_file(GOLDEN / "model.safetensors")
    save_file(tensors, source / "model.safetensors")
    interrupt(monkeypatch, source, tmp_path / "bird")
    tensors["transformer.wte.weight"] += 1  # names and shapes stay as they are
    save_file(tensors, source / "model.safetensors")
    convert(source, tmp_path / "bird")
    convert(source, tmp_path / "expected")
    assert_equal(weights_of(tmp_path / "bird"), weights_of(tmp_path / "expected"))


def test_another_dtype_begins_anew(tmp_path, monkeypatch):
    interrupt(monkeypatch, GOLDEN, tmp_path / "bird")
    convert(GOLDEN, tmp_path / "bird", dtype="float32")
    assert {tensor.dtype for tensor in weights_of(tmp_path / "bird").values()} == {torch.float32}


def test_a_file_that_is_not_as_planned_is_written_again(tmp_path, monkeypatch):
    interrupt(monkeypatch, GOLDEN, tmp_path / "bird")
    (kept,) = (tmp_path / ".bird.making" / "checkpoint").glob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-1])
    convert(GOLDEN, tmp_path / "bird")
    convert(GOLDEN, tmp_path / "expected")
    assert_equal(weights_of(tmp_path / "bird"), weights_of(tmp_path / "expected"))


def test_two_conversions_into_one_folder_are_not_mixed(tmp_path):
    (tmp_path / ".bird.making").mkdir()
    with (
        FileLock(tmp_path / ".bird.making" / "lock"),
        pytest.raises(ValueError, match="is being written by another process"),
    ):
        convert(GOLDEN, tmp_path / "bird")
    assert not (tmp_path / "bird").exists()


def test_a_disk_that_is_too_small_is_found_before_writing(tmp_path, monkeypatch, refusal):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9 - 5 * 10**6, 5 * 10**6))
    message = refusal(GOLDEN, tmp_path / "bird")
    assert "needs 0.04 GB and its disk has 0.01 GB free" in message


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path, refusal):
    """The system refuses to let a file grow beyond 1 MB, as it refuses on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        message = refusal(GOLDEN, tmp_path / "bird")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written ([Errno 27] File too large); check space and permissions" in message
