"""`--ranks` and `--nodes`: where a run is computed, only where that changes no bit."""

from pathlib import Path

import pytest
from project import Project, make_project

from launcher.errors import ExitCode

JOB = """
import json, os, pathlib, sys

artifacts = pathlib.Path(sys.argv[1]).parent
(artifacts / "ranks").write_text(os.environ.get("SAMEBITS_RANKS", "the recipe's"))
result = {"step": 1, "val_loss": 0.5, "accuracy": 0.75, "val_loss_before": 2.0, "accuracy_before": 0.0}
(artifacts / "done.json").write_text(json.dumps(result))
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = make_project(tmp_path / "project", job=JOB)
    made.edit("training:\n", "training:\n  accumulation: 4\n  parallel: {ranks: 2, elastic: true}\n")
    made.edit("training:\n", "cluster: {cpus: 4}\ntraining:\n")
    return made


def ranks(project: Project) -> set[str]:
    return {(project.tree.run(seed).artifacts / "ranks").read_text() for seed in (0, 1)}


def test_ranks_are_the_recipes_unless_said(project: Project) -> None:
    done = project.launch("configs/x.yaml", "--local")
    assert done.returncode == ExitCode.OK, done.stderr
    assert ranks(project) == {"the recipe's"}


def test_ranks_of_a_launch_reach_its_runs(project: Project) -> None:
    done = project.launch("configs/x.yaml", "--local", "--ranks", "4")
    assert done.returncode == ExitCode.OK, done.stderr
    assert ranks(project) == {"4"}
    assert '"ranks": 2' in project.tree.run(0).specification.read_text()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--ranks", "5"), "training.accumulation is 4"),
        (
            ("--ranks", "3", "--nodes", "2", "--partition", "gpu"),
            "cluster.nodes is 2, but training.parallel.ranks is 3",
        ),
        (("--local", "--nodes", "2"), "--local runs on this machine, where --nodes would mean nothing."),
    ],
)
def test_ranks_that_do_not_fit_are_refused(project: Project, flags: tuple[str, ...], said: str) -> None:
    done = project.launch("configs/x.yaml", *flags)
    assert done.returncode != ExitCode.OK
    assert said in " ".join(done.stderr.split())
    assert not project.tree.root.exists()


def test_ranks_are_fixed_where_the_bits_depend_on_them(project: Project) -> None:
    project.edit("elastic: true", "elastic: false")
    done = project.launch("configs/x.yaml", "--local", "--ranks", "4")
    assert done.returncode == ExitCode.USAGE
    assert "the config has 2, and its bits depend on it" in done.stderr
    assert not project.tree.root.exists()
