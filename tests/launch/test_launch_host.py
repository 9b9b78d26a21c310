"""The host engine's isolation: what a run is given, and that nothing else reaches it."""

import json
import sys
from pathlib import Path

from project import Project, make_project

from jobs.contract import ImagePin
from launcher.engines import NodeOptions, host

SHOW = """
import json, os, site, sys, pathlib
specification = pathlib.Path(sys.argv[1])
(specification.parent / "seen.json").write_text(json.dumps(
    {"env": dict(os.environ), "path": sys.path, "user": site.ENABLE_USER_SITE, "argv": sys.argv[1:]}))
(specification.parent / "done.json").write_text(json.dumps(
    {"val_loss": 1.0, "accuracy": None, "val_loss_before": 2.0, "accuracy_before": None}))
"""


def seen(project: Project, **env: str) -> dict[str, dict[str, str]]:
    """What a run of seed 0 saw of the world."""
    result = project.launch("configs/x.yaml", **env)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads((project.tree.run(0).artifacts / "seen.json").read_text())


def test_only_what_is_allowed_reaches_a_run(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", job=SHOW)
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "peft.py").touch()
    found = seen(
        project,
        PYTHONPATH=str(planted),
        PYTHONSTARTUP="x",
        AWS_SECRET_ACCESS_KEY="s3cret",  # noqa: S106 - planted
        MY_LEARNING_RATE="1",
        WANDB_API_KEY="k3y",
    )
    env = found["env"]
    assert "AWS_SECRET_ACCESS_KEY" not in env
    assert "MY_LEARNING_RATE" not in env
    assert "PYTHONSTARTUP" not in env
    assert env["WANDB_API_KEY"] == "k3y"
    assert env["HOME"] != str(project.home)
    assert env["HF_HOME"] == str(project.home / ".cache" / "huggingface")
    assert str(planted) not in found["path"]
    assert found["path"][0].startswith(str(project.store / "code"))
    assert found["user"] is False
    # A key reaches the run, and no record of it.
    for path in project.tree.root.rglob("*"):
        if path.is_file() and path.name != "seen.json":
            assert b"k3y" not in path.read_bytes(), path


def test_a_users_own_cache_of_weights_counts_more(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", job=SHOW)
    assert seen(project, HF_HOME="/shared/weights")["env"]["HF_HOME"] == "/shared/weights"


def test_a_missing_code_folder_is_named(tmp_path: Path) -> None:
    pin = ImagePin("host", "sha256:" + "0" * 64, "git-tree:" + "1" * 40, sys.version.split()[0])
    said = [str(problem) for problem in host.verify(pin, NodeOptions(tmp_path))]
    assert any("The code is not in the store" in line for line in said)
    assert any("The lock cannot be read" in line for line in said)


def test_another_python_is_refused(tmp_path: Path) -> None:
    pin = ImagePin("host", "sha256:" + "0" * 64, "git-tree:" + "1" * 40, "3.9.1")
    assert any("pinned to 3.9.1" in str(problem) for problem in host.verify(pin, NodeOptions(tmp_path)))
