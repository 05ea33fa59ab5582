from __future__ import annotations

import errno
from pathlib import Path

import pytest

from fourdgs import OutputError
from fourdgs.files import folder_aside, hash_file, hash_json, write_aside, write_json, write_text


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(KeyError), write_aside(target) as aside:
        aside.write_text("half")
        raise KeyError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "out"
    with folder_aside(target) as aside:
        (aside / "one").write_text("1")
    with pytest.raises(KeyError), folder_aside(target) as aside:
        (aside / "two").write_text("2")
        raise KeyError
    assert [path.name for path in target.iterdir()] == ["one"]
    with folder_aside(target) as aside:
        (aside / "two").write_text("2")
    assert [path.name for path in target.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_one_clear_message(tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written: No space left .*free some space"):
        write_text(tmp_path / "a.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_clear_message(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="choose another output folder"):
        write_text(tmp_path / "file" / "a.txt", "text")
    with pytest.raises(OutputError, match="choose another output folder"), folder_aside(tmp_path / "file" / "b"):
        pass


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_hashes_follow_the_content_alone(tmp_path):
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1}) != hash_json({"a": 1, "b": [3]})
    for name in "ab":
        (tmp_path / name).write_text("same")
    assert hash_file(tmp_path / "a") == hash_file(tmp_path / "b")
