"""An experiment is one commit: what is not finished goes on where it began, whatever is checked out by now."""

import json
import signal
import time
from pathlib import Path

import pytest
from project import JOB, Project, make_project

from launcher.errors import ExitCode


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Stopped in the middle of seed 0, seed 1 not started; then the code changed, and so much that it could not run."""
    made = make_project(tmp_path / "project", job=JOB.replace("STEPS", "60"))
    stop(made)
    (made.folder / "jobs" / "__main__.py").write_text("raise SystemExit('other code')")
    made.git("commit", "-qam", "other code")
    return made


def stop(project: Project, *arguments: str) -> None:
    launch = project.start("configs/x.yaml", *arguments, HF_ENDPOINT="")
    end = time.monotonic() + 60
    while not project.tree.run(0).ledger.exists():
        assert time.monotonic() < end, "no steps"
        time.sleep(0.02)
    launch.send_signal(signal.SIGTERM)
    text, _ = launch.communicate(timeout=60)
    assert launch.returncode == ExitCode.SAVED, text
    assert not project.tree.run(0).done.exists()


def commit(project: Project, which: str = "HEAD") -> str:
    return project.git("rev-parse", which).strip()


def test_it_goes_on_at_its_own_commit(project: Project) -> None:
    began, now = commit(project, "HEAD~"), commit(project)
    result = project.launch("configs/x.yaml")
    assert result.returncode == ExitCode.OK, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if "goes on at commit" in line]
    assert began[:12] in line
    assert now[:12] in line
    assert "new name" in line
    for seed in (0, 1):
        run = project.tree.run(seed)
        assert json.loads(run.specification.read_text())["commit"] == began
        assert run.done.exists()
        log = run.attempt_log(max(run.attempts())).read_text()
        assert str(project.store / "code" / commit(project, "HEAD~^{tree}")) in log
    assert "from step 0" not in project.tree.run(0).attempt_log(2).read_text()
    assert not (project.store / "code" / commit(project, "HEAD^{tree}")).exists()
    assert "Nothing to do" in project.launch("configs/x.yaml").stdout


def test_a_dry_run_says_so(project: Project) -> None:
    plan = json.loads(project.launch("configs/x.yaml", "--dry-run", "--json").stdout)
    assert plan["commit"] == commit(project, "HEAD~")
    assert "goes on at commit" in plan["notes"][0]


def test_a_new_name_is_the_code_of_now(project: Project) -> None:
    project.edit("name: tiny", "name: tiny2")
    result = project.launch("configs/x.yaml")
    assert result.returncode == ExitCode.RUN
    assert "other code" in result.stderr


def test_a_commit_that_is_gone(project: Project) -> None:
    began = commit(project, "HEAD~")
    branch = project.git("branch", "--show-current").strip()
    project.git("checkout", "-q", "--orphan", "fresh")
    project.git("commit", "-qm", "without a past")
    project.git("branch", "-qD", branch)
    project.git("reflog", "expire", "--expire=now", "--all")
    project.git("gc", "-q", "--prune=now")
    before = project.files()
    result = project.launch("configs/x.yaml")
    assert result.returncode == ExitCode.TREE
    assert began in result.stderr
    assert "git fetch" in result.stderr
    assert project.files() == before


def test_uncommitted_changes_are_not_passed_by(project: Project) -> None:
    """They would not be in the run, and who launches with them means them to be."""
    (project.folder / "jobs" / "more.py").touch()
    before = project.files()
    assert project.launch("configs/x.yaml").returncode == ExitCode.SOURCE
    result = project.launch("configs/x.yaml", "--allow-dirty")
    assert result.returncode == ExitCode.TREE
    assert "uncommitted changes" in result.stderr
    assert project.files() == before


def test_what_began_with_uncommitted_changes_cannot_be_found_again(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", job=JOB.replace("STEPS", "60"))
    (project.folder / "more.py").touch()
    stop(project, "--allow-dirty")
    project.git("add", "-A")
    project.git("commit", "-qm", "more")
    result = project.launch("configs/x.yaml")
    assert result.returncode == ExitCode.TREE
    assert "uncommitted changes" in result.stderr


def test_another_image_than_the_one_it_began_with(project: Project) -> None:
    """What was there then is not there any more: here, the interpreter."""
    for seed in (0, 1):
        specification = project.tree.run(seed).specification
        value = json.loads(specification.read_text())
        value["image"]["python"] = "3.0.1"
        specification.chmod(0o644)
        specification.write_text(json.dumps(value))
    before = project.files()
    result = project.launch("configs/x.yaml")
    assert result.returncode == ExitCode.IMAGE
    assert "python: 3.0.1 -> 3." in result.stderr
    assert "launch image import" in result.stderr
    assert project.files() == before
