"""The frozen tree: written once, whole, by one of many; and refused when it is not what it was."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import JOB, Project, make_project

from launcher.errors import ExitCode


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project", job=JOB.replace("STEPS", "3"))


def test_a_whole_tree(project: Project) -> None:
    result = project.launch("configs/x.yaml")
    assert result.returncode == ExitCode.OK, result.stderr
    tree = project.tree
    assert stat.S_IMODE(tree.config.stat().st_mode) == 0o444
    assert {path.name for path in tree.root.iterdir()} == {"config.yaml", "checkpoints", "logs", "metrics", "artifacts"}
    for seed in (0, 1):
        run = tree.run(seed)
        specification = json.loads(run.specification.read_text())
        assert specification["seed"] == seed
        assert specification["commit"] == project.git("rev-parse", "HEAD").strip()
        assert specification["image"]["code"] == "git-tree:" + project.git("rev-parse", "HEAD^{tree}").strip()
        assert run.done.exists()
        code = str(project.store / "code")
        assert code in run.attempt_log(1).read_text()
    assert "mean" in result.stdout
    assert "2 seeds" in result.stdout
    assert "launch status tiny" in result.stdout
    assert subprocess.run([*next_command(result.stdout)], cwd=project.folder, check=False).returncode == 0


def next_command(text: str) -> list[str]:
    """What is printed as the next command, as a person would paste it."""
    return next(line.split() for line in text.splitlines() if " status " in line)


def test_the_same_again_has_nothing_to_do(project: Project) -> None:
    project.launch("configs/x.yaml")
    before = project.files()
    result = project.launch("configs/x.yaml")
    assert result.returncode == ExitCode.OK
    assert "Nothing to do" in result.stdout
    assert project.files() == before


def test_a_dry_run_changes_nothing(project: Project) -> None:
    everything = sorted(project.folder.parent.rglob("*"))
    for arguments in ((), ("--partition", "gpu"), ("--json",)):
        result = project.launch("configs/x.yaml", "--dry-run", *arguments)
        assert result.returncode == ExitCode.OK, result.stderr
    plan = json.loads(result.stdout)
    assert [run["seed"] for run in plan["runs"]] == [0, 1]
    assert plan["runs"][0]["specification"]["recipe"]["training"]["optimizer"]["lr"] == 1e-3
    assert sorted(project.folder.parent.rglob("*")) == everything


def test_another_config_of_that_name(project: Project) -> None:
    project.launch("configs/x.yaml")
    project.edit("lr: 1e-3", "lr: 1e-2")
    before = project.files()
    result = project.launch("configs/x.yaml")
    assert result.returncode == ExitCode.TREE
    assert "training.optimizer.lr: 0.001 -> 0.01" in result.stderr
    assert project.files() == before


def test_another_commit(project: Project) -> None:
    """R24: code does not change under an experiment that is not done."""
    assert project.launch("configs/x.yaml", HF_ENDPOINT="break").returncode == ExitCode.RUN
    began = project.git("rev-parse", "HEAD").strip()
    (project.folder / "new.py").touch()
    project.git("add", "-A")
    project.git("commit", "-qm", "more")
    result = project.launch("configs/x.yaml")
    assert result.returncode == ExitCode.TREE
    assert f"git switch --detach {began}" in result.stderr
    project.git("switch", "-q", "--detach", began)
    assert project.launch("configs/x.yaml").returncode == ExitCode.OK


def test_another_commit_when_all_is_done(project: Project) -> None:
    """One repository holds many configs: a commit for another one is no reason to refuse what is finished."""
    project.launch("configs/x.yaml")
    (project.folder / "new.py").touch()
    project.git("add", "-A")
    project.git("commit", "-qm", "more")
    result = project.launch("configs/x.yaml")
    assert result.returncode == ExitCode.OK, result.stderr
    assert "Nothing to do" in result.stdout


def test_a_config_that_git_was_told_not_to_look_at(project: Project) -> None:
    """R16: what runs is what is committed, also where no status shows the difference."""
    project.git("update-index", "--assume-unchanged", "configs/x.yaml")
    project.edit("lr: 1e-3", "lr: 1e-2", commit=False)
    assert not project.git("status", "--porcelain")
    result = project.launch("configs/x.yaml")
    assert result.returncode == ExitCode.SOURCE
    assert "not the one that is committed" in result.stderr


def test_a_config_edited_in_the_tree(project: Project) -> None:
    project.launch("configs/x.yaml")
    project.tree.config.chmod(0o644)
    project.tree.config.write_text(project.tree.config.read_text().replace("batch_size: 2", "batch_size: 4"))
    result = project.launch("configs/x.yaml")
    assert result.returncode == ExitCode.TREE
    assert "batch_size" in result.stderr


def test_many_launchers_at_once(project: Project) -> None:
    """One tree, one attempt a seed, no torn file, nothing left over."""
    launches = [project.start("configs/x.yaml") for _ in range(6)]
    outputs = [launch.communicate(timeout=120)[0] for launch in launches]
    assert all("Traceback" not in text for text in outputs), outputs
    assert [launch.returncode for launch in launches] == [0] * 6, outputs
    for seed in (0, 1):
        assert project.tree.run(seed).attempts() == [1]
        json.loads(project.tree.run(seed).specification.read_text())
    assert not list(project.folder.rglob("*.tmp"))
    assert not list(project.store.rglob("*.tmp"))


def test_uncommitted_changes_are_kept_and_marked(project: Project) -> None:
    (project.folder / "jobs" / "extra.py").write_text("x = 1\n")
    assert project.launch("configs/x.yaml").returncode == ExitCode.SOURCE
    result = project.launch("configs/x.yaml", "--allow-dirty")
    assert result.returncode == ExitCode.OK, result.stderr
    assert "NOT REPRODUCIBLE" in result.stdout
    assert "jobs/extra.py" in project.tree.patch.read_text()
    assert json.loads(project.tree.run(0).specification.read_text())["dirty"] is True
    assert "NOT REPRODUCIBLE" in project.launch("status", "tiny").stdout


def test_a_flipped_byte_in_the_store(project: Project) -> None:
    """The node's check, not the launcher's: the byte is flipped between the two."""
    project.launch("configs/x.yaml")
    tree = project.git("rev-parse", "HEAD^{tree}").strip()
    victim = project.store / "code" / tree / "configs" / "x.yaml"
    victim.chmod(0o644)
    victim.write_text(victim.read_text().replace("tiny", "tinz"))
    run = project.tree.run(0)
    run.done.unlink()
    placement = next(project.tree.submissions.glob("*/placement.json"))
    env = {**os.environ, "HOME": str(project.home)}
    argv = [sys.executable, "-m", "launcher.task", str(run.specification), str(placement)]
    result = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 78
    assert tree in result.stdout
    assert "The code has the hash" in run.attempt_log(2).read_text()
    assert not run.done.exists()
    again = project.launch("configs/x.yaml")
    assert again.returncode == ExitCode.IMAGE
    assert "rm -r" in again.stderr


def test_a_broken_run(project: Project) -> None:
    result = project.launch("configs/x.yaml", HF_ENDPOINT="break")
    assert result.returncode == ExitCode.RUN
    assert "broken on request" in result.stderr
    assert str(project.tree.run(0).attempt_log(1)) in result.stderr
    assert "Traceback" not in result.stderr
    assert project.launch("configs/x.yaml").returncode == ExitCode.OK


def wait_for(project: Project, seed: int, steps: int = 3) -> None:
    """Until a run has done some steps."""
    ledger = project.tree.run(seed).ledger
    end = time.monotonic() + 30
    while not ledger.exists() or len(ledger.read_text().splitlines()) < steps:
        assert time.monotonic() < end, "the run did not start"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_continued(tmp_path: Path, number: int) -> None:
    project = make_project(tmp_path / "project", job=JOB.replace("STEPS", "150"))
    launch = project.start("configs/x.yaml")
    wait_for(project, 0)
    launch.send_signal(number)
    text, _ = launch.communicate(timeout=60)
    assert launch.returncode == ExitCode.SAVED, text
    assert "The same command goes on" in text
    result = project.launch("configs/x.yaml")
    assert result.returncode == ExitCode.OK, result.stderr
    run = project.tree.run(0)
    steps = [json.loads(line)["step"] for line in run.ledger.read_text().splitlines()]
    assert steps == list(range(1, 151))
    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    assert [e["exit_code"] for e in events if e["event"] == "ended"] == [75, 0]
    assert [e["cause"] for e in events if e["event"] == "decided"] == ["interrupted", "done"]


def test_a_killed_launcher_takes_its_runs_along(tmp_path: Path) -> None:
    """SIGKILL of the launcher: the runs are asked to save, and the same command goes on."""
    project = make_project(tmp_path / "project", job=JOB.replace("STEPS", "400"))
    launch = project.start("configs/x.yaml")
    wait_for(project, 0)
    launch.kill()
    launch.communicate(timeout=30)
    run = project.tree.run(0)
    end = time.monotonic() + 30
    while "ended" not in run.events.read_text():
        assert time.monotonic() < end, "the run outlived its launcher"
        time.sleep(0.05)
    assert "saved" in run.attempt_log(1).read_text()


def test_a_second_launcher_leaves_running_seeds_alone(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", job=JOB.replace("STEPS", "150"))
    first = project.start("configs/x.yaml")
    wait_for(project, 0)
    second = project.launch("configs/x.yaml")
    assert "under way already" in second.stdout
    assert second.returncode == ExitCode.OK
    first.communicate(timeout=60)
    assert first.returncode == ExitCode.OK
    assert project.tree.run(0).attempts() == [1]
