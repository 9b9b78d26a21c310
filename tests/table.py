"""Writes docs/causes.md (`make table`): causes, set-ups and versions of Slurm, every cell from a real run."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cause_scenes import Ending, Scenes  # noqa: E402
from cluster_ground import GRACE, start_cluster, stop_cluster  # noqa: E402
from tiny_ground import as_root  # noqa: E402

ONE = threading.Lock()
PAGE = HERE.parent / "docs" / "causes.md"
VERSIONS = ("22.05", "24.11")
MEANING = {
    "preempted": "its node is taken, it saves",
    "ends-in-grace": "its node is taken, it finishes within the grace",
    "crash-in-grace": "its node is taken, it crashes within the grace",
    "refuse-in-grace": "its node is taken, it refuses within the grace",
    "cancelled-in-grace": "`scancel` within the grace",
    "requeued": "`scontrol requeue`",
    "node-failure": "its node goes down",
    "limit-near": "the signal before the time limit",
    "limit-hit": "the time limit itself",
    "unfit": "its store cannot be read on this node, when it comes back",
    "not-started": "the step does not start",
    "memory": "it takes more memory than it has",
    "cancelled": "`scancel`",
    "launch-cancel": "`launch cancel`",
    "interrupted": "`scancel --signal=USR2`",
    "crash": "an exception",
    "kill": "SIGKILL by hand",
    "refuse": "its code in the store was changed, when it comes back",
    "fenced": "somebody takes its next attempt beside its job",
    "done": "it finishes",
}


@dataclass(frozen=True)
class SetUp:
    """One column: options of `start`, and the fields of its partition."""

    title: str
    options: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    whole: bool = True
    """Not only what its preemptions do."""
    limits: bool = True
    """Time limits, too, which know no grace."""


SIGNAL = ("--user-signal", "--no-accounting")
SET_UPS = {
    "a": [
        SetUp("A grace", (), (f"GraceTime={GRACE}", "PreemptMode=REQUEUE")),
        SetUp("GraceTime=0", (), ("GraceTime=0", "PreemptMode=REQUEUE"), limits=False),
    ],
    "b": [
        SetUp(
            "A grace, preempt_send_user_signal, no accounting", SIGNAL, (f"GraceTime={GRACE}", "PreemptMode=REQUEUE")
        ),
        SetUp(
            "PreemptMode=CANCEL, a grace, no accounting",
            SIGNAL,
            (f"GraceTime={GRACE}", "PreemptMode=CANCEL"),
            whole=False,
        ),
        SetUp(
            "PreemptMode=CANCEL, GraceTime=0, no accounting", SIGNAL, ("GraceTime=0", "PreemptMode=CANCEL"), whole=False
        ),
    ],
}


def column(version: str, key: str, found: dict[tuple[str, str], dict[str, Ending]]) -> None:
    """All set-ups of one cluster, one after the other, into `found`."""
    set_ups = SET_UPS[key]
    common = ("--grace", str(GRACE), "--min-job-age", "3600", "--node-cpus", "16", "--confine-memory")
    with ONE:  # the next one must find the ports of this one taken
        cluster = start_cluster(f"{key}{VERSIONS.index(version)}", "--slurm", version, *common, *set_ups[0].options)
    try:
        for number, each in enumerate(set_ups):
            as_root(cluster, "scontrol", "update", "PartitionName=gpu", *each.fields)
            grace = "GraceTime=0" not in each.fields
            chosen = {"confined": True, "limits": each.limits, "taken_only": not each.whole}
            found[version, each.title] = Scenes(cluster, f"set-up-{number}", grace=grace, **chosen).play()
            cluster.clear()
            print(f"{version}, {each.title}: {len(found[version, each.title])} causes", flush=True)
            PAGE.write_text(page(found), encoding="utf-8")
    finally:
        stop_cluster(cluster)


def cell(ending: Ending | None) -> str:
    """What was decided at each start, what Slurm calls it in the end, and what it cost."""
    if ending is None:
        return "-"
    decided = ", ".join(f"{cause}: {action}" for cause, action in ending.decided)
    lost = f"; {ending.lost} lost" if ending.lost else ""
    return f"{decided}; {ending.state}, Restarts={ending.restarts}{lost}"


def page(found: dict[tuple[str, str], dict[str, Ending]]) -> str:
    lines = [
        "# Each cause, as it was met",
        "",
        f"Written by `make table` ({time.strftime('%Y-%m-%d', time.gmtime())}): every cell is a real run on `slurm/testcluster`,",
        f"Slurm {' and '.join(VERSIONS)}. A cell says what was decided at each start of the job (cause: action), then Slurm's last",
        "state of it, how often it was restarted, and the steps that were done twice, where there are some. `-`: not provoked.",
        "[preemption.md](preemption.md) says what each cause means.",
    ]
    for title in (each.title for set_ups in SET_UPS.values() for each in set_ups):
        columns = [found.get((version, title), {}) for version in VERSIONS]
        lines += ["", f"## {title}", "", f"| what happens | {' | '.join(VERSIONS)} |", f"|---|{'---|' * len(VERSIONS)}"]
        for name, meaning in MEANING.items():
            if any(name in each for each in columns):
                lines.append(f"| {meaning} | {' | '.join(cell(each.get(name)) for each in columns)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    found: dict[tuple[str, str], dict[str, Ending]] = {}
    with ThreadPoolExecutor() as pool:
        for each in [pool.submit(column, version, key, found) for key in SET_UPS for version in VERSIONS]:
            each.result()
    return 0


if __name__ == "__main__":
    sys.exit(main())
