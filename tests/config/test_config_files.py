"""What is said about a path that is no config, and how the bytes of a file may be."""

import os
import socket
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from config_samples import VALID, written

from launcher.config.load import load
from launcher.errors import ExitCode, LaunchError


def refused(path):
    with pytest.raises(LaunchError) as caught:
        load(path)
    return caught.value


def test_missing_file(tmp_path):
    error = refused(tmp_path / "x.yaml")
    assert error.code == ExitCode.CONFIG
    assert "x.yaml: no such file." in str(error)


@pytest.mark.parametrize("given", ["quickstrat.yaml", "quickstart", "quickstart.yml"])
def test_missing_file_names_the_one_that_was_meant(tmp_path, given):
    written(tmp_path, VALID, "quickstart.yaml")
    assert f"Did you mean {tmp_path}/quickstart.yaml?" in str(refused(tmp_path / given))


def test_missing_file_is_looked_for_in_configs(tmp_path):
    (tmp_path / "configs").mkdir()
    written(tmp_path / "configs", VALID, "quickstart.yaml")
    assert f"Did you mean {tmp_path}/configs/quickstart.yaml?" in str(refused(tmp_path / "quickstart.yaml"))


def test_a_file_used_as_a_folder(tmp_path):
    path = written(tmp_path, VALID)
    assert "no such file" in str(refused(path / "x.yaml"))


def test_folder(tmp_path):
    written(tmp_path, VALID)
    error = refused(tmp_path)
    assert error.code == ExitCode.CONFIG
    assert "is a folder; a config is a .yaml file. In it: x.yaml." in str(error)


@pytest.mark.parametrize("suffix", [".json", ".toml", ""])
def test_suffix(tmp_path, suffix):
    assert "a config is a .yaml file." in str(refused(written(tmp_path, VALID, f"x{suffix}")))


def test_what_is_no_ordinary_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.yaml")
    assert "is not an ordinary file" in str(refused(tmp_path / "x.yaml"))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.yaml"))
        assert "is not an ordinary file" in str(refused(tmp_path / "s.yaml"))


def test_links_in_a_circle(tmp_path):
    (tmp_path / "x.yaml").symlink_to(tmp_path / "x.yaml")
    error = refused(tmp_path / "x.yaml")
    assert error.code == ExitCode.FILES
    assert "cannot be read: Too many levels of symbolic links." in str(error)


def test_path_too_long(tmp_path):
    assert refused(tmp_path / f"{'x' * 300}.yaml").code == ExitCode.FILES


def test_path_with_a_nul(tmp_path):
    assert refused(tmp_path / "x\0.yaml").code == ExitCode.CONFIG


def test_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    plain = load(written(tmp_path, VALID))
    odd = load(written(tmp_path, b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode()))
    assert odd.experiment == plain.experiment
    assert odd.resolved == plain.resolved


def test_windows_line_ends_keep_the_lines(tmp_path):
    text = VALID.replace("epochs: 3", "epochs: x").replace("\n", "\r\n")
    assert "x.yaml:17: training.epochs" in str(refused(written(tmp_path, text)))


@contextmanager
def as_an_ordinary_user():
    """Root may read everything, so it is put aside for a moment; anyone else is ordinary already."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_no_permission(what):
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = written(folder, VALID)
        path.chmod(0 if what == "file" else 0o644)
        folder.chmod(0 if what == "folder" else 0o755)
        with as_an_ordinary_user():
            error = refused(path)
        folder.chmod(0o700)
    assert error.code == ExitCode.FILES
    assert str(error) == f"{path}: cannot be read: Permission denied."
