"""Where errors end: each kind has its exit code and its words, and a bug leaves a log rather than a traceback."""

import errno
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import pytest

from launcher import __version__
from launcher.cli.boundary import BROKEN_PIPE, guarded
from launcher.errors import ExitCode, LaunchError, Problem, fail

DOCS = Path(__file__).parents[2] / "docs"
LAUNCH = [sys.executable, "-c", "import sys; from launcher.cli import main; sys.exit(main())"]


def throwing(error):
    def action():
        raise error

    return action


def test_the_actions_own_number_is_the_exit_code():
    assert guarded(lambda: 75, []) == ExitCode.SAVED
    assert guarded(lambda: None, []) == ExitCode.OK


@pytest.mark.parametrize("code", ExitCode)
def test_launch_error(code, capsys):
    error = LaunchError(code, [Problem("is wrong.", "x.yaml:3: a.b", "Mend it."), Problem("No Slurm.")], "$ sbatch\nno")
    assert guarded(throwing(error), []) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "x.yaml:3: a.b: is wrong. Mend it.\nlaunch: No Slurm.\n    $ sbatch\n    no\n"


def test_exit_codes_are_documented():
    rows = re.findall(
        r"^\| ([0-9]+) \| ([A-Z_]+) \| (.+) \|$", (DOCS / "errors.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {(int(number), name) for number, name, _ in rows} == {(code.value, code.name) for code in ExitCode}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.ESTALE])
def test_file_system(number, capsys):
    assert guarded(throwing(OSError(number, os.strerror(number), "/some/where")), []) == ExitCode.FILES
    said = capsys.readouterr().err
    assert said.startswith(f"/some/where: {os.strerror(number)}.")
    assert "Traceback" not in said


def test_read_only_folder_for_real(capsys):
    """/proc takes no new files from anyone, root included."""
    assert guarded(lambda: Path("/proc/1/samebits").write_text("x"), []) in (ExitCode.FILES, ExitCode.INTERNAL)
    assert "/proc/1/samebits" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.exceptions.Abort()])
def test_interrupted(error, capsys):
    assert guarded(throwing(error), []) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == "\nlaunch: interrupted.\n"


def test_bug_leaves_a_log_without_the_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "the-secret")
    assert guarded(throwing(ZeroDivisionError("one by\nnought")), ["x.yaml", "--local"]) == ExitCode.INTERNAL
    said = capsys.readouterr().err
    (log,) = tmp_path.iterdir()
    assert said.startswith("launch: A bug of samebits: ZeroDivisionError: one by.")
    assert str(log) in said
    assert "Traceback" not in said
    text = log.read_text(encoding="utf-8")
    assert f"samebits {__version__}" in text
    assert "['x.yaml', '--local']" in text
    assert "Traceback (most recent call last)" in text
    assert "the-secret" not in text
    assert log.stat().st_mode & 0o077 == 0


def test_bug_where_no_log_can_be_written_is_shown_whole(monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    assert guarded(throwing(ZeroDivisionError()), []) == ExitCode.INTERNAL
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_nothing_reaches_the_terminal_that_could_steer_it(capsys):
    guarded(throwing(fail(ExitCode.TREE, "bad\x1b[2Jname\x07", where="a\x9bb", evidence="\x1b]0;x\x07")), [])
    said = capsys.readouterr().err
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", said)
    assert "bad\\x1b[2Jname\\x07" in said


def test_names_that_are_not_utf8_are_shown(tmp_path):
    done = subprocess.run([*LAUNCH, "status", b"\xff", "--experiments", tmp_path], capture_output=True, check=False)
    assert done.returncode == ExitCode.NOT_FOUND
    assert b"No experiment `\\udcff`." in done.stderr


def on_a_terminal(arguments, **env):
    """Run it with stderr on a pseudo-terminal; returns what it wrote there."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", **env}
    subprocess.run([*LAUNCH, *arguments], stderr=theirs, stdout=subprocess.DEVNULL, env=environment, check=False)
    os.close(theirs)
    text = os.read(ours, 10_000).decode()
    os.close(ours)
    return text


def test_colour_on_a_terminal_only(tmp_path):
    arguments = ["status", "x", "--experiments", str(tmp_path)]
    plain = subprocess.run([*LAUNCH, *arguments], capture_output=True, text=True, check=False).stderr
    assert "\x1b" not in plain
    assert on_a_terminal(arguments).startswith("\x1b[1m")
    assert "\x1b" not in on_a_terminal(arguments, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(arguments, TERM="dumb")


def test_full_disk_for_real():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*LAUNCH, "schema"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == ExitCode.FILES
    assert done.stderr.startswith("standard output: No space left on device.")
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_reader_that_went_away_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*LAUNCH, "schema"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.returncode == BROKEN_PIPE
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("words", "answer"),
    [("sta", "plain,status"), ("configs/q", "file,configs/q"), ("configs/quick.yaml --part", "plain,--partition")],
)
def test_shell_completion(words, answer):
    position = str(len(words.split()))
    environment = {
        **os.environ,
        "_LAUNCH_COMPLETE": "bash_complete",
        "COMP_WORDS": f"launch {words}",
        "COMP_CWORD": position,
    }
    done = subprocess.run(LAUNCH, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == f"{answer}\n"


def test_broken_pipe_is_documented():
    assert str(BROKEN_PIPE) in (DOCS / "errors.md").read_text(encoding="utf-8")
    assert BROKEN_PIPE == 128 + signal.SIGPIPE
