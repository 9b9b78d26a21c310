"""A Docker engine of the cluster's own: containerd and dockerd on sockets below the root, beside whatever Docker the machine has.

It shares nothing with the machine's: no configuration, no bridge, no firewall rule, no control group."""

import hashlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

from cluster import bridge, processes
from cluster.layout import ClusterError, Layout
from cluster.packages import program
from cluster.processes import Daemon

NAMES = ("containerd", "dockerd")
CLIENT = "/usr/bin/docker"
"""Debian's, which fits the engine; another one may stand before it on PATH."""
CGROUPS = Path("/sys/fs/cgroup")


def host(layout: Layout) -> str:
    """What DOCKER_HOST says."""
    return f"unix://{_socket(layout, 'docker')}"


def start(layout: Layout, account: pwd.struct_passwd) -> None:
    """Start what does not run. The user's own group may use the socket: as with any Docker, that makes the user as good as root."""
    containerd = _containerd(layout)
    processes.start(layout, containerd)
    processes.wait_until(layout, containerd, _socket(layout, "containerd").exists)
    if processes.alive(layout, "dockerd") is None:
        for left in (_socket(layout, "docker"), layout.run / "docker" / "pid"):
            left.unlink(missing_ok=True)
        bridge.make(_bridge(layout))
    dockerd = _dockerd(layout, account)
    processes.start(layout, dockerd)
    processes.wait_until(layout, dockerd, lambda: client(layout, "version", check=False).returncode == 0)


def client(layout: Layout, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `docker ARGV` as root. Raises ClusterError unless `check` is off."""
    command = [CLIENT, "--host", host(layout), *argv]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=environment | {"DOCKER_CONFIG": os.devnull},
    )
    if check and done.returncode != 0:
        raise ClusterError(f"`docker {' '.join(argv)}` failed with {done.returncode}: {done.stderr.strip()}")
    return done


def _containerd(layout: Layout) -> Daemon:
    folder = layout.run / "containerd"
    conf = layout.etc / "containerd.toml"
    lines = [
        "version = 2",
        f'root = "{layout.images / "containerd"}"',
        f'state = "{folder}"',
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]',
        "[debug]",
        'level = "warn"',
        "[grpc]",
        f'address = "{_socket(layout, "containerd")}"',
        '[plugins."io.containerd.internal.v1.opt"]',
        f'path = "{folder / "opt"}"',
    ]
    conf.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Daemon("containerd", [program("containerd"), "--config", str(conf)], layout.log / "containerd.out")


def _dockerd(layout: Layout, account: pwd.struct_passwd) -> Daemon:
    conf = layout.etc / "docker.json"
    told = {
        "hosts": [host(layout)],
        "group": str(
            account.pw_gid
        ),  # not `docker`: Slurm would not see the user in it until its controller starts again
        "data-root": str(layout.images / "docker"),
        "exec-root": str(layout.run / "docker"),
        "pidfile": str(layout.run / "docker" / "pid"),
        "containerd": str(_socket(layout, "containerd")),
        "bridge": _bridge(layout),
        "iptables": False,
        "ip6tables": False,
        "ip-forward": False,
        "ip-masq": False,
        "userland-proxy": False,
        "cgroup-parent": f"/{_name(layout)}",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "shutdown-timeout": 5,
        "log-level": "warn",
    }
    conf.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return Daemon("dockerd", [program("dockerd"), "--config-file", str(conf)], layout.log / "dockerd.out")


def _socket(layout: Layout, name: str) -> Path:
    return layout.run / f"{name}.sock"


def _name(layout: Layout) -> str:
    """Of what lies outside the root: the same for the same root, so that it is found again whatever became of the cluster."""
    return f"samebits-{hashlib.sha256(str(layout.root).encode()).hexdigest()[:8]}"


def _bridge(layout: Layout) -> str:
    return f"sb{_name(layout)[-8:]}"


def stop(layout: Layout) -> None:
    """End the engine and every container, also of an engine that was killed; unmount what they left. Raises ClusterError."""
    contained = _contained(layout)
    if not (contained or any(processes.alive(layout, name) for name in NAMES) or _mounts(layout)):
        _tidy(layout)
        return
    if processes.alive(layout, "dockerd") and (known := client(layout, "ps", "-aq", check=False).stdout.split()):
        client(layout, "rm", "--force", "--volumes", *known, check=False)  # images stay, containers do not
    left = processes.end(contained, signal.SIGKILL, 5)
    for name in reversed(NAMES):
        pid = processes.alive(layout, name)
        unwilling = processes.end({pid} if pid else set(), signal.SIGTERM, 15)
        left |= processes.end(unwilling, signal.SIGKILL, 5)
    # a container that was being started just now; then those that looked after containers
    left |= processes.end(_contained(layout), signal.SIGKILL, 5)
    left |= processes.end(_shims(layout), signal.SIGKILL, 5)
    if left:
        raise ClusterError(f"these processes do not end: {' '.join(map(str, sorted(left)))}. See: ps -fp PID")
    _tidy(layout)


def _tidy(layout: Layout) -> None:
    unmount(layout)
    bridge.remove(_bridge(layout))
    for top in _cgroups(layout):
        for folder in sorted([top, *(path for path in top.rglob("*") if path.is_dir())], reverse=True):
            _remove_cgroup(folder)


def _remove_cgroup(folder: Path) -> None:
    """The kernel lets go of a group a moment after its last process."""
    for _ in range(20):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(processes.POLL)
        else:
            return


def _cgroups(layout: Layout) -> list[Path]:
    """The group of all containers, in each hierarchy that there is."""
    return [path for path in (CGROUPS / _name(layout), *CGROUPS.glob(f"*/{_name(layout)}")) if path.is_dir()]


def _contained(layout: Layout) -> set[int]:
    """Every process in a container of this engine, whoever is left to know of it."""
    found = set()
    for top in _cgroups(layout):
        for listing in top.rglob("cgroup.procs"):
            try:
                found |= {int(line) for line in listing.read_text(encoding="ascii").split()}
            except OSError:  # the group went just now
                continue
    return found - {0}


def _shims(layout: Layout) -> set[int]:
    """containerd's own processes, one for each container, which outlive it."""
    return processes.with_argument(str(_socket(layout, "containerd")))


def _mounts(layout: Layout) -> list[Path]:
    """What is mounted below the root, innermost first."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    points = [Path(line.split()[4]) for line in lines]
    return [point for point in reversed(points) if layout.root in point.parents]


def unmount(layout: Layout) -> None:
    """Raises ClusterError where something stays mounted: nothing may be removed through it."""
    for point in _mounts(layout):
        subprocess.run(["umount", "--lazy", str(point)], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if left := _mounts(layout):
        raise ClusterError(
            f"these stay mounted: {' '.join(map(str, left))}. Unmount them (umount -l), and say it again."
        )
    for folder in (layout.run / "docker", layout.run / "containerd"):
        shutil.rmtree(folder, ignore_errors=True)
