"""Which Debian packages the cluster needs, and what to do where they are missing."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.layout import ClusterError

SBIN = "/usr/sbin:/sbin"  # daemons live there, and an ordinary user's PATH often lacks it
POLICY = Path("/usr/sbin/policy-rc.d")
PROGRAMS = {
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
    "slurmdbd": "slurmdbd",
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "mariadb": "mariadb-server",
    "git": "git",
}
CONTAINERS = {
    "containerd": "containerd",
    "docker": "docker.io",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "fuse2fs": "fuse2fs",
    "fusermount3": "fuse3",
    "mksquashfs": "squashfs-tools",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "patchelf": "patchelf",
    "runc": "runc",
    "squashfuse": "squashfuse",
}
RELEASE = {"patchelf": "patchelf"}
"""For another version of Slurm than the machine's."""
DATABASE = {"slurmdbd", "mariadb-server"}


def find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}")


def program(name: str) -> str:
    """Absolute path of a daemon. Raises ClusterError."""
    found = find(name)
    if found is None:
        msg = f"`{name}` is not on this machine. Install it with: apt-get install {(PROGRAMS | CONTAINERS).get(name, name)}"
        raise ClusterError(msg)
    return found


def missing(*, accounting: bool, containers: bool = False, fetched: bool = False) -> list[str]:
    """Debian packages to install, in a stable order."""
    programs = PROGRAMS | (CONTAINERS if containers else {}) | (RELEASE if fetched else {})
    wanted = {package for name, package in programs.items() if find(name) is None}
    return sorted(wanted if accounting else wanted - DATABASE)


def require(*, accounting: bool, install: bool, containers: bool = False, fetched: bool = False) -> None:
    """Install what is missing, or raise ClusterError with the exact command."""
    packages = missing(accounting=accounting, containers=containers, fetched=fetched)
    if not packages:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if shutil.which("apt-get") is None:
        msg = (
            f"missing: {' '.join(packages)} (names of Debian's packages). This machine has no apt-get; use a Debian 12."
        )
        raise ClusterError(msg)
    if not install:
        msg = f"missing Debian packages. As root: apt-get update && {' '.join(command)}\n    or let `start --install` do it."
        raise ClusterError(msg)
    with _alone():
        if missing(accounting=accounting, containers=containers, fetched=fetched):
            print(f"installing {' '.join(packages)} ...", flush=True)
            _apt(["apt-get", "update", "-qq"])
            with _nothing_starts():
                _apt(command)
    left = missing(accounting=accounting, containers=containers, fetched=fetched)
    if left:
        msg = f"apt-get succeeded, yet these are still missing: {' '.join(left)}"
        raise ClusterError(msg)


@contextmanager
def _alone() -> Iterator[None]:
    """Two clusters that start at once: the second waits, and finds it done. apt itself would refuse."""
    with Path("/run/lock/samebits-install.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _apt(argv: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ClusterError(f"`{' '.join(argv)}` failed with {done.returncode}:\n{tail}")


@contextmanager
def _nothing_starts() -> Iterator[None]:
    """Debian starts a daemon when its package is installed, unless this program says no. A cluster starts its own."""
    if POLICY.exists():  # the machine's own word on it
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
