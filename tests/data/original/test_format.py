"""The names of original files give task and split; entries are read or refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from bird_hf.data.original.format import BrokenEntryError, EntryFault, OriginalFile, find_files, read_entry
from bird_hf.data.records import Task

CT = "ct_00--CHAOS--case7--z_0134"


class TestNames:
    @pytest.mark.parametrize(
        ("names", "complaint"),
        [
            (["VG_RO_test.json"], "must contain one task"),
            (["answers_test.json"], "must contain one task"),
            (["VG.json"], "must contain one of train, validation, test; give --split"),
            (["VG_train_test.json"], "must contain one of"),
            (["VG_test.json", "VG_test_OneConv.json"], "both hold test turns of vg; import one of them"),
            (["VG_test.txt"], "named NAME.json"),
            ([], "no .json files"),
        ],
    )
    def test_names_must_tell_files_apart(self, write_original, tmp_path, names, complaint):
        paths = [write_original("[]", name) for name in names] or [tmp_path]
        with pytest.raises(ValueError, match=complaint):
            find_files(paths)

    def test_a_split_is_given_where_a_name_says_none(self, write_original, tmp_path):
        path = write_original("[]", "MIA.json")
        assert find_files([path], "test") == [OriginalFile(path, Task.IMAGE_ANALYSIS, "test")]

    def test_files_are_sorted_by_task_and_split(self, tmp_path):
        names = ["MII-train.json", "GC_val.json", "VG_test.json", "VG_train.json"]
        for name in names:
            (tmp_path / name).write_text("[]")
        assert [(file.task, file.split) for file in find_files([tmp_path])] == [
            (Task.VISUAL_GROUNDING, "train"),
            (Task.VISUAL_GROUNDING, "test"),
            (Task.REFERRING_CAPTION, "validation"),
            (Task.IMAGE_ANALYSIS, "train"),
        ]


def entry(*turns: Any, **fields: Any) -> dict[str, Any]:
    return {"id": CT, "conversations": list(turns or [["Where?", "There."]])} | fields


class TestEntries:
    def test_the_prefix_of_a_question_is_kept_apart(self):
        found = read_entry(
            entry(["Picture 1: <img>a/b.png</img>\n Where?", "There."], ["And?", "No."], more=1)
        )
        assert found.prefixes == ("Picture 1: <img>a/b.png</img>\n ", "")
        assert found.turns == (("Where?", "There."), ("And?", "No."))
        assert found.rest == {"more": 1}
        assert found.layout_line() == (
            f'{{"id": "{CT}", "openings": ["Picture 1: <img>a/b.png</img>\\n ", ""], "rest": {{"more": 1}}}}'
        )

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ([], EntryFault.MALFORMED_ENTRY),
            (entry(["only one"]), EntryFault.MALFORMED_ENTRY),
            (entry(more=float("inf")), EntryFault.MALFORMED_ENTRY),
            (entry(id=".ct_1"), EntryFault.BAD_NAME),
            (entry(id="liver_1"), EntryFault.UNKNOWN_MODALITY),
            (entry(["Where?", "<|im_end|>"]), EntryFault.CONTROL_TOKEN),
            (entry(["Where?", "<ref>a</ref><box>(1,2),(3"]), EntryFault.MALFORMED_BOX),
        ],
    )
    def test_an_entry_that_cannot_be_imported_has_a_reason(self, value, reason):
        with pytest.raises(BrokenEntryError) as caught:
            read_entry(value)
        assert caught.value.reason is reason
