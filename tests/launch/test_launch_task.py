"""The task under bad luck: early signals, events that cannot be written, helpers that outlive their run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from project import JOB, Project, make_project

from jobs.rundir import RunDir
from launcher.errors import ExitCode

HELPER = """
import pathlib, subprocess, sys
subprocess.Popen(["sleep", "60"])
done = pathlib.Path(sys.argv[1]).parent / "done.json"
done.write_text('{"val_loss": 1.0, "accuracy": null, "val_loss_before": 2.0, "accuracy_before": null}')
"""


def ready(project: Project) -> tuple[RunDir, Path]:
    """An open tree whose seed 0 is to be run again: its first attempt broke on request."""
    project.launch("configs/x.yaml", HF_ENDPOINT="break")
    return project.tree.run(0), next(project.tree.submissions.glob("*/placement.json"))


def start(project: Project, run: RunDir, placement: Path) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-m", "launcher.task", str(run.specification), str(placement)]
    env = {**os.environ, "HOME": str(project.home)}
    return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until_steps(run: RunDir, count: int) -> None:
    end = time.monotonic() + 30
    while not run.ledger.exists() or len(run.ledger.read_text().splitlines()) < count:
        assert time.monotonic() < end, "no steps"
        time.sleep(0.02)


def test_a_signal_before_the_run_is_passed_on_to_it(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", job=JOB.replace("STEPS", "500"))
    run, placement = ready(project)
    task = start(project, run, placement)
    end = time.monotonic() + 30
    while run.attempts() != [1, 2]:  # taken, and the run itself is not there yet
        assert time.monotonic() < end
    task.send_signal(signal.SIGTERM)
    text, _ = task.communicate(timeout=30)
    assert task.returncode == 75, text
    assert "saved" in run.attempt_log(2).read_text()


def test_an_event_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", job=JOB.replace("STEPS", "500"))
    run, placement = ready(project)
    task = start(project, run, placement)
    until_steps(run, 3)
    run.events.unlink()
    run.events.mkdir()  # so not even root can append to it
    task.send_signal(signal.SIGTERM)
    text, _ = task.communicate(timeout=30)
    assert task.returncode == 75, text
    assert "event not written" in text
    assert "saved" in run.attempt_log(2).read_text()


def test_a_helper_that_stays_does_not_hold_the_task(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", job=HELPER)
    began = time.monotonic()
    result = project.launch("configs/x.yaml")
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - began < 45
    events = [json.loads(line) for line in project.tree.run(0).events.read_text().splitlines()]
    assert [line["exit_code"] for line in events if line["event"] == "ended"] == [0]
    subprocess.run(["pkill", "-f", "^sleep 60$"], check=False)


def test_a_stop_in_the_first_moment_of_a_local_launch_is_no_crash(tmp_path):
    """While the tasks' Pythons start, nobody could answer it: it is kept until somebody can."""
    project = make_project(tmp_path / "project", job=JOB.replace("STEPS", "3000"))
    process = project.start("configs/x.yaml", "--local")
    said = ""
    for line in process.stdout:
        said += line
        if "starts" in line:
            break
    process.send_signal(signal.SIGTERM)
    said += process.communicate(timeout=120)[0]
    assert process.returncode == ExitCode.SAVED, said
    assert "exit code" not in said
