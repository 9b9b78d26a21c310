"""The daemons of the cluster, in the order in which each needs the one before: munge, database, slurmdbd, slurmctld, slurmd."""

import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from cluster import config, containers, docker, processes
from cluster.layout import NODES, ClusterError, Layout, Options
from cluster.packages import program
from cluster.processes import Daemon

DATABASE_RIGHTS = """\
FLUSH PRIVILEGES;
CREATE DATABASE slurm_acct_db;
CREATE USER 'slurm'@'localhost' IDENTIFIED VIA unix_socket;
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'localhost';
"""


def names(layout: Layout, options: Options) -> list[str]:
    """All daemons, in the order of their start."""
    middle = ["mariadbd", "slurmdbd"] if options.accounting else []
    slurm = ["munged", *middle, "slurmctld", *(f"slurmd-{node}" for node in NODES)]
    return [*slurm, *(containers.names(layout) if options.containers else [])]


def prepare(layout: Layout, options: Options) -> None:
    """Write everything that the daemons read, from nothing."""
    clear(layout)
    shutil.rmtree(layout.log, ignore_errors=True)
    for folder in (layout.etc, layout.run, layout.log, layout.spool, layout.devices):
        folder.mkdir(mode=0o755)
    _folder_of("slurm", layout.run / "slurm", layout.state)
    _folder_of("munge", layout.munge)
    _private(layout.munge / "key", secrets.token_bytes(128), "munge")
    layout.conf.write_text(config.slurm_conf(layout, options), encoding="utf-8")
    (layout.etc / "gres.conf").write_text(config.gres_conf(layout), encoding="utf-8")
    if options.accounting:
        _private(layout.etc / "slurmdbd.conf", config.slurmdbd_conf(layout, options).encode(), "slurm")
    for number in range(2):
        # Slurm wants a character device and never opens it; /dev/null is one that every container has
        (layout.devices / f"nvidia{number}").symlink_to("/dev/null")
    for daemon in ("slurmctld", "slurmdbd"):
        _private(layout.log / f"{daemon}.log", b"", "slurm", mode=0o644)
    layout.write_options(options)


def clear(layout: Layout) -> None:
    """Remove what belongs to a cluster that runs; none does. Raises ClusterError."""
    docker.stop(layout)  # of a cluster that was killed: nothing may be removed through a mount of its
    for path in layout.runtime:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _folder_of(user: str, *folders: Path) -> None:
    for folder in folders:
        folder.mkdir(mode=0o755, parents=True)
        shutil.chown(folder, user, user)


def _private(path: Path, content: bytes, user: str, mode: int = 0o600) -> None:
    path.touch(mode=mode)
    path.chmod(mode)
    path.write_bytes(content)
    shutil.chown(path, user, user)


def start_munge(layout: Layout) -> None:
    folder = layout.munge
    argv = [program("munged"), "--foreground", f"--socket={folder}/socket", f"--key-file={folder}/key"]
    argv += [f"--pid-file={folder}/pid", f"--seed-file={folder}/seed", f"--log-file={folder}/log"]
    daemon = Daemon("munged", argv, folder / "log", user="munge")
    if processes.alive(layout, "munged") is None:
        (folder / "socket").unlink(missing_ok=True)
    processes.start(layout, daemon)
    processes.wait_until(layout, daemon, (folder / "socket").exists)


def start_database(layout: Layout) -> None:
    """MariaDB in the cluster's own folder, on a socket and no port."""
    folder = layout.database
    if not folder.exists():
        folder.mkdir(mode=0o755)
        shutil.chown(folder, "mysql", "mysql")
        rights = layout.etc / "rights.sql"
        rights.write_text(DATABASE_RIGHTS, encoding="utf-8")
        argv = [
            program("mariadb-install-db"),
            "--no-defaults",
            "--user=mysql",
            f"--datadir={folder}/data",
            "--skip-test-db",
        ]
        argv += ["--skip-name-resolve", "--auth-root-authentication-method=socket", "--auth-root-socket-user=root"]
        argv += [f"--extra-file={rights}"]
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=layout.root,
            env={
                **os.environ,
                "TMPDIR": str(folder),
            },  # a database that starts clears away another's tables in a shared one
        )
        (layout.log / "mariadb-install-db.log").write_text(done.stdout + done.stderr, encoding="utf-8")
        if done.returncode != 0:
            shutil.rmtree(folder)
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-processes.LAST_LINES :])
            raise ClusterError(f"mariadb-install-db failed with {done.returncode}:\n{tail}")
    argv = [program("mariadbd"), "--no-defaults", "--user=mysql", f"--datadir={folder}/data", "--skip-networking"]
    argv += [
        f"--tmpdir={folder}",
        f"--socket={folder}/socket",
        f"--pid-file={folder}/pid",
        f"--log-error={folder}/error.log",
    ]
    # an accounting database that is thrown away: small, and nothing waits for the disk
    argv += ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0"]
    argv += ["--innodb-lock-wait-timeout=900", "--innodb-doublewrite=0", "--performance-schema=off"]
    daemon = Daemon("mariadbd", argv, folder / "error.log")
    processes.start(layout, daemon)
    processes.wait_until(layout, daemon, (folder / "socket").exists)


def start_slurm(layout: Layout, options: Options) -> None:
    environment = {"SLURM_CONF": str(layout.conf)}
    if options.accounting:
        database = environment | {"MYSQL_UNIX_PORT": f"{layout.database}/socket"}
        dbd = Daemon("slurmdbd", [program("slurmdbd"), "-D"], layout.log / "slurmdbd.log", environment=database)
        processes.start(layout, dbd)
        processes.wait_until(layout, dbd, lambda: _answers(layout, "sacctmgr", "-n", "list", "cluster"))
    ctld = Daemon("slurmctld", [program("slurmctld"), "-D"], layout.log / "slurmctld.log", environment=environment)
    processes.start(layout, ctld)
    for node in NODES:
        argv = [program("slurmd"), "-D", "-N", node]
        processes.start(
            layout, Daemon(f"slurmd-{node}", argv, layout.log / f"slurmd-{node}.log", environment=environment)
        )
    processes.wait_until(layout, ctld, lambda: _ready(layout))


def _ready(layout: Layout) -> bool:
    """Whether all nodes can take jobs, or run some already. A state that Slurm marks (`IDLE*`) is no answer of the node's."""
    found = states(layout).values()
    return len(found) == len(NODES) and set(found) <= {"IDLE", "MIXED", "ALLOCATED", "COMPLETING"}


def _answers(layout: Layout, *argv: str) -> bool:
    return ask(layout, *argv).returncode == 0


def ask(layout: Layout, *argv: str) -> subprocess.CompletedProcess[str]:
    """One of Slurm's client programs, as root."""
    environment = {**os.environ, "SLURM_CONF": str(layout.conf)}
    return subprocess.run(
        [program(argv[0]), *argv[1:]],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def states(layout: Layout) -> dict[str, str]:
    """State of each node, as sinfo writes it; empty while slurmctld does not answer."""
    lines = ask(layout, "sinfo", "-h", "-N", "-p", "gpu", "-o", "%N %T").stdout.splitlines()
    return {name: state.upper() for name, state in (line.split() for line in lines)}


def stop(layout: Layout, options: Options) -> None:
    """End the daemons, newest first, and every process of a job. Raises ClusterError if one will not die."""
    order = [name for name in reversed(names(layout, options)) if processes.alive(layout, name) is not None]
    slurm = [name for name in order if name.startswith("slurm")]
    ground = [name for name in order if name not in (*slurm, *docker.NAMES)]
    jobs = processes.of_jobs(layout)
    for group in (slurm, ground):
        pids = {pid for name in group if (pid := processes.alive(layout, name)) is not None}
        if group is slurm:
            jobs |= processes.family(pids) - pids
        left = processes.end(pids, signal.SIGTERM, 10)
        left |= processes.end(jobs | processes.of_jobs(layout) if group is slurm else set(), signal.SIGKILL, 5)
        left = processes.end(left, signal.SIGKILL, 5)
        if left:
            raise ClusterError(f"these processes do not end: {' '.join(map(str, sorted(left)))}. See: ps -fp PID")
        if group is slurm:
            docker.stop(layout)
