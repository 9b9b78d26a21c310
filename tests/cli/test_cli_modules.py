"""Start-up time is a feature: which modules a command loads, seen from outside in a fresh interpreter."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, sys
from launcher.cli import main
code = main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump({"code": code, "modules": sorted(sys.modules)}, file)
"""
HEAVY = {"torch", "transformers", "peft", "docker", "wandb", "tensorboard", "numpy", "safetensors"}
MIDDLE = {"pydantic", "yaml", "submitit", "rich", "git", "filelock"}


def loaded(tmp_path, *arguments):
    report = tmp_path / "modules.json"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(report), *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert report.exists(), done.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    return found["code"], {name.split(".")[0] for name in found["modules"]}, set(found["modules"])


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["status", "--help"], ["stauts"]])
def test_help_loads_next_to_nothing(arguments, tmp_path):
    _, packages, modules = loaded(tmp_path, *arguments)
    assert not packages & (HEAVY | MIDDLE)
    assert not {name for name in modules if name.startswith("launcher.config")}


def test_a_verb_loads_no_other(tmp_path):
    _, _, modules = loaded(tmp_path, "logs", "--help")
    assert {name for name in modules if name.startswith("launcher.cli.")} == {
        "launcher.cli.boundary",
        "launcher.cli.logs",
        "launcher.cli.options",
    }
    _, _, modules = loaded(tmp_path, "--help")
    assert {name for name in modules if name.startswith("launcher.cli.")} == {"launcher.cli.boundary"}


def test_schema(tmp_path):
    code, packages, _ = loaded(tmp_path, "schema")
    assert code == 0
    assert not packages & (HEAVY | MIDDLE - {"pydantic"})


def test_the_guard_sees_what_is_loaded(tmp_path):
    """The planted breach: `schema` needs pydantic, so a list without it must be seen to fail."""
    _, packages, _ = loaded(tmp_path, "schema")
    assert packages & MIDDLE == {"pydantic"}


@pytest.mark.parametrize("arguments", [["configs/quickstart.yaml"], ["configs/quickstart.yaml", "--partition", "gpu"]])
def test_dry_run_loads_neither_torch_nor_docker(arguments, tmp_path):
    """Whatever it answers (this checkout may hold uncommitted work)."""
    code, packages, modules = loaded(tmp_path, *arguments, "--dry-run")
    assert code in (0, 4, 7)
    assert "launcher.launch" in modules
    assert not packages & HEAVY
