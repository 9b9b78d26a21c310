"""Start-up time is a feature: which modules a command loads, seen from outside in a fresh interpreter."""

import hashlib
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
CONFIG = """\
name: tiny
seeds: [0]
model:
  architecture: {type: gpt2, settings: {n_layer: 1, n_head: 1, n_embd: 8}}
lora: null
data:
  max_length: 16
  files:
    train: {path: data/rows.jsonl, sha256: HASH}
    validation: {path: data/rows.jsonl, sha256: HASH}
training: {epochs: 1, batch_size: 1, optimizer: {lr: 1e-3}}
"""
HEAVY = {"torch", "transformers", "peft", "docker", "wandb", "tensorboard", "numpy", "safetensors"}
MIDDLE = {"pydantic", "yaml", "submitit", "rich", "git", "filelock"}


def loaded(tmp_path, *arguments, cwd=ROOT):
    report = tmp_path / "modules.json"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(report), *arguments], cwd=cwd, capture_output=True, text=True, check=False
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


@pytest.fixture
def repository(tmp_path):
    """A repository of a user's own, with one config, committed."""
    top = tmp_path / "repository"
    (top / "data").mkdir(parents=True)
    rows = b'{"prompt": "1+1=", "completion": "2"}\n'
    (top / "data" / "rows.jsonl").write_bytes(rows)
    (top / "tiny.yaml").write_text(CONFIG.replace("HASH", hashlib.sha256(rows).hexdigest()))
    (top / "requirements.lock").write_text("click==8.5.1\n")
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "a"],
    ):
        subprocess.run(["git", *command], cwd=top, check=True)
    return top


@pytest.mark.parametrize(
    ("flags", "middle"),
    [
        ([], {"pydantic", "yaml"}),
        (["--json"], {"pydantic", "yaml"}),
        (["--partition", "gpu"], {"pydantic", "yaml", "submitit"}),
    ],
)
def test_dry_run_loads_neither_torch_nor_docker(flags, middle, repository, tmp_path):
    code, packages, modules = loaded(tmp_path, "tiny.yaml", "--dry-run", *flags, cwd=repository)
    assert code == 0
    assert "launcher.launch" in modules
    assert not packages & HEAVY
    assert packages & (MIDDLE - {"git", "filelock"}) == middle


def test_dry_run_changes_nothing(repository, tmp_path):
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    assert loaded(tmp_path, "tiny.yaml", "--dry-run", "--partition", "gpu", cwd=repository)[0] == 0
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before
