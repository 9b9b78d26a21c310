"""Writes docs/chaos.md (`make chaos`): `launch chaos` on a real Slurm, in each engine; and on this machine without one.

    python tests/chaos_matrix.py [ENGINE=BLOWS ...]     default: docker=26 apptainer=26 host=130 local=110

As root: nodes' daemons are stopped, and a small file system is mounted to be filled up."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "container"), str(HERE.parent)]

from cluster_ground import Cluster, stop_cluster  # noqa: E402
from container_ground import Containers, start_containers  # noqa: E402
from tiny_ground import as_root  # noqa: E402

PAGE = HERE.parent / "docs" / "chaos.md"
BEGIN, END = "<!-- written by `make chaos` -->", "<!-- until here -->"
CONFIG = HERE.parent / "configs" / "quickstart.yaml"
SMALL = "1500m"
EPOCHS = {"docker": 20, "apptainer": 20, "host": 60, "local": 40}
"""More steps than the quickstart has, so that every blow finds its run still on its way."""
DEFAULT = ("docker=26", "apptainer=26", "host=130", "local=110")
SEEDS = {"host": 1, "local": 2, "docker": 3, "apptainer": 4}
"""Of the blows."""


@contextmanager
def small_file_system(cluster: Cluster) -> Iterator[Path]:
    """One that can be filled up."""
    folder = cluster.root / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL},mode=1777", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def stoppable_nodes(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Commands by which the user has a node's daemon stopped and let go on: what an administrator's `ssh` would do."""
    wishes = cluster.home / "wishes"
    cluster.run(["mkdir", "-p", wishes], cwd=cluster.home)
    over = threading.Event()

    def fulfil() -> None:
        while not over.wait(0.1):
            for wish in sorted(wishes.iterdir()):
                word, _, node = wish.name.partition("-")
                pid = (cluster.root / "run" / f"slurmd-{node}.pid").read_text().split()[0]
                as_root(cluster, "kill", f"-{word}", pid)
                wish.unlink()

    thread = threading.Thread(target=fulfil)
    thread.start()
    try:
        yield (f"touch {wishes}/STOP-{{node}}", f"touch {wishes}/CONT-{{node}}")
    finally:
        over.set()
        thread.join()


def beat(cluster: Containers, folder: Path, commands: tuple[str, str], engine: str, blows: int) -> Path:
    """One trial; its report."""
    name = f"chaos-{engine}"
    text = CONFIG.read_text().replace("name: quickstart", f"name: {name}", 1)
    text = text.replace("epochs: 5", f"epochs: {EPOCHS[engine]}", 1)
    if engine in {"docker", "apptainer"}:
        text = text.replace("engine: host", f"engine: {engine}\n  base: '{cluster.base}'")
    config = cluster.repository / "configs" / f"{name}.yaml"
    cluster.write(config, text)
    cluster.commit(cluster.repository, name)
    argv = ["launch", "chaos", f"configs/{name}.yaml", "--blows", str(blows), "--seed", str(SEEDS[engine])]
    if engine == "local":
        argv += ["--local"]
    else:
        argv += ["--partition", "gpu", "--preemptor", "high", "--as-admin"]
    if engine in {"docker", "apptainer"}:  # a run goes on meanwhile, for more than a minute: too far for many blows
        argv += ["--stop-node", commands[0], "--start-node", commands[1]]
    process = cluster.popen([*argv, "--experiments", folder], cwd=cluster.repository)
    code = process.wait()
    (report,) = folder.glob(f"chaos/{name}-*/seed-*/report.md")
    print(f"{engine}: exit code {code}", flush=True)
    return report


def write(engine: str, report: str) -> None:
    """Into the page, between its marks, in the place of what it has of this engine."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    kept, _, tail = rest.partition(END)
    sections = {each.partition(".yaml")[0]: each for each in kept.split("### chaos-")[1:]}
    day = time.strftime("%Y-%m-%d", time.gmtime())
    sections[engine] = report.replace("# chaos-", "", 1).replace("\n\n", f"\n\nOf {day}. ", 1)
    said = "On `slurm/testcluster` (four nodes, all of them one machine of two cores), and without Slurm (`local`).\n\n"
    written = "".join(f"### chaos-{sections[name].strip()}\n\n" for name in sorted(sections))
    PAGE.write_text(f"{head}{BEGIN}\n\n{said}{written}{END}{tail}")


def main(wanted: list[str]) -> int:
    counts = {engine: int(count) for engine, count in (each.split("=") for each in wanted or DEFAULT)}
    cluster = start_containers("c", "--grace", "90", "--min-job-age", "3600")
    bad = 0
    try:
        as_root(cluster, "sacctmgr", "-i", "add", "user", cluster.user, "account=root", "adminlevel=admin")
        with small_file_system(cluster) as folder, stoppable_nodes(cluster) as commands:
            for engine, blows in counts.items():
                report = beat(cluster, folder, commands, engine, blows)
                write(engine, report.read_text())
                bad += not json.loads(report.with_name("report.json").read_text())["good"]
    finally:
        stop_cluster(cluster)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
