"""The tiny project on a cluster: how tests submit it as its user, and read what became of it."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster_ground import REPOSITORY, SUDO, Cluster, until

from jobs.files import read_lines
from jobs.rundir import RunDir, Tree
from launcher.attempts import AttemptRecord, attempts

HERE = Path(__file__).resolve().parent


class Tiny:
    """A git repository of the user's with its own `jobs`, and the experiments beside it."""

    def __init__(
        self, cluster: Cluster, name: str, image: Mapping[str, Any] | None = None, more: Mapping[str, str] | None = None
    ) -> None:
        """`image`: the config's section, where it is not the host's; `more`: further files of the repository."""
        self.cluster, self.image = cluster, image
        self.folder = cluster.home / name
        cluster.run(["mkdir", self.folder], cwd=cluster.home)
        files = {f"jobs/{path.name}": path.read_text() for path in (HERE / "tiny" / "jobs").glob("*.py")}
        self.repository = cluster.project(
            f"{name}/project", {**files, "requirements.lock": click_pin(), **(more or {})}
        )
        self.driver = self.folder / "drive.py"
        cluster.write(self.driver, (HERE / "drive.py").read_text())
        self.experiments = self.folder / "experiments"

    def tree(self, name: str) -> Tree:
        return Tree(self.experiments / name)

    def run(self, name: str, seed: int = 0) -> RunDir:
        return self.tree(name).run(seed)

    def submit(
        self,
        name: str,
        recipe: Mapping[str, Any],
        seeds: Sequence[int] = (0,),
        *,
        env: Mapping[str, str] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """What drive.py printed; {} if it was killed, as it can be asked to be (`die`)."""
        die = more.pop("die", None)
        request = {
            "repository": str(self.repository),
            "name": name,
            "seeds": list(seeds),
            "recipe": recipe,
            "image": self.image,
            "slurm": more,
            "die": die,
        }
        file = self.folder / f"{name}.json"
        self.cluster.write(file, json.dumps(request))
        argv = [self.cluster.bin / "python", "-P", self.driver, file]
        done = self.cluster.run(argv, check=die is None, env=env, timeout=600)
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def attempts(self, name: str, seed: int = 0) -> list[AttemptRecord]:
        return attempts(self.run(name, seed))

    def causes(self, name: str, seed: int = 0) -> list[tuple[str | None, str | None]]:
        return [(record.cause, record.action) for record in self.attempts(name, seed)]

    def step(self, name: str, seed: int = 0) -> int:
        return sum(1 for _ in read_lines(self.run(name, seed).ledger))

    def until_step(self, name: str, step: int, seed: int = 0) -> None:
        until(lambda: self.step(name, seed) >= step, f"{name} seed {seed} has done {step} steps")

    def until_decided(self, name: str, count: int, seed: int = 0, seconds: float = 120) -> None:
        def there() -> bool:
            return sum(record.cause is not None for record in self.attempts(name, seed)) >= count

        until(there, f"{name} seed {seed} has {count} decisions", seconds)

    def until_done(self, name: str, seed: int = 0, seconds: float = 120) -> None:
        until(self.run(name, seed).done.exists, f"{name} seed {seed} is done", seconds)

    def launch(
        self, *argv: str, check: bool = True, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One of the commands of `launch` that take --experiments."""
        return self.cluster.run(["launch", *argv, "--experiments", self.experiments], check=check, env=env)

    def status(self, name: str, env: Mapping[str, str] | None = None) -> dict[int, dict[str, Any]]:
        """`launch status NAME --json`, by seed."""
        (found,) = json.loads(self.launch("status", name, "--json", env=env).stdout)["experiments"]
        return {run["seed"]: run for run in found["runs"]}

    def until_state(self, name: str, state: str, seed: int = 0, seconds: float = 120) -> dict[str, Any]:
        seen: list[dict[str, Any]] = []

        def there() -> bool:
            seen[:] = [self.status(name)[seed]]
            return seen[0]["state"] == state

        until(there, f"{name} seed {seed} is {state}", seconds)
        return seen[0]


def click_pin() -> str:
    """A lock of one package that is installed."""
    lines = (REPOSITORY / "pyproject.toml").read_text().splitlines()
    return next(line.strip(' ",') for line in lines if '"click==' in line) + "\n"


def as_root(cluster: Cluster, *argv: str) -> str:
    """A command of Slurm's administrator."""
    path = f"PATH={cluster.root}/bin:{os.environ.get('PATH', os.defpath)}"  # the cluster's own version of Slurm comes first
    argv = (*SUDO, "env", f"SLURM_CONF={cluster.root}/etc/slurm.conf", path, *argv)
    return subprocess.run(argv, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout
