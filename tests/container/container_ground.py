"""A real Docker engine, registry and Apptainer beside a real Slurm, and how tests drive them: as the cluster's ordinary user."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cluster_ground import SUDO, Cluster, start_cluster


class Containers(Cluster):
    """A cluster with `docker` and `apptainer` on its user's PATH, in jobs as well."""

    @property
    def base(self) -> str:
        """The base image, `127.0.0.1:PORT/base@sha256:...`: a Debian with this machine's Python and nothing besides."""
        return (self.root / "base").read_text().strip()

    @property
    def registry(self) -> str:
        """`127.0.0.1:PORT`."""
        return self.base.partition("/")[0]

    @property
    def images(self) -> Path:
        """What the registry keeps, root's: blobs/ and repositories/."""
        return self.root / "images" / "registry" / "docker" / "registry" / "v2"

    @property
    def site(self) -> Path:
        """The profile that `launch` uses there."""
        return self.root / "site.yaml"

    def docker(self, *argv: str | Path, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """`docker ARGV` as the user; `more` is `run`'s."""
        return self.run(["docker", *argv], check=check, **{"cwd": self.home, **more})

    def apptainer(self, *argv: str | Path, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """`apptainer ARGV` as the user; `more` is `run`'s."""
        return self.run(["apptainer", "--silent", *argv], check=check, **{"cwd": self.home, **more})

    def submit(self, script: str, *options: str, env: Mapping[str, str] | None = None) -> str:
        """Submit a batch script of bash lines to partition gpu. Returns the job's id; `output(job)` is what it says."""
        argv = ["sbatch", "--parsable", "-o", self.home / "job-%j.out", *options, "--wrap", script]
        return self.run(argv, cwd=self.home, env=env).stdout.strip()

    def output(self, job: str) -> str:
        path = self.home / f"job-{job}.out"
        return path.read_text() if path.exists() else ""

    def in_job(self, script: str, *options: str, seconds: float = 90) -> str:
        """What bash lines say on a node. Fails unless they end with 0."""
        job = self.submit(script, *options)
        ended = self.wait(job, ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"), seconds)
        if ended["JobState"] != "COMPLETED":
            pytest.fail(f"job {job} is {ended['JobState']} ({ended['ExitCode']}):\n{self.output(job)}")
        return self.output(job)

    def leftovers(self, *names: str) -> list[str]:
        """What is left of runs on this machine: containers, running or not, and processes, in containers or not, whose name,
        command line or environment holds one of these texts. A line each, for people; empty when nothing is left."""
        asked = ["ps", "--all", "--no-trunc", "--format", "{{.Names}} {{.Status}} {{.Command}} {{.Labels}}"]
        found = [f"container {line}" for line in self.docker(*asked).stdout.splitlines()]
        shown = subprocess.run(
            [*SUDO, "ps", "axeww", "-o", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True
        )
        rows = [line.split(None, 3) for line in shown.stdout.splitlines()]
        above = _above(os.getpid(), {row[0]: row[1] for row in rows})
        found += [
            f"process {pid} {text}" for pid, _, state, text in rows if not state.startswith("Z") and pid not in above
        ]
        return [line for line in found if any(name in line for name in names)]

    def clear_containers(self) -> None:
        """Remove every container; images stay."""
        if left := self.docker("ps", "--all", "--quiet").stdout.split():
            self.docker("rm", "--force", "--volumes", *left, check=False)


def _above(pid: int, parents: Mapping[str, str]) -> set[str]:
    """This process and those that it was started by."""
    found, here = set(), str(pid)
    while here in parents and here not in found:
        found.add(here)
        here = parents[here]
    return found


def start_containers(name: str, *options: str) -> Containers:
    """Start a cluster with containers; see start_cluster."""
    made = start_cluster(name, "--containers", *options)
    return Containers(made.root, made.user)
