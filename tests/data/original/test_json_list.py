"""A JSON list is read one entry at a time, in flat memory."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from bird_hf.data.original.json_list import MAX_ENTRY_CHARS, read_list

CT = "ct_00--CHAOS--case7--z_0134"


def test_a_large_list_is_read_in_flat_memory(tmp_path):
    path = tmp_path / "VG_test.json"
    entry = json.dumps({"id": CT, "conversations": [["Where?", "x" * 1000]]})
    with path.open("w") as file:
        file.write("[" + entry)
        for _ in range(20_000):
            file.write(",\n" + entry)
        file.write("]")
    tracemalloc.start()
    assert sum(1 for _ in read_list(path)) == 20_001
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 20_000_000
    assert peak < 10_000_000


@pytest.mark.parametrize("values", [[], [1], [{"a": [1.5, None, "肝"]}, "b", [[]], True]])
@pytest.mark.parametrize("indent", [None, 2])
def test_entries_are_numbered_from_one(tmp_path, values, indent):
    path = tmp_path / "list.json"
    path.write_text(json.dumps(values, indent=indent, ensure_ascii=False), encoding="utf-8-sig")
    assert list(read_list(path)) == list(enumerate(values, start=1))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{}", "is not a JSON list"),
        ("[1, ]", r"entry 2: not JSON"),
        ("[1 2]", r"after entry 1: '2' instead of , or \]"),
        ("[1] 2", "text follows the end of the list"),
        ("[Infinity]", "Infinity is not a JSON number"),
        (f'["{"x" * MAX_ENTRY_CHARS}"]', "entry 1: longer than 1,000,000 characters"),
    ],
)
def test_other_files_are_refused(tmp_path, text, complaint):
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        list(read_list(path))
