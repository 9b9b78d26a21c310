"""Every cause, provoked for real on a cluster as it is set up: what the test of a version and the table of all set-ups share."""

import contextlib
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster_ground import Cluster, until
from tiny_ground import Tiny, as_root

from jobs.files import read_lines
from launcher.attempts import AttemptRecord

FREE = {"gpus_per_node": 0}
LONG: Mapping[str, Any] = {"steps": 4, "seconds": 0.1, "finishes_at": 99}
TWICE = {**LONG, "finishes_at": 2}
COMES_BACK = ("preempted", "requeued", "node-failure", "limit-near", "limit-hit", "refuse", "not-started")
STARTS = {**dict.fromkeys(COMES_BACK, 2), "unfit": 3}
"""Of those that are started more than once."""
TAKEN = ("preempted", "ends-in-grace", "crash-in-grace", "refuse-in-grace", "cancelled-in-grace")
"""Those whose node is taken."""


@dataclass(frozen=True)
class Ending:
    """What became of one cause."""

    name: str
    decided: Sequence[tuple[str | None, str | None]]
    lost: int
    """Steps that were done twice."""
    state: str
    restarts: str
    records: Sequence[AttemptRecord] = field(repr=False)


class Scenes:
    """One set-up of a cluster, with a name of its own for the folder of its experiments."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        *,
        grace: bool,
        confined: bool = False,
        limits: bool = True,
        taken_only: bool = False,
    ) -> None:
        self.cluster, self.tiny, self.grace = cluster, Tiny(cluster, name), grace
        self.damaged = {each: Tiny(cluster, f"{name}-{each}") for each in ("refuse", "unfit") if not taken_only}
        """Each with a store of its own, to be damaged."""
        self.confined, self.limits, self.taken_only = confined, limits, taken_only
        self.jobs: dict[str, str] = {}

    def submit(self, name: str, node: str, recipe: Mapping[str, Any] = LONG, **slurm: Any) -> None:
        slurm = {**FREE, "additional": {"nodelist": node}, **slurm}
        self.jobs[name] = self.of(name).submit(name, recipe, **slurm)["job"]

    def of(self, name: str) -> Tiny:
        return self.damaged.get(name, self.tiny)

    def only(self, *nodes: str) -> dict[str, Any]:
        return {"additional": {}, "exclude": ",".join(sorted({"n1", "n2", "n3", "n4"} - set(nodes)))}

    def play(self) -> dict[str, Ending]:
        """Provoke them all, wait until each is over, and look."""
        acts = (self._limits, self._by_themselves, self._orders, self._store, self._overtaken, self._node, self._taken)
        for act in acts[-1:] if self.taken_only else acts:
            act()
        for name in self.jobs:
            self.of(name).until_decided(name, STARTS.get(name, 1), seconds=300)
        endings = {}
        for name in self.jobs:
            self.settled(name)
            endings[name] = self.ending(name)
        return endings

    def settled(self, name: str) -> None:
        """Slurm has nothing more to do with it."""
        job = f"{self.jobs[name]}_0"
        until(
            lambda: not self.cluster.squeue("-h", "-r", "-j", self.jobs[name]).strip(), f"{name} ({job}) left the queue"
        )

    def ending(self, name: str) -> Ending:
        tiny = self.of(name)
        records = tiny.attempts(name)
        lost = tiny.step(name) - len({line.get("step") for line in read_lines(tiny.run(name).ledger)})
        shown = self.cluster.job(f"{self.jobs[name]}_0")
        decided = [(each.cause, each.action) for each in records]
        return Ending(name, decided, lost, shown.get("JobState", "?"), shown.get("Restarts", "?"), records)

    def _limits(self) -> None:
        if self.limits:
            self.submit("limit-near", "n4", TWICE, time_minutes=1)
            self.submit("limit-hit", "n4", {**TWICE, "only_term": True}, time_minutes=1, signal_seconds=1)

    def _by_themselves(self) -> None:
        self.submit("done", "n1", {**LONG, "finishes_at": 1})
        self.submit("crash", "n1", {**LONG, "crash_at": 3})
        self.submit("kill", "n1", {**LONG, "kill_at": 3})
        if self.confined:
            self.submit("memory", "n1", {**LONG, "swallow_at": 3}, memory="300M")
        broken = '[ "${SLURM_RESTART_COUNT:-0}" -ge 1 ] || srun() { return 127; }'
        self.submit("not-started", "n1", TWICE, setup=[broken], **self.only("n1", "n2"))

    def _orders(self) -> None:
        orders: dict[str, Callable[[str], object]] = {
            "requeued": lambda job: self.cluster.scontrol("requeue", job),
            "cancelled": lambda job: self.cluster.run(["scancel", job]),
            "interrupted": lambda job: self.cluster.run(["scancel", "--signal=USR2", job]),
            "launch-cancel": lambda _: self.tiny.launch("cancel", "launch-cancel"),
        }
        for name in orders:
            self.submit(name, "n2", TWICE if name == "requeued" else LONG)
        for name, order in orders.items():
            self.tiny.until_step(name, 3)
            order(f"{self.jobs[name]}_0")

    def _store(self) -> None:
        """What comes back finds its code changed; or, on one node, a store that cannot be read."""
        self.submit("refuse", "n1")
        self.submit("unfit", "n1", {**LONG, "finishes_at": 3}, **self.only("n1", "n2"))
        for name in ("refuse", "unfit"):
            self.damaged[name].until_step(name, 3)
        self._in_code("refuse", 'chmod u+w "$1"/jobs/__main__.py && echo >> "$1"/jobs/__main__.py')
        self._in_code("unfit", 'chmod 0 "$1"/jobs')
        for name in ("refuse", "unfit"):
            self.cluster.scontrol("requeue", f"{self.jobs[name]}_0")

        def refused() -> bool:
            return len(found := self.damaged["unfit"].attempts("unfit")) > 1 and found[1].exit_code is not None

        until(refused, "a start has found that it cannot read the store", 120)
        self._in_code("unfit", 'chmod 555 "$1"/jobs')

    def _in_code(self, name: str, command: str) -> None:
        store = self.damaged[name].repository.parent / "store"
        script = f'for folder in {store}/code/[0-9a-f]*; do set -- "$folder"; {command} || exit 1; done'
        self.cluster.run(["sh", "-c", script], cwd=self.cluster.home)

    def _overtaken(self) -> None:
        """Somebody takes the next attempt of the same run, beside its job."""
        self.submit("fenced", "n1")
        self.tiny.until_step("fenced", 3)
        run = self.tiny.run("fenced").specification
        take = (
            "import pathlib, sys, jobs.rundir as r; r.RunDir.of_specification(pathlib.Path(sys.argv[1])).take_attempt()"
        )
        self.cluster.run(["python", "-c", take, run])
        self.tiny.until_decided("fenced", 1)

    def _node(self) -> None:
        self.submit("node-failure", "n3", TWICE)
        self.tiny.until_step("node-failure", 3)
        node = self.tiny.attempts("node-failure")[0].node
        as_root(self.cluster, "scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
        self.tiny.until_decided("node-failure", 1)
        with contextlib.suppress(subprocess.CalledProcessError):  # its daemon may have brought it back already
            as_root(self.cluster, "scontrol", "update", f"NodeName={node}", "State=RESUME")

    def _taken(self) -> None:
        self.submit("preempted", "n3", TWICE)
        names = ["preempted"]
        if self.grace:
            for name, code in (("ends-in-grace", 0), ("crash-in-grace", 1), ("refuse-in-grace", 78)):
                self.submit(name, "n3", {**LONG, "ends_when_asked": code})
                names.append(name)
            gate = self.tiny.folder / "may-end"
            self.submit("cancelled-in-grace", "n3", {**LONG, "saving_until": str(gate)})
            names.append("cancelled-in-grace")
        for name in names:
            self.tiny.until_step(name, 3)
        if "node-failure" in self.jobs:  # its second start is on this node, too, and is not what is to be preempted
            self.tiny.until_decided("node-failure", 2)
            self.settled("node-failure")
        argv = [
            "sbatch",
            "--parsable",
            "-p",
            "high",
            "-w",
            "n3",
            "--exclusive",
            "--mem=100",
            "-J",
            "taker",
            "-o",
            "/dev/null",
        ]
        taker = self.cluster.run([*argv, "--wrap", "exec sleep 100000"], cwd=self.cluster.home).stdout.strip()
        if self.grace:
            name = "cancelled-in-grace"
            until(lambda: any(each.signal for each in self.tiny.attempts(name)), "the signal of the preemption")
            self.cluster.run(["scancel", f"{self.jobs[name]}_0"])
            self.cluster.write(gate, "")
        for name in names:
            self.tiny.until_decided(name, 1)
        self.cluster.wait(taker, "RUNNING")
        self.cluster.release()
