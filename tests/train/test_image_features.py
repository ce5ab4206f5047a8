"""A store of image features gives back what was put in, or nothing: after kills, damage, and from several processes."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bird_hf.train import image_features
from bird_hf.train.image_features import FeatureStore, image_key, image_keys, weights_digest

SHAPE = (4, 6)
MANY = 10**9


def key(number):
    return number.to_bytes(32, "big")


def record(number, dtype=torch.float32):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(number)).to(dtype)


def opened(folder, max_bytes=MANY, **settings):
    return FeatureStore(folder, settings or {"weights": "a"}, max_bytes)


def filled(folder, numbers=range(3), **settings):
    store = opened(folder, **settings)
    store.add({key(number): record(number) for number in numbers})
    return store


def held(store, numbers=range(10)):
    """The numbers whose records the store has. Each must be right."""
    found = store.read([key(number) for number in numbers])
    for name, value in found.items():
        assert torch.equal(value, record(int.from_bytes(name, "big")))
    return {int.from_bytes(name, "big") for name in found}


def only(folder, pattern):
    (path,) = folder.rglob(pattern)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_gives_back_every_bit_and_the_dtype(tmp_path, dtype):
    opened(tmp_path).add({key(number): record(number, dtype) for number in range(3)})
    found = opened(tmp_path).read([key(2), key(0)])  # another process, or a later run
    assert list(found) == [key(2), key(0)]
    for number in (0, 2):
        assert found[key(number)].dtype == dtype
        assert torch.equal(found[key(number)], record(number, dtype))


def test_a_record_of_other_weights_is_not_found(tmp_path):
    filled(tmp_path, weights="a")
    assert held(opened(tmp_path, weights="a")) == {0, 1, 2}
    assert held(opened(tmp_path, weights="b")) == set()


def test_what_another_process_adds_is_found_without_reopening(tmp_path):
    one, other = filled(tmp_path, [0]), opened(tmp_path)
    assert held(other) == {0}
    one.add({key(1): record(1)})
    other.add({key(2): record(2)})
    assert held(one) == held(other) == {0, 1, 2}


def test_an_image_that_two_processes_computed_is_kept_once(tmp_path):
    one, other = opened(tmp_path), opened(tmp_path)
    one.add({key(0): record(0)})
    other.add({key(0): record(0), key(1): record(1)})
    assert opened(tmp_path).used_bytes() == 2 * one.record_bytes


# What a kill or a disk can leave: (the file, what becomes of its bytes, which of records 0, 1, 2 are still there).
# An index has 64 bytes an entry, a record of these tests 96.
DAMAGE = [
    pytest.param("*.index", lambda data: data[:-1], {0, 1}, id="the last entry was being written"),
    pytest.param("*.index", lambda data: data[:64], {0}, id="killed between record and entry"),
    pytest.param("*.index", lambda data: b"", set(), id="killed before the first entry"),
    pytest.param("*.records", lambda data: data[:-1], {0, 1}, id="a power cut took the end of a record"),
    pytest.param("*.records", lambda data: data[:96], {0}, id="and whole records"),
    pytest.param("*.records", lambda data: b"\xff" + data[1:], {1, 2}, id="a bit of a record has changed"),
    pytest.param(
        "*.records", lambda data: data[96:192] + data[:96] + data[192:], {2}, id="records are exchanged"
    ),
    pytest.param("*.index", lambda data: b"\xff" + data[1:], {1, 2}, id="the image of an entry has changed"),
    pytest.param(
        "*.index", lambda data: data[:39] + b"\x7f" + data[40:], {1, 2}, id="an offset beyond the file"
    ),
]


@pytest.mark.parametrize(("file", "damage", "left"), DAMAGE)
def test_damage_is_never_read_and_what_is_whole_stays(tmp_path, file, damage, left):
    filled(tmp_path)
    path = only(tmp_path, file)
    path.write_bytes(damage(path.read_bytes()))
    store = opened(tmp_path)
    assert held(store) == left
    store.add({key(number): record(number) for number in range(3)})  # computed anew
    assert held(store) == held(opened(tmp_path)) == {0, 1, 2}


def test_damage_is_said_once(tmp_path, caplog):
    filled(tmp_path)
    path = only(tmp_path, "*.records")
    path.write_bytes(bytes(len(path.read_bytes())))
    with caplog.at_level(logging.WARNING):
        assert held(opened(tmp_path)) == set()
    (said,) = caplog.messages
    assert "damaged" in said and path.name in said


def test_a_file_cut_while_it_is_mapped_is_damage_too(tmp_path):
    store = filled(tmp_path)
    assert held(store) == {0, 1, 2}
    path = only(tmp_path, "*.records")
    path.write_bytes(path.read_bytes()[:96])
    assert held(store) == {0}


def test_a_full_store_keeps_what_it_has_and_says_so_once(tmp_path, caplog):
    size = record(0).nbytes
    filled(tmp_path, [8], weights="of another tower")
    store = opened(tmp_path, max_bytes=3 * size)  # one is taken
    with caplog.at_level(logging.WARNING):
        store.add({key(number): record(number) for number in range(3)})
        store.add({key(3): record(3)})
    assert held(store) == {0, 1}
    assert store.used_bytes() == 3 * size
    assert [text for text in caplog.messages if "full" in text] == caplog.messages and len(
        caplog.messages
    ) == 1


def test_a_full_disk_stops_keeping_and_not_training(tmp_path, caplog, monkeypatch):
    store = filled(tmp_path, [0])
    records = only(tmp_path, "*.records")

    class FullDisk:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            self.file.write(bytes(data)[:10])
            self.file.flush()
            raise OSError(28, "No space left on device")

    open_file = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *mode: FullDisk(open_file(path, *mode)))
    with caplog.at_level(logging.WARNING):
        store.add({key(1): record(1)})
    monkeypatch.undo()
    assert "No space left" in caplog.text and len(caplog.messages) == 1
    assert records.stat().st_size == record(0).nbytes  # the half record gave its room back
    assert held(store) == held(opened(tmp_path)) == {0}


def test_records_of_another_shape_are_not_mixed_in(tmp_path, caplog):
    store = filled(tmp_path, [0])
    with caplog.at_level(logging.WARNING):
        store.add({key(1): torch.zeros(2, 6)})
    assert "(2, 6)" in caplog.text and held(store) == {0}


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"cache_image_features: .*name a folder that can be written"
    ) as error:
        opened(tmp_path / "file" / "store")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"shape": [4, 6], "dtype": "load"}', '{"shape": [], "dtype": "float32"}']
)
def test_settings_that_are_no_settings_are_named(tmp_path, text):
    filled(tmp_path)
    only(tmp_path, "settings.json").write_text(text)
    with pytest.raises(ValueError, match=r"settings\.json .*remove that folder"):
        opened(tmp_path).read([key(0)])


def test_settings_say_what_the_records_are_of(tmp_path):
    filled(tmp_path, weights="a")
    assert json.loads(only(tmp_path, "settings.json").read_text()) == {
        "weights": "a",
        "shape": list(SHAPE),
        "dtype": "float32",
    }


KILLED = """
import os, sys
from pathlib import Path
import torch
from bird_hf.train.image_features import FeatureStore
store = FeatureStore(Path(sys.argv[1]), {"weights": "a"}, 10**9)
for number in range(1000):
    value = torch.randn((4, 6), generator=torch.Generator().manual_seed(number))
    store.add({number.to_bytes(32, "big"): value})
    print(number, flush=True)
"""


@pytest.mark.slow
def test_writers_that_are_killed_lose_no_finished_record(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    finished = set()
    for writer, count in zip(writers, (5, 20), strict=True):
        finished |= {int(writer.stdout.readline()) for _ in range(count)}
        writer.kill()
        writer.communicate()
    there = held(opened(tmp_path), range(1000))
    assert finished <= there


# --- keys -----------------------------------------------------------------------------------------------------


def test_the_key_of_an_image_is_its_pixels(tmp_path):
    pixels = torch.randn(2, 3, 4, 4)
    changed = pixels[0].clone()
    changed[0, 0, 0] += 1e-3
    keys = {image_key(image) for image in (pixels[0], pixels[1], changed, pixels[0].bfloat16())}
    assert len(keys) == 4 and image_key(pixels[0].clone()) in keys
    assert [bytes(row) for row in image_keys(pixels).tolist()] == [image_key(image) for image in pixels]


def test_any_change_of_weights_changes_their_digest():
    def made(change=lambda layer: None):
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        change(layer)
        return weights_digest(layer)

    assert made() == made()
    assert made(lambda layer: layer.bfloat16()) != made()
    with torch.no_grad():
        assert made(lambda layer: layer.weight[0, 0].add_(1e-6)) != made()


def test_a_record_has_the_size_that_the_cases_of_damage_count_on():
    assert record(0).nbytes == 96 and image_features._ENTRY.size == 64
