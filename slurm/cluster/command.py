"""The verbs of `slurm/testcluster`."""

import argparse
import fcntl
import os
import pwd
import re
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from cluster import daemons, packages, processes, user, workspace
from cluster.config import DBD_PORT
from cluster.layout import DEFAULT_ROOT, REPOSITORY, ClusterError, Layout, Options

STOPPED = 3
MISSING_PROGRAM = 127
LONGEST_ROOT = 60  # sockets below it may have 107 characters


def main(arguments: list[str] | None = None) -> int:
    """Exit code of one verb: 0 done, 1 failed, 3 not running; of `run`, that of the command."""
    given = sys.argv[1:] if arguments is None else arguments
    flags = _parser().parse_args(given)
    layout = Layout(flags.root.absolute())
    try:
        code: int = flags.verb(layout, flags)
    except ClusterError as error:
        print(f"testcluster: {error}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="folder of the cluster (default: %(default)s)")
    parser = argparse.ArgumentParser(prog="slurm/testcluster", description="A real four-node Slurm on this machine.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    start = verbs.add_parser("start", parents=[common], help="start it, or make sure that it runs")
    start.set_defaults(verb=_start)
    start.add_argument("--user", help="who runs jobs (default: who called sudo, else a system user `samebits`)")
    start.add_argument("--base-port", type=int, metavar="PORT", help="first of six ports on 127.0.0.1 (default: 17000)")
    start.add_argument("--grace", type=int, metavar="N", help="GraceTime of partition gpu, in seconds (default: 5)")
    start.add_argument("--node-cpus", type=int, metavar="N", help="CPUs of each node (default: 2)")
    start.add_argument(
        "--min-job-age", type=int, metavar="N", help="seconds that ended jobs stay visible (default: 300)"
    )
    start.add_argument(
        "--no-accounting", dest="accounting", action="store_false", default=None, help="no slurmdbd, no database"
    )
    start.add_argument("--user-signal", action="store_true", default=None, help="preempt_send_user_signal")
    start.add_argument("--install", action="store_true", help="install missing Debian packages with apt-get")
    _work_tree(start)

    stop = verbs.add_parser("stop", parents=[common], help="end it and its jobs; keeps home and logs")
    stop.set_defaults(verb=_stop)
    stop.add_argument("--purge", action="store_true", help="remove home and logs as well")

    verbs.add_parser("status", parents=[common], help="daemons, nodes, jobs").set_defaults(verb=_status)
    verbs.add_parser("env", parents=[common], help='for eval "$(slurm/testcluster env)"').set_defaults(verb=_env)
    verbs.add_parser("shell", parents=[common], help="a shell of the user's").set_defaults(verb=_shell)

    run = verbs.add_parser(
        "run", parents=[common], help="run -- CMD: a command as the user, in its clone of this repository"
    )
    run.set_defaults(verb=_run)
    run.add_argument("--chdir", type=Path, help="another folder to run it in")
    run.add_argument("command", nargs="+", metavar="CMD")
    _work_tree(run)
    return parser


def _work_tree(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work-tree", action="store_true", help="clone this repository as it stands, not as it is committed"
    )


def _options(flags: argparse.Namespace, running: Options | None) -> Options:
    """What is asked for: flags, else what runs already, else the defaults. Raises ClusterError where these disagree."""
    fresh = Options(
        user.default_name(), 17000, grace=5, node_cpus=2, accounting=True, user_signal=False, min_job_age=300
    )
    asked = {name: value for name in asdict(fresh) if (value := getattr(flags, name)) is not None}
    base = asdict(running or fresh)
    if running and (other := sorted(name for name, value in asked.items() if base[name] != value)):
        was = ", ".join(f"{name} is {base[name]}" for name in other)
        raise ClusterError(f"it already runs with other options ({was}). First: {_again('stop', flags.root)}")
    return Options(**{**base, **asked})


def _start(layout: Layout, flags: argparse.Namespace) -> int:
    _need_root()
    _check_root(layout.root)
    began = time.monotonic()
    with _locked(layout):
        running = layout.read_options()
        options = _options(flags, running)
        packages.require(accounting=options.accounting, install=flags.install)
        account = user.ensure(options.user, layout)
        complete = running is not None and all(processes.alive(layout, name) for name in daemons.names(options))
        try:
            if not complete:
                _bring_up(layout, options)
            workspace.home(layout, account)
            _reachable(layout, account)
            notes = [
                workspace.clone(layout, account, work_tree=flags.work_tree),
                workspace.environment(layout, account),
            ]
            if not complete:
                _probe(layout, account)
        except BaseException:
            if not complete:
                daemons.stop(layout, options)
                layout.options.unlink(missing_ok=True)
            raise
    again = f"slurm/testcluster{_root_flag(layout.root)}"
    how = f"A four-node Slurm runs (ready in {time.monotonic() - began:.1f} s)" if not complete else "It runs already"
    print(f"""{how}. Partitions: gpu (preemptible, the default) and high (takes nodes from gpu). User: {account.pw_name}.

    {again} run -- sinfo
    {again} run -- launch configs/quickstart.yaml --partition gpu
    {again} run -- launch status quickstart
    {again} shell                 # as that user, in {layout.project}
    {again} stop""")
    for note in filter(None, notes):
        print(f"\nNote: {note}", file=sys.stderr)
    return 0


def _bring_up(layout: Layout, options: Options) -> None:
    before = layout.read_options()
    if before:
        daemons.stop(layout, before)
    for port in range(options.base_port, options.base_port + DBD_PORT + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                msg = f"port {port} of 127.0.0.1 is not free ({error.strerror}). Choose six others with --base-port."
                raise ClusterError(msg) from error
    daemons.prepare(layout, options)
    daemons.start_munge(layout)
    if options.accounting:
        daemons.start_database(layout)
    daemons.start_slurm(layout, options)


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
        for folder in layout.runtime:
            shutil.rmtree(folder, ignore_errors=True)
        layout.options.unlink(missing_ok=True)
        if flags.purge:
            shutil.rmtree(layout.root)
    print("Stopped." if options else f"No cluster runs at {layout.root}.")
    return 0


def _status(layout: Layout, flags: argparse.Namespace) -> int:
    options = layout.read_options()
    if options is None:
        print(f"No cluster runs at {layout.root}. Start it with: {_again('start', flags.root)}")
        return STOPPED
    dead = [name for name in daemons.names(options) if processes.alive(layout, name) is None]
    print(" ".join(f"{name}={value}" for name, value in asdict(options).items()))
    for argv in (["sinfo"], ["squeue", "--all"]):
        done = daemons.ask(layout, *argv)
        print(f"\n$ {' '.join(argv)}\n{(done.stdout or done.stderr).rstrip()}")
    if dead:
        print(f"\nDead: {' '.join(dead)}. Logs: {layout.log}. Mend it with: {_again('start', flags.root)}")
    return 1 if dead else 0


def _env(layout: Layout, flags: argparse.Namespace) -> int:
    account = _running(layout, flags)
    chosen = user.variables(layout, account)
    for name in ("SLURM_CONF", "SAMEBITS_SITE"):
        print(f"export {name}={shlex.quote(chosen[name])}")
    print(f'export PATH={shlex.quote(str(layout.environment / "bin"))}:"$PATH"')
    return 0


def _shell(layout: Layout, flags: argparse.Namespace) -> int:
    account = _running(layout, flags)
    flags.command, flags.chdir, flags.work_tree = [account.pw_shell or "/bin/sh"], None, False
    return _run(layout, flags)


def _run(layout: Layout, flags: argparse.Namespace) -> int:
    account = _running(layout, flags)
    if os.geteuid() != account.pw_uid:
        _need_root()
        with _locked(layout):
            notes = [
                workspace.clone(layout, account, work_tree=flags.work_tree),
                workspace.environment(layout, account),
            ]
        for note in filter(None, notes):
            print(f"testcluster: {note}", file=sys.stderr)
    try:
        user.replace(layout, account, flags.command, flags.chdir or layout.project)
    except OSError as error:
        print(f"testcluster: {flags.command[0]}: {error.strerror}", file=sys.stderr)
    return MISSING_PROGRAM


def _running(layout: Layout, flags: argparse.Namespace) -> pwd.struct_passwd:
    options = layout.read_options()
    if options is None:
        raise ClusterError(f"no cluster runs at {layout.root}. Start it with: {_again('start', flags.root)}")
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


def _root_flag(root: Path) -> str:
    return "" if root == DEFAULT_ROOT else f" --root {root}"


def _again(verb: str, root: Path) -> str:
    return f"{REPOSITORY / 'slurm' / 'testcluster'} {verb}{_root_flag(root)}"
