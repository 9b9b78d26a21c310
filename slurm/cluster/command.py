"""The verbs of `slurm/testcluster`."""

import argparse
import fcntl
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from cluster import containers, daemons, packages, processes, release, user, workspace
from cluster.flags import again, parser, root_flag
from cluster.flags import options as options_of
from cluster.layout import ClusterError, Layout, Options

STOPPED = 3
MISSING_PROGRAM = 127
LONGEST_ROOT = 60  # sockets below it may have 107 characters


def main(arguments: list[str] | None = None) -> int:
    """Exit code of one verb: 0 done, 1 failed, 3 not running; of `run`, that of the command."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `testcluster status | head` ends quietly
    asked = parser().parse_args(arguments)
    layout = Layout(asked.root.absolute())
    try:
        return VERBS[asked.verb](layout, asked)
    except ClusterError as error:
        print(f"testcluster: {error}", file=sys.stderr)
        return 1


def _start(layout: Layout, flags: argparse.Namespace) -> int:
    _need_root()
    _check_root(layout.root)
    began = time.monotonic()
    with _locked(layout):
        running = layout.read_options()
        options = options_of(flags, running)
        packages.require(
            accounting=options.accounting,
            containers=options.containers,
            fetched=options.slurm in release.RELEASES,
            install=flags.install,
        )
        account = user.ensure(options.user, layout)
        living = [name for name in daemons.names(layout, options) if processes.alive(layout, name)]
        complete = running is not None and len(living) == len(daemons.names(layout, options))
        try:
            if not complete:
                _bring_up(layout, options, account, afresh=running is None or not living)
            workspace.home(layout, account)
            _reachable(layout, account)
            notes = [
                workspace.clone(layout, account, work_tree=flags.work_tree),
                workspace.environment(layout, account),
            ]
            if not complete:
                _probe(layout, account)
        except BaseException:
            if not living:
                daemons.stop(layout, options)
                layout.options.unlink(missing_ok=True)
            raise
    root = root_flag(layout.root)
    how = f"A four-node Slurm runs (ready in {time.monotonic() - began:.1f} s)" if not complete else "It runs already"
    print(f"""{how}. Partitions: gpu (preemptible, the default) and high (takes nodes from gpu). User: {account.pw_name}.

    slurm/testcluster run{root} -- sinfo
    slurm/testcluster run{root} -- launch configs/quickstart.yaml --partition gpu
    slurm/testcluster run{root} -- launch status quickstart
    slurm/testcluster shell{root}                 # as that user, in {layout.project}
    slurm/testcluster stop{root}""")
    if options.containers:
        print(
            f"\nContainers: docker and apptainer are on the user's PATH. A base image: {layout.base.read_text().strip()}"
        )
    for note in filter(None, notes):
        print(f"\nNote: {note}", file=sys.stderr)
    return 0


def _bring_up(layout: Layout, options: Options, account: pwd.struct_passwd, *, afresh: bool) -> None:
    """Start what does not run; `afresh` from nothing, else around what is left of a cluster and its jobs."""
    if afresh:
        _need_ports(options)
        daemons.prepare(layout, options)
    daemons.start_munge(layout)
    if options.accounting:
        daemons.start_database(layout)
    daemons.start_slurm(layout, options)
    if options.containers:
        containers.start(layout, options, account)


def _need_ports(options: Options) -> None:
    for port in options.ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                msg = f"port {port} of 127.0.0.1 is not free ({error.strerror})."
                raise ClusterError(f"{msg} Choose {len(options.ports)} others with --base-port.") from error


def _reachable(layout: Layout, account: pwd.struct_passwd) -> None:
    try:
        fine = user.run(layout, account, ["test", "-r", str(layout.conf)], cwd=Path("/")).returncode == 0
    except OSError:
        fine = False
    if not fine:
        raise ClusterError(f"{account.pw_name} cannot reach {layout.conf}. Choose a --root that every user can enter.")


def _probe(layout: Layout, account: pwd.struct_passwd) -> None:
    """The proof that it works: a batch job of the user's, on all nodes, to its end."""
    script = [
        "sbatch",
        "--parsable",
        "-N4",
        "--gpus-per-node=2",
        "-J",
        "ready",
        "-o",
        "/dev/null",
        "--wrap",
        "srun true",
    ]
    done = user.run(layout, account, script)
    if done.returncode != 0:
        raise ClusterError(f"sbatch failed as {account.pw_name}: {done.stderr.strip()}")
    job, end = done.stdout.strip(), time.monotonic() + 60
    while "JobState=COMPLETED" not in (shown := daemons.ask(layout, "scontrol", "-o", "show", "job", job).stdout):
        if time.monotonic() > end or re.search(r"JobState=(FAILED|CANCELLED|NODE_FAIL|TIMEOUT)", shown):
            raise ClusterError(
                f"a first job of {account.pw_name}'s did not complete: {shown.strip()}\nLogs: {layout.log}"
            )
        time.sleep(processes.POLL)


def _stop(layout: Layout, flags: argparse.Namespace) -> int:
    _need_root()
    if not layout.root.is_dir():
        print(f"There is no cluster at {layout.root}.")
        return 0
    _check_root(layout.root)
    with _locked(layout):
        options = layout.read_options()
        if options:
            daemons.stop(layout, options)
        daemons.clear(layout)
        if flags.purge:
            shutil.rmtree(layout.root)
    print("Stopped." if options else f"No cluster runs at {layout.root}.")
    return 0


def _status(layout: Layout, flags: argparse.Namespace) -> int:
    options = layout.read_options()
    if options is None:
        print(f"No cluster runs at {layout.root}. Start it with: {again('start', flags.root)}")
        return STOPPED
    dead = [name for name in daemons.names(layout, options) if processes.alive(layout, name) is None]
    print(" ".join(f"{name}={value}" for name, value in asdict(options).items()))
    for argv in (["sinfo"], ["squeue", "--all"]):
        done = daemons.ask(layout, *argv)
        print(f"\n$ {' '.join(argv)}\n{(done.stdout or done.stderr).rstrip()}")
    if dead:
        print(f"\nDead: {' '.join(dead)}. Logs: {layout.log}. Mend it with: {again('start', flags.root)}")
    return 1 if dead else 0


def _env(layout: Layout, flags: argparse.Namespace) -> int:
    account = _running(layout, flags)
    chosen = user.variables(layout, account)
    for name in ("SLURM_CONF", "SAMEBITS_SITE", "SAMEBITS_TEST_BASE", "DOCKER_HOST"):
        if name in chosen:
            print(f"export {name}={shlex.quote(chosen[name])}")
    print(f'export PATH={shlex.quote(f"{layout.environment}/bin:{layout.programs}")}:"$PATH"')
    return 0


def _shell(layout: Layout, flags: argparse.Namespace) -> int:
    account = _running(layout, flags)
    flags.command, flags.chdir = [account.pw_shell or "/bin/sh"], None
    flags.work_tree = flags.keep = False
    return _run(layout, flags)


def _run(layout: Layout, flags: argparse.Namespace) -> int:
    account = _running(layout, flags)
    # in the user's own shell nothing has to be brought, and there may be no sudo
    within = os.environ.get("SLURM_CONF") == str(layout.conf)
    if os.geteuid() != account.pw_uid or not (flags.keep or within):
        _need_root()
        for note in filter(None, _workspace(layout, account, flags)):
            print(f"testcluster: {note}", file=sys.stderr)
    try:
        user.replace(layout, account, flags.command, flags.chdir or layout.project)
    except OSError as error:
        print(f"testcluster: {flags.command[0]}: {error.strerror}", file=sys.stderr)
    return MISSING_PROGRAM


def _workspace(layout: Layout, account: pwd.struct_passwd, flags: argparse.Namespace) -> list[str]:
    """Bring clone and environment up to date. Returns what to tell; empty strings among it."""
    if flags.keep:
        return []
    with _locked(layout):
        return [workspace.clone(layout, account, work_tree=flags.work_tree), workspace.environment(layout, account)]


def _running(layout: Layout, flags: argparse.Namespace) -> pwd.struct_passwd:
    options = layout.read_options()
    if options is None:
        raise ClusterError(f"no cluster runs at {layout.root}. Start it with: {again('start', flags.root)}")
    return user.ensure(options.user, layout)


def _need_root() -> None:
    """Go on as root, through sudo where there is one."""
    if os.geteuid() == 0:
        return
    if shutil.which("sudo") is None:
        raise ClusterError("this must run as root: its daemons switch users. There is no sudo here; become root first.")
    argv = ["sudo", *([] if sys.stdin.isatty() else ["-n"]), "--", sys.executable, *sys.argv]
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted


def _check_root(root: Path) -> None:
    """The root must be ours, and as short as its sockets need. Raises ClusterError."""
    if len(str(root)) > LONGEST_ROOT or not re.fullmatch(r"[\w./+-]+", str(root)):
        raise ClusterError(f"{root}: a root has at most {LONGEST_ROOT} characters, letters, digits and ./+-_ only.")
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    owner = root.lstat()
    if owner.st_uid != 0 or root.is_symlink():
        raise ClusterError(f"{root} is not root's own folder. Choose another --root, or remove it.")
    if any(root.iterdir()) and not (root / "lock").exists():
        raise ClusterError(f"{root} holds something that is no test cluster. Choose another --root.")
    root.chmod(0o755)


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    with layout.lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


VERBS = {"start": _start, "stop": _stop, "status": _status, "env": _env, "shell": _shell, "run": _run}
