"""Blows on Slurm, by what an ordinary user may do there, and one that takes an administrator of Slurm."""

import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from jobs.rundir import Tree
from launcher import batch, cluster
from launcher.attempts import AttemptRecord
from launcher.chaos.scene import BreachError, Deal, Effect, Scene, UnableError, disk_full, over, wait
from launcher.chaos.target import Target
from launcher.process import Result, run

TAKER: Final = "chaos-taker"
GRACE_SECONDS: Final = 30.0
APPEAR_SECONDS: Final = 10.0
DEAD_SECONDS: Final = 120.0
ASK_SECONDS: Final = 1.0
LAUNCH: Final = "import sys; from launcher.cli import main; sys.exit(main())"
"""`launch`, by the interpreter that runs this."""


def _job(attempt: AttemptRecord) -> str:
    if attempt.job is None:
        raise UnableError("the tree does not name its job")
    return attempt.job


def _done(answer: Result) -> Result:
    if not answer.ok:
        raise UnableError(f"{answer.argv[0]}: {cluster.first_line(answer)}")
    return answer


def _signal(job: str, name: str) -> None:
    """To the processes of its steps alone: the batch script goes on, and asks why the step ended."""
    _done(run(["scancel", f"--signal={name}", job]))


@contextmanager
def _preempt(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
    """The whole node, with all that may be preempted there."""
    argv = ["sbatch", "--parsable", f"--partition={scene.preemptor}", *scene.account, f"--nodelist={attempt.node}"]
    own = ["--exclusive", f"--job-name={TAKER}", "--output=/dev/null", "--time=10", "--wrap=exec sleep 600"]
    taker = _done(run([*argv, *own])).stdout.strip().partition(";")[0]
    try:
        yield over(target, attempt)
    finally:
        run(["scancel", taker])


@contextmanager
def _requeue(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
    del scene
    _done(cluster.requeue(_job(attempt), ended=True))
    yield over(target, attempt)


@contextmanager
def _time_limit(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
    """To the next whole minute of its running time. Its owner may lower it, and not raise it again: later attempts of this
    submission have it too."""
    del scene
    job = _job(attempt)
    text = _done(run(["scontrol", "show", "job", "-o", job])).stdout
    found = re.search(r" RunTime=(?:(\d+)-)?(\d+):(\d+):\d+ ", text)
    if found is None:
        raise UnableError("Slurm does not say how long it has run")
    days, hours, minutes = (int(part or 0) for part in found.groups())
    _done(cluster.update(job, {"TimeLimit": str(days * 1440 + hours * 60 + minutes + 1)}))
    yield over(target, attempt)


def _signals(*names: str) -> Deal:
    @contextmanager
    def deal(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
        del scene
        for name in names:
            _signal(_job(attempt), name)
        yield over(target, attempt)

    return deal


@contextmanager
def _kill_run(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
    """From another step of the same job: where a user may look for a process of a run's own."""
    del scene
    job = _job(attempt)
    number = _done(run(["squeue", "-h", "-j", job, "-o", "%A"])).stdout.split()
    if not number:
        raise UnableError("Slurm does not know its job any more")
    path = str(target.run.specification)
    pattern = f"{re.escape(path[:-1])}[{path[-1]}]"  # does not match itself
    step = ["srun", f"--jobid={number[0]}", "--overlap", "--nodes=1", "--ntasks=1", "--mem=0", "--gres=none"]
    answers = []

    def hit() -> bool:
        answers.append(run([*step, "pkill", "-KILL", "-f", "--", pattern]))
        return answers[-1].ok or target.ended(attempt.number)

    if not wait(hit, APPEAR_SECONDS):  # its task may have begun before the run itself
        _done(answers[-1])
    yield over(target, attempt)


@contextmanager
def _kill_in_grace(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
    del scene
    _signal(_job(attempt), "TERM")
    wait(lambda: _signalled(target, attempt) or target.ended(attempt.number), GRACE_SECONDS)
    _signal(_job(attempt), "KILL")
    yield over(target, attempt)


def _signalled(target: Target, attempt: AttemptRecord) -> bool:
    return any(each.number == attempt.number and each.signal for each in target.attempts())


@contextmanager
def _scancel(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
    del scene
    job = _job(attempt)
    _done(cluster.cancel([job]))
    yield over(target, attempt)
    _stays_dead(job, target, attempt)


@contextmanager
def _cancel(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
    tree = scene.launcher.request.tree
    argv = [*batch.python(sys.executable), "-c", LAUNCH, "cancel", tree.name]
    _done(run([*argv, "--seed", str(target.seed), "--experiments", str(tree.root.parent)]))
    yield over(target, attempt)
    _stays_dead(_job(attempt), target, attempt)


@contextmanager
def _launcher_killed(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
    """In the middle of its submission; the next launch must find what it left, and not submit a run twice."""
    with _cancel(scene, target, attempt) as effect:
        yield effect
    launcher = scene.launcher
    launcher.begin()
    process = launcher.process
    before = len(_intents(launcher.request.tree))
    wait(lambda: process is None or process.poll() is not None or len(_intents(launcher.request.tree)) > before, 60)
    if process is not None and process.poll() is None:
        time.sleep(target.step() % 7 * 0.01)  # elsewhere each time: before sbatch, after it, before the release
        process.send_signal(signal.SIGKILL)
        process.wait()


def _intents(tree: Tree) -> Sequence[object]:
    return list(tree.submissions.glob("*/submission.json"))


def _stays_dead(job: str, target: Target, attempt: AttemptRecord) -> None:
    """Until Slurm says that the job is over. Raises BreachError where it waits in the queue again."""
    end = time.monotonic() + DEAD_SECONDS
    while time.monotonic() < end:
        status = cluster.states([job]).jobs.get(job)
        if target.done or status is None or status.ended:
            return
        last = target.last()
        if status.state == "PENDING" or (last is not None and last.number > attempt.number and last.job == job):
            raise BreachError(f"{job} was cancelled, and came back: Slurm says {status.state}")
        time.sleep(ASK_SECONDS)
    raise BreachError(f"{job} was cancelled {DEAD_SECONDS:g} s ago, and has not ended")


@contextmanager
def _node_down(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
    """As by an administrator who sees it fail: Slurm gives up all jobs there, and starts them elsewhere."""
    del scene
    name = f"NodeName={attempt.node}"
    _done(run(["scontrol", "update", name, "State=DOWN", "Reason=launch chaos"]))
    try:
        yield over(target, attempt)
    finally:
        run(["scontrol", "update", name, "State=RESUME"])  # refused where the node's daemon was faster


@contextmanager
def _node_silent(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
    """Its daemon alone: Slurm gives the node up after its SlurmdTimeout and starts the job elsewhere, while the run that was on it
    goes on. So two attempts are alive at once."""
    stop, go_on = (command.format(node=attempt.node) for command in scene.node_commands or ("", ""))
    _done(run(["sh", "-c", stop], timeout=60))
    try:
        yield over(target, attempt)
    finally:
        _done(run(["sh", "-c", go_on], timeout=60))


DEALS: Final[Mapping[str, Deal]] = {
    "preempt": _preempt,
    "requeue": _requeue,
    "time-limit": _time_limit,
    "signals": _signals("TERM", "USR2"),
    "scancel": _scancel,
    "cancel": _cancel,
    "launcher-killed": _launcher_killed,
    "kill": _signals("KILL"),
    "kill-run": _kill_run,
    "kill-in-grace": _kill_in_grace,
    "node-down": _node_down,
    "node-silent": _node_silent,
    "disk-full": disk_full,
}


def without(scene: Scene, *, as_admin: bool) -> dict[str, str]:
    """The kinds that are not possible here, each with the reason."""
    found = {}
    if scene.preemptor is None:
        found["preempt"] = "name a partition whose jobs preempt the run's: --preemptor PARTITION"
    if not as_admin:
        found["node-down"] = "takes an administrator of Slurm: --as-admin"
    if scene.node_commands is None:
        found["node-silent"] = (
            "say how the daemon of a node is stopped and let go on: --stop-node and --start-node COMMAND"
        )
    return found
