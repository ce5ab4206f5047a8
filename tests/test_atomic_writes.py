"""Files and folders appear whole or not at all."""

from __future__ import annotations

import pytest

from bird_hf.atomic_writes import move_folder, replacing_file, replacing_folder, temporary_name, write_text


class TestReplacingFile:
    def test_a_file_appears_when_it_is_complete(self, tmp_path):
        path = tmp_path / "scores.json"
        with replacing_file(path) as making:
            making.write_text("{}")
            assert not path.exists()
        assert path.read_text() == "{}"
        assert [*tmp_path.iterdir()] == [path]

    def test_an_error_keeps_the_old_file_and_removes_the_new_one(self, tmp_path):
        path = tmp_path / "scores.json"
        path.write_text("old")
        with pytest.raises(ZeroDivisionError), replacing_file(path) as making:
            making.write_text(f"half {1 / 0}")
        assert path.read_text() == "old"
        assert [*tmp_path.iterdir()] == [path]

    def test_what_a_killed_run_left_is_overwritten(self, tmp_path):
        path = tmp_path / "card.md"
        temporary_name(path).write_text("left by a kill, and longer than the new text")
        write_text(path, "new\n")
        assert path.read_bytes() == b"new\n"
        assert [*tmp_path.iterdir()] == [path]


class TestReplacingFolder:
    def test_a_folder_appears_when_it_is_complete(self, tmp_path):
        out = tmp_path / "deep" / "dataset"
        with replacing_folder(out) as making:
            (making / "a.txt").write_text("a")
            assert not out.exists()
        assert (out / "a.txt").read_text() == "a"
        assert [*out.parent.iterdir()] == [out]

    def test_entries_of_the_same_names_are_replaced_and_others_stay(self, tmp_path):
        out = tmp_path / "dataset"
        (out / "data").mkdir(parents=True)
        (out / "data" / "old.parquet").write_text("old")
        (out / "notes.txt").write_text("mine")
        with replacing_folder(out) as making:
            (making / "data").mkdir()
            (making / "data" / "new.parquet").write_text("new")
        assert [path.name for path in (out / "data").iterdir()] == ["new.parquet"]
        assert (out / "notes.txt").read_text() == "mine"
        assert {path.name for path in out.iterdir()} == {"data", "notes.txt"}

    def test_an_error_leaves_an_older_folder_as_it_was(self, tmp_path):
        out = tmp_path / "dataset"
        out.mkdir()
        (out / "a.txt").write_text("old")
        with pytest.raises(ZeroDivisionError), replacing_folder(out) as making:
            (making / "a.txt").write_text(f"new {1 / 0}")
        assert (out / "a.txt").read_text() == "old"
        assert [*tmp_path.iterdir()] == [out]

    def test_a_file_in_its_place_is_refused_before_anything_is_written(self, tmp_path):
        out = tmp_path / "dataset"
        out.write_text("mine")
        with pytest.raises(ValueError, match="is a file; give the name of a folder"), replacing_folder(out):
            pytest.fail("the block must not run")
        assert [*tmp_path.iterdir()] == [out]

    def test_a_folder_moves_to_a_new_place(self, tmp_path):
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "one.txt").touch()
        move_folder(tmp_path / "made", tmp_path / "out")
        assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [
            "out",
            "out/one.txt",
        ]

    def test_moving_onto_a_file_is_refused(self, tmp_path):
        made, out = tmp_path / "made", tmp_path / "out"
        made.mkdir()
        out.write_text("mine")
        with pytest.raises(ValueError, match="is a file"):
            move_folder(made, out)
        assert made.is_dir() and out.read_text() == "mine"
