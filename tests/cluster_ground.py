"""A real four-node Slurm under test, and how tests drive it: as its ordinary user, through slurm/testcluster."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

Answer = TypeVar("Answer")

REPOSITORY = Path(__file__).resolve().parents[1]
TESTCLUSTER = REPOSITORY / "slurm" / "testcluster"
SUDO = [] if os.geteuid() == 0 else ["sudo", "-n", "--"]
GRACE = 90
"""Seconds that tests leave a preempted run to save and to be decided about. Nothing waits for them to pass."""
ROOTS = Path("/var/tmp")
PREFIX = "samebits-test-"
"""Followed by the process id of the session that owns it, so that what a killed session left is known for what it is."""


def call(*argv: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Call slurm/testcluster as root. A failure is an error of the test session, with what it said."""
    if SUDO and shutil.which("sudo") is None:
        pytest.fail(
            "the cluster's tests must run as root, or with a sudo that asks no password; there is no sudo here."
        )
    command = [*SUDO, sys.executable, str(TESTCLUSTER), *argv]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=timeout
    )
    if check and done.returncode != 0:
        pytest.fail(f"$ {shlex.join(command)}\nexit code {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)
    return done


def until(probe: Callable[[], Answer], what: str, seconds: float = 120) -> Answer:
    """Ask until the answer is true, and return it. Fails with the last answer."""
    end = time.monotonic() + seconds
    while not (answer := probe()):
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {what}. Last answer: {answer!r}")
        time.sleep(0.1)
    return answer


@dataclass(frozen=True)
class Cluster:
    """One running cluster. Every command runs as its ordinary user, with no standard input."""

    root: Path
    user: str

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def repository(self) -> Path:
        """The user's clone of this repository, as its work tree stood when the session began."""
        return self.home / "project"

    @property
    def bin(self) -> Path:
        """The user's environment: `launch`, `python`."""
        return self.root / "venv" / "bin"

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; in the clone of the repository unless `cwd` says otherwise. `env` is added."""
        return subprocess_of(self, argv, cwd, env, check=check, timeout=timeout)

    def popen(self, argv: Sequence[str | Path], *, cwd: Path | None = None, **options: object) -> subprocess.Popen[str]:
        """Start a program and do not wait; `options` are those of subprocess.Popen. Its signals are the test's to send."""
        return subprocess.Popen(command_of(self, argv, cwd, None), text=True, **options)

    def scontrol(self, *argv: str) -> str:
        return self.run(["scontrol", *argv]).stdout

    def squeue(self, *argv: str) -> str:
        return self.run(["squeue", *argv]).stdout

    def job(self, job: str) -> dict[str, str]:
        """The fields of `scontrol show job`, of the first task where it is an array's; empty once Slurm has forgotten it."""
        done = self.run(["scontrol", "-o", "show", "job", job], check=False)
        line = next(iter(done.stdout.splitlines()), "")
        return dict(re.findall(r"(\S+?)=(\S*)", line))

    def wait(self, job: str, states: str | Sequence[str], seconds: float = 180) -> dict[str, str]:
        """Wait until a job is in one of these states. Returns its fields."""
        wanted = {states} if isinstance(states, str) else set(states)
        seen: list[dict[str, str]] = []

        def there() -> bool:
            seen[:] = [self.job(job)]
            return seen[0].get("JobState") in wanted

        until(there, f"job {job} is {' or '.join(sorted(wanted))}", seconds)
        return seen[0]

    def preempt(self, nodes: str | int = "all", *, seconds: float = 180) -> str:
        """Take nodes away from partition `gpu`: a job in `high` that wants them whole. Returns its id once it runs.

        `nodes`: how many, "all", or names as Slurm writes them (`n1,n3`)."""
        wanted = ["-N4"] if nodes == "all" else [f"-N{nodes}"] if isinstance(nodes, int) else ["-w", nodes]
        argv = ["sbatch", "--parsable", "-p", "high", "--exclusive", "-J", "taker", "-o", "/dev/null", *wanted]
        job = self.run([*argv, "--wrap", "exec sleep 100000"], cwd=self.home).stdout.strip()
        self.wait(job, "RUNNING", seconds)
        return job

    def release(self) -> None:
        """Give back what `preempt` took. Returns once the nodes are free."""
        self._cancel("-n", "taker")

    def clear(self) -> None:
        """End every job."""
        self._cancel("-u", self.user)

    def _cancel(self, *which: str) -> None:
        self.run(["scancel", *which])
        self.run(["scancel", "--full", "-s", "KILL", *which], check=False)
        until(lambda: not self.squeue("-h", *which).strip(), f"scancel {shlex.join(which)}")

    def project(self, name: str, files: Mapping[str, str]) -> Path:
        """A fresh git repository of the user's at home/NAME, with these files in its one commit."""
        folder = self.home / name
        self.run(["mkdir", folder], cwd=self.home)
        for path, text in files.items():
            self.write(folder / path, text)
        self.run(["git", "init", "-q", "--initial-branch=main"], cwd=folder)
        self.run(["git", "config", "user.name", self.user], cwd=folder)
        self.run(["git", "config", "user.email", f"{self.user}@localhost"], cwd=folder)
        self.commit(folder, "first")
        return folder

    def write(self, path: Path, text: str) -> None:
        """Write a file of the user's, with its folder."""
        self.run(["mkdir", "-p", path.parent], cwd=self.home)
        self.run(
            [self.bin / "python", "-c", f"import sys; open(sys.argv[1], 'w').write({text!r})", path], cwd=self.home
        )

    def commit(self, folder: Path, message: str) -> str:
        """Commit everything in one of the user's repositories. Returns the commit."""
        self.run(["git", "add", "-A"], cwd=folder)
        self.run(["git", "commit", "-qm", message], cwd=folder)
        return self.run(["git", "rev-parse", "HEAD"], cwd=folder).stdout.strip()


def command_of(
    cluster: Cluster, argv: Sequence[str | Path], cwd: Path | None, env: Mapping[str, str] | None
) -> list[str]:
    place = [] if cwd is None else ["--chdir", str(cwd)]
    given = ["env", *(f"{name}={value}" for name, value in env.items())] if env else []
    start = [*SUDO, sys.executable, str(TESTCLUSTER), "run", "--root", str(cluster.root), "--keep", *place, "--"]
    return [*start, *given, *map(str, argv)]


def subprocess_of(
    cluster: Cluster,
    argv: Sequence[str | Path],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    *,
    check: bool,
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command_of(cluster, argv, cwd, env),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )
    if check and done.returncode != 0:
        shown = shlex.join(map(str, argv))
        pytest.fail(f"$ {shown}\nexit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def free_ports(count: int) -> int:
    """First of `count` ports in a row that nobody uses; below those that the kernel gives out by itself."""
    for first in range(20000 + os.getpid() % 1000 * 10, 32000, 10):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for offset, each in enumerate(sockets):
                each.bind(("127.0.0.1", first + offset))
        except OSError:
            continue
        else:
            return first
        finally:
            for each in sockets:
                each.close()
    return pytest.fail("no free ports between 20000 and 32000")


def start_cluster(name: str, *options: str) -> Cluster:
    """Start a cluster with these options of `start`. `name`, a letter or two, tells it from the others of this session."""
    root = ROOTS / f"{PREFIX}{os.getpid()}{name}"
    port = str(free_ports(8))
    call("start", "--root", str(root), "--base-port", port, "--install", "--work-tree", *options, timeout=900)
    user = call("run", "--root", str(root), "--keep", "--", "id", "-un").stdout.strip()
    return Cluster(root, user)


def stop_cluster(cluster: Cluster) -> None:
    call("stop", "--root", str(cluster.root), "--purge")


def sweep() -> None:
    """Stop what sessions left that were killed."""
    for root in ROOTS.glob(f"{PREFIX}*"):
        owner = re.match(r"\d+", root.name.removeprefix(PREFIX))
        if owner and not Path(f"/proc/{owner[0]}").exists():
            call("stop", "--root", str(root), "--purge", check=False)
