"""Doors that no import shows: torch.save and torch.load, the environment, pickles, what a node's programs load first."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for package in ("launcher", "jobs") for path in (ROOT / package).rglob("*.py"))

DOORS = {
    "torch.save": {"jobs/checkpoint.py"},
    "torch.load": {"jobs/checkpoint.py"},
    "os.environ": {
        "launcher/process.py",  # hands it on to programs
        "launcher/cli/__init__.py",  # flags that are variables
        "launcher/cli/boundary.py",  # where the log of a bug goes
        "launcher/site.py",  # SAMEBITS_SITE
        "launcher/launch.py",  # where the hub's cache is
        "launcher/submit.py",
        "launcher/task.py",  # the allow-list of the run
        "launcher/nodes.py",  # which of its job's nodes this one is
        "launcher/arbiter.py",  # what Slurm says of this attempt
        "launcher/engines/contained.py",  # where an engine's client finds its engine
        "launcher/engines/docker_sdk.py",
        "launcher/engines/docker_keeper.py",  # what it is to start
        "launcher/engines/apptainer_keeper.py",
        "launcher/engines/apptainer_inner.py",
        "launcher/engines/apptainer_program.py",  # where Apptainer finds its own programs
        "launcher/engines/apptainer_sif.py",  # where a build has space
        "jobs/__main__.py",  # what the task says to the run
        "jobs/layout.py",  # where the ranks are
        "jobs/spawn.py",  # which rank each one is
        "jobs/rendezvous.py",  # the interface that gloo and NCCL take
        "jobs/facts.py",  # versions and threads
        "jobs/provenance.py",
        "jobs/machine.py",  # what Slurm says of the job
        "jobs/origin.py",  # where PYTHONPATH led to
        "jobs/conda.py",
        "jobs/trackers/wandb.py",
    },
    "os.system": set(),
    "os.popen": set(),
    "pickle.load": set(),
    "pickle.loads": set(),
}


def uses(source: str) -> dict[str, list[ast.AST]]:
    """Each dotted name of the source that starts with a plain name, `os.environ.get` as `os.environ` too."""
    found: dict[str, list[ast.AST]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.setdefault(f"{node.value.id}.{node.attr}", []).append(node)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found.setdefault(f"{node.module}.{alias.name}", []).append(node)
    return found


def outside(name: str, sources: dict[str, str]) -> list[str]:
    return [path for path, source in sources.items() if name in uses(source) and path not in DOORS[name]]


def loads_unsafely(source: str) -> list[int]:
    """Lines that call torch.load without weights_only=True: a checkpoint must not be able to run code."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            safe = [key for key in node.keywords if key.arg == "weights_only" and ast.unparse(key.value) == "True"]
            lines += [] if safe else [node.lineno]
    return lines


@pytest.fixture(scope="module")
def sources():
    return {str(path.relative_to(ROOT)): path.read_text() for path in FILES}


@pytest.mark.parametrize("name", DOORS)
def test_one_door(name, sources):
    assert outside(name, sources) == []


@pytest.mark.parametrize("name", DOORS)
def test_a_second_door_is_seen(name, sources):
    module, _, attribute = name.partition(".")
    for line in (f"import {module}\n{module}.{attribute}\n", f"from {module} import {attribute}\n"):
        assert outside(name, {**sources, "jobs/loop.py": line}) == ["jobs/loop.py"]


@pytest.mark.parametrize("name", [name for name, doors in DOORS.items() if doors])
def test_no_door_is_named_that_is_none(name, sources):
    assert {path for path, source in sources.items() if name in uses(source)} == DOORS[name]


def test_checkpoints_are_loaded_as_weights_only(sources):
    assert {path: lines for path, source in sources.items() if (lines := loads_unsafely(source))} == {}
    assert loads_unsafely("torch.load(file)\ntorch.load(file, weights_only=False)\n") == [1, 2]


@pytest.mark.parametrize(
    "module", ["launcher.task", "launcher.arbiter", "launcher.placement", "launcher.engines", "jobs.contract"]
)
def test_what_starts_on_a_node_needs_the_standard_library_only(module):
    program = f"""
import sys
before = set(sys.modules)
import {module}
roots = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(roots - set(sys.stdlib_module_names) - {{"launcher", "jobs"}}))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
