"""`launch cancel` writes its wish before it tells Slurm, and nothing brings such a run back."""

import json
import subprocess
import sys

import pytest

from jobs.rundir import Tree
from launcher.cancel import cancel
from launcher.errors import LaunchError
from launcher.placement import Placement
from launcher.record import Submission, is_cancelled

TIME = "2026-01-31T12:00:00.000Z"


@pytest.fixture
def tree(tmp_path):
    tree = Tree(tmp_path / "experiments" / "tiny")
    for seed in (0, 1):
        for folder in tree.run(seed).folders:
            folder.mkdir(parents=True)
        tree.run(seed).specification.write_text("{}")
    return tree


@pytest.fixture
def submission(tree):
    return Submission("a", "slurm", "submitted", (0, 1), "7", None, "gpu", "h", 1, TIME).write(tree)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A squeue with both tasks running, and a scancel that shows what it found in the tree when it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def program(name, text):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    program("squeue", "echo '7_0|RUNNING|n1|None'; echo '7_1|RUNNING|n2|None'")
    return program


def test_the_wish_stands_before_slurm_is_told(tree, submission, slurm, tmp_path, capsys):
    slurm("scancel", f"echo $* > {tmp_path}/told; cat {tree.run(1).submission} >> {tmp_path}/told")
    assert cancel(tree, 1) == 0
    argv, _, record = (tmp_path / "told").read_text().partition("\n")
    assert argv == "7_1"
    assert json.loads(record)["state"] == "cancelled"
    assert not is_cancelled(tree.run(0), "a")
    assert "seed 1: cancelled, job 7_1" in capsys.readouterr().out


def test_where_slurm_refuses_the_wish_stands_and_that_is_said(tree, submission, slurm):
    slurm("scancel", "echo scancel: error: Access denied >&2; exit 1")
    with pytest.raises(LaunchError, match="None of it will be requeued"):
        cancel(tree, None)
    assert is_cancelled(tree.run(0), "a")
    assert is_cancelled(tree.run(1), "a")


def test_a_launcher_that_goes_on_submitting_does_not_undo_it(tree, submission):
    submission.cancel(tree, 0)
    submission.with_state("intent", "8").write(tree)
    submission.with_state("submitted", "8").write(tree)
    assert is_cancelled(tree.run(0), "a")
    assert json.loads(tree.run(0).submission.read_text())["job"] == "8_0"
    assert not is_cancelled(tree.run(1), "a")


def test_the_next_launch_is_another_submission(tree, submission):
    submission.cancel(tree, 0)
    Submission("b", "slurm", "submitted", (0,), "8", None, "gpu", "h", 1, TIME).write(tree)
    assert not is_cancelled(tree.run(0), "b")
    submission.cancel(tree, 0)
    assert not is_cancelled(tree.run(0), "b")


@pytest.mark.parametrize("text", ["", "[1]", '{"state": "cancelled"}', '{"id": "a", "st'])
def test_a_record_that_cannot_be_read_cancels_nothing(tree, text):
    tree.run(0).submission.write_text(text)
    assert not is_cancelled(tree.run(0), "a")


def test_a_start_of_a_cancelled_run_ends_at_once(tree, submission):
    """Slurm may start it once more: whatever was in the queue when the wish was written."""
    submission.cancel(tree, 0)
    placement = submission.folder(tree) / "placement.json"
    Placement("a", {}, "none", (), {}, "default", "requeue", {}).write(placement)
    argv = [sys.executable, "-m", "launcher.task", str(tree.run(0).specification), str(placement)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (75, "")
    assert "cancelled, so it does not start" in done.stdout
    assert tree.run(0).attempts() == []
    assert not tree.run(0).events.exists()
