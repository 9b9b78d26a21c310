"""Digests that are computed once: everything that can happen to a file makes it be read again."""

import hashlib
import os
from pathlib import Path

import pytest

from launcher import verified


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A file that was written long ago, as far as its clock says, and a folder for stamps."""
    stamps = tmp_path / "stamps"
    stamps.mkdir(mode=0o700)
    file = tmp_path / "blob"
    file.write_bytes(b"a" * 100)
    monkeypatch.setattr(verified, "SETTLED_NS", 0)
    return file, stamps


def of(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_file_that_did_not_change_is_not_read_again(place, monkeypatch):
    file, stamps = place
    assert verified.digest(file, stamps) == of(b"a" * 100)
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("it was read"))
    assert verified.digest(file, stamps) == of(b"a" * 100)


@pytest.mark.parametrize("change", ["in place", "replaced", "appended", "time set back", "linked"])
def test_a_file_that_changed_is_read_again(place, change):
    file, stamps = place
    verified.digest(file, stamps)
    before = file.stat()
    data = b"b" + b"a" * 99
    if change == "appended":
        data = b"a" * 101
    if change in {"replaced", "linked"}:
        other = file.with_name("other")
        other.write_bytes(data)
        if change == "linked":
            file.unlink()
            file.symlink_to(other)
        else:
            os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
            other.replace(file)
    else:
        with file.open("r+b") as content:
            content.write(data)
        if change == "time set back":
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert (file.stat().st_mtime_ns, file.stat().st_size) == (before.st_mtime_ns, before.st_size)
    assert verified.digest(file, stamps) == of(data)


def test_a_file_that_was_just_written_gets_no_stamp(place, monkeypatch):
    """It may change once more within one tick of the file system's clock."""
    file, stamps = place
    monkeypatch.setattr(verified, "SETTLED_NS", 3600 * 10**9)
    verified.digest(file, stamps)
    assert list(stamps.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"digest": 3}'])
def test_a_stamp_that_is_none_counts_for_nothing(place, text):
    file, stamps = place
    verified.digest(file, stamps)
    (stamp,) = stamps.iterdir()
    stamp.write_text(text)
    assert verified.digest(file, stamps) == of(b"a" * 100)


def test_stamps_lie_where_nobody_else_can_write(tmp_path, monkeypatch):
    monkeypatch.setattr(verified.tempfile, "tempdir", str(tmp_path))
    folder = verified.own_folder()
    assert folder == tmp_path / f"samebits-verified-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert verified.own_folder() is None
    folder.rmdir()
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    folder.symlink_to(other)
    assert verified.own_folder() is None
    file = tmp_path / "blob"
    file.write_bytes(b"x")
    assert verified.digest(file) == of(b"x"), "without stamps it is read each time"
    assert not list(other.iterdir())


def test_without_space_for_a_stamp_there_is_still_a_digest(place, monkeypatch):
    file, stamps = place

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(verified, "publish_json", full)
    assert verified.digest(file, stamps) == of(b"a" * 100)


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        verified.digest(Path(tmp_path, "none"))
