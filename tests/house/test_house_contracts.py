"""The import contracts of pyproject.toml bite: each is broken on purpose in a copy of the code, and names itself."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).with_name("lint-imports")

BREACHES = {
    "The job does not know who launched it": ("jobs/loop.py", "import launcher.errors"),
    "The launcher sees of jobs what both agree on, never its training code": ("launcher/tree.py", "import jobs.errors"),
    "The launcher starts without the run's libraries": ("launcher/plan.py", "import torch"),
    "launcher: one street, no way back": ("launcher/plan.py", "import launcher.launch"),
    "jobs: one direction": ("jobs/files.py", "import jobs.checkpoint"),
    "No import goes in a circle": ("launcher/record.py", "import launcher.recover"),
    "One door to other programs": ("launcher/planning.py", "def late():\n    import subprocess"),
    "One door to submitit": ("launcher/launch.py", "import submitit"),
    "One door to git": ("launcher/tree.py", "from git import Repo"),
    "One door to YAML": ("launcher/show.py", "import yaml"),
    "One door to the command line": ("launcher/launch.py", "import click"),
    "One door to wandb": ("jobs/metrics.py", "import wandb"),
    "One door to the GPU's driver": ("jobs/run.py", "import pynvml"),
}
NEW_MODULE = ("launcher/newcomer.py", '"""A module that no layer names."""')


def contracts() -> list[str]:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [contract["name"] for contract in table["tool"]["importlinter"]["contracts"]]


def lint(folder: Path, *breaches: tuple[str, str]) -> subprocess.CompletedProcess[str]:
    """Lint a copy of the code with these lines added."""
    for package in ("launcher", "jobs"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for path, line in breaches:
        with (folder / path).open("a") as file:
            file.write(f"\n{line}\n")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    argv = [str(LINT), "--no-cache"]
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_every_contract_has_a_breach():
    assert contracts() == list(BREACHES)


def test_the_code_as_it_stands_keeps_them_all(tmp_path):
    done = lint(tmp_path)
    assert done.returncode == 0, done.stdout
    assert f"Contracts: {len(BREACHES)} kept, 0 broken." in done.stdout


@pytest.mark.parametrize("name", BREACHES)
def test_a_planted_breach_is_seen(name, tmp_path):
    done = lint(tmp_path, BREACHES[name])
    assert done.returncode == 1, done.stdout
    assert f"{name} BROKEN" in done.stdout


def test_a_module_that_no_layer_names_is_seen(tmp_path):
    done = lint(tmp_path, NEW_MODULE)
    assert done.returncode == 1, done.stdout
    assert "launcher.newcomer" in done.stdout.replace("\n", "")
