"""The main job for real, on this machine: it learns, its tree is complete, and stopping it changes no bit."""

import json
import re
import signal
import stat
import time
from pathlib import Path

import pytest
import torch
from project import Project, snapshot
from same_bits import assert_same_run

from jobs.ledger import broken_link, steps
from jobs.rundir import RunDir, Tree
from launcher.errors import ExitCode

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return snapshot(tmp_path_factory.mktemp("quickstart") / "project")


@pytest.fixture(scope="module")
def finished(project: Project) -> tuple[Tree, str]:
    """The tree of a whole quickstart, and what it printed."""
    result = project.launch("configs/quickstart.yaml", timeout=400)
    assert result.returncode == ExitCode.OK, result.stdout + result.stderr
    return Tree(project.folder / "experiments" / "quickstart"), result.stdout


def lines(run: RunDir, kind: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


@pytest.mark.parametrize("seed", SEEDS)
def test_it_learns(finished: tuple[Tree, str], seed: int) -> None:
    done = json.loads(finished[0].run(seed).done.read_text())
    assert done["accuracy_before"] < 0.05
    assert done["accuracy"] > 0.9
    assert done["val_loss"] < done["val_loss_before"] / 4


def test_it_says_where_everything_is(finished: tuple[Tree, str]) -> None:
    tree, text = finished
    assert str(tree.root) in text
    assert "launch status quickstart" in text
    assert "3 seeds" in text


@pytest.mark.parametrize("seed", SEEDS)
def test_the_tree_is_complete(finished: tuple[Tree, str], project: Project, seed: int) -> None:
    """R6 to R8, R11, R18 to R22, R27: what must be there, of every seed."""
    tree, _ = finished
    run = tree.run(seed)
    assert stat.S_IMODE(tree.config.stat().st_mode) == 0o444
    epochs = json.loads(run.specification.read_text())["recipe"]["training"]["epochs"]
    evaluations, steps = lines(run, "evaluation"), lines(run, "train")
    assert [line["epoch"] for line in evaluations] == list(range(epochs + 1))
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    for line in evaluations[1:]:
        assert line["train_loss"] is not None
        assert line["val_loss"] is not None
        assert line["epoch_seconds"] > 0
        assert line["gpu_utilization"] is not None or line["gpu_reason"]
    assert all(line["lr"] >= 0 and line["tokens_per_second"] > 0 for line in steps)
    assert len(run.ledger.read_text().splitlines()) == len(steps)
    assert broken_link(run.ledger) is None
    assert list((run.metrics / "tensorboard").glob("events*"))
    provenance = json.loads(run.provenance.read_text())
    assert project.git("rev-parse", "HEAD").strip() in json.dumps(provenance)
    assert "torch==" in (run.artifacts / "pip-freeze.txt").read_text()


@pytest.mark.parametrize("seed", SEEDS)
def test_checkpoints_hold_what_they_must(finished: tuple[Tree, str], seed: int) -> None:
    run = finished[0].run(seed)
    names = [path.name for path in run.checkpoints.glob("*.pt")]
    assert any(re.fullmatch(r"quickstart_epoch\d+_loss\d+\.\d{4}\.pt", name) for name in names)
    assert (run.checkpoints / "best").is_symlink()
    state = torch.load(run.checkpoints / "latest", weights_only=True)
    assert {"model", "optimizer", "epoch", "loss", "seed", "config"} <= state.keys()
    assert state["seed"] == seed
    assert state["config"]["training"]["optimizer"]["lr"] > 0


def test_stopped_thrice_it_is_the_same_run(finished: tuple[Tree, str], tmp_path: Path) -> None:
    """One seed of it in another clone: asked to stop twice, its launcher killed once."""
    other = snapshot(tmp_path / "project")
    other.edit("seeds: [0, 1, 2]", "seeds: [0]")
    run = Tree(other.folder / "experiments" / "quickstart").run(0)
    for number in (signal.SIGINT, signal.SIGKILL, signal.SIGTERM):
        reached = steps(run.ledger)
        launch = other.start("configs/quickstart.yaml")
        wait_for_steps(run, reached + 40)
        launch.send_signal(number)
        launch.communicate(timeout=60)
        wait_for_end(run)
    result = other.launch("configs/quickstart.yaml", timeout=400)
    assert result.returncode == ExitCode.OK, result.stdout + result.stderr
    assert len(run.attempts()) == 4
    assert_same_run(finished[0].run(0), run)


def wait_for_steps(run: RunDir, wanted: int) -> None:
    end = time.monotonic() + 120
    while steps(run.ledger) < wanted:
        assert time.monotonic() < end, "the run makes no steps"
        time.sleep(0.1)


def wait_for_end(run: RunDir) -> None:
    """Until the last attempt said how it ended: a killed launcher's runs still save."""
    end = time.monotonic() + 60
    while run.events.read_text().count('"ended"') < len(run.attempts()):
        assert time.monotonic() < end, "the run outlived its launcher"
        time.sleep(0.1)


def test_the_folder_of_trees_does_not_matter(finished: tuple[Tree, str], tmp_path: Path) -> None:
    """A finished run knows that it is finished wherever its tree lies, and started by hand."""
    import shutil
    import subprocess
    import sys

    shutil.copytree(finished[0].root, tmp_path / "quickstart", symlinks=True)
    specification = tmp_path / "quickstart" / "artifacts" / "seed-0" / "run.json"
    result = subprocess.run(
        [sys.executable, "-m", "jobs", str(specification)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "done already" in result.stdout
