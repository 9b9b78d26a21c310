"""The command line of `slurm/testcluster`: verbs, flags, and what they ask for."""

import argparse
from dataclasses import asdict
from pathlib import Path

from cluster import release, user
from cluster.layout import DEFAULT_ROOT, REPOSITORY, ClusterError, Options


def parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="folder of the cluster (default: %(default)s)")
    program = argparse.ArgumentParser(prog="slurm/testcluster", description="A real four-node Slurm on this machine.")
    verbs = program.add_subparsers(required=True, metavar="VERB")

    start = verbs.add_parser("start", parents=[common], help="start it, or make sure that it runs")
    start.set_defaults(verb="start")
    start.add_argument("--user", help="who runs jobs (default: who called sudo, else a system user `samebits`)")
    start.add_argument(
        "--base-port",
        type=int,
        metavar="PORT",
        help="first of six ports on 127.0.0.1, of eight with --containers (default: 17000)",
    )
    start.add_argument("--grace", type=int, metavar="N", help="GraceTime of partition gpu, in seconds (default: 5)")
    start.add_argument("--node-cpus", type=int, metavar="N", help="CPUs of each node (default: 2)")
    start.add_argument(
        "--min-job-age", type=int, metavar="N", help="seconds that ended jobs stay visible (default: 300)"
    )
    start.add_argument(
        "--no-accounting", dest="accounting", action="store_false", default=None, help="no slurmdbd, no database"
    )
    start.add_argument("--user-signal", action="store_true", default=None, help="preempt_send_user_signal")
    start.add_argument(
        "--containers", action="store_true", default=None, help="a Docker engine, a registry and Apptainer, too"
    )
    start.add_argument("--slurm", choices=["22.05", *release.RELEASES], help="its version (default: 22.05)")
    start.add_argument(
        "--confine-memory", action="store_true", default=None, help="hold jobs to their memory, with control groups"
    )
    start.add_argument("--install", action="store_true", help="install missing Debian packages with apt-get")
    _work_tree(start)

    stop = verbs.add_parser("stop", parents=[common], help="end it and its jobs; keeps home and logs")
    stop.set_defaults(verb="stop")
    stop.add_argument("--purge", action="store_true", help="remove home and logs as well")

    verbs.add_parser("status", parents=[common], help="daemons, nodes, jobs").set_defaults(verb="status")
    verbs.add_parser("env", parents=[common], help='for eval "$(slurm/testcluster env)"').set_defaults(verb="env")
    verbs.add_parser("shell", parents=[common], help="a shell of the user's").set_defaults(verb="shell")

    run = verbs.add_parser(
        "run", parents=[common], help="run -- CMD: a command as the user, in its clone of this repository"
    )
    run.set_defaults(verb="run")
    run.add_argument("--chdir", type=Path, help="another folder to run it in")
    run.add_argument("--keep", action="store_true", help="leave the clone as it is: do not follow this repository")
    run.add_argument("command", nargs="+", metavar="CMD")
    _work_tree(run)
    return program


def _work_tree(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work-tree", action="store_true", help="clone this repository as it stands, not as it is committed"
    )


def options(flags: argparse.Namespace, running: Options | None) -> Options:
    """What is asked for: flags, else what runs already, else the defaults. Raises ClusterError where these disagree."""
    fresh = Options(
        user.default_name(), 17000, grace=5, node_cpus=2, accounting=True, user_signal=False, min_job_age=300
    )
    asked = {name: value for name in asdict(fresh) if (value := getattr(flags, name)) is not None}
    base = asdict(running or fresh)
    if running and (other := sorted(name for name, value in asked.items() if base[name] != value)):
        was = ", ".join(f"{name} is {base[name]}" for name in other)
        raise ClusterError(f"it already runs with other options ({was}). First: {again('stop', flags.root)}")
    return Options(**{**base, **asked})


def root_flag(root: Path) -> str:
    return "" if root == DEFAULT_ROOT else f" --root {root}"


def again(verb: str, root: Path) -> str:
    """A command to show to the user."""
    return f"{REPOSITORY / 'slurm' / 'testcluster'} {verb}{root_flag(root)}"
