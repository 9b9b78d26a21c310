"""The embedded default: the runs of a plan as children of this process, on this machine, a few at once."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from filelock import FileLock, Timeout

from jobs.contract import STOP_SIGNALS, Action, Cause, Event, Exit
from jobs.files import append_line, now
from jobs.rundir import RunDir, Tree
from launcher import batch, bundle
from launcher.bundle import Bundle
from launcher.errors import ExitCode, fail
from launcher.placement import Placement
from launcher.plan import Plan
from launcher.record import Submission, new_id
from launcher.runstate import examine
from launcher.watch import Watch

POLL_SECONDS: Final = 0.1
LOCK_SECONDS: Final = 60
LAST_LINES: Final = 15
PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Child:
    """A task that runs."""

    run: RunDir
    process: "subprocess.Popen[bytes]"


class Stop:
    """Ctrl-C or TERM: the first asks the runs to save, the second ends them."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.asked += 1

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, self) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(plan: Plan, tree: Tree) -> int:
    """Run every seed that is neither done nor under way, and return an ExitCode: RUN if one broke, SAVED if stopped."""
    own = bundle.ensure(plan.store)
    submission = _record(plan, tree, own)
    if submission is None:
        return ExitCode.OK
    placement = submission.folder(tree) / "placement.json"
    waiting = [tree.run(seed) for seed in submission.seeds]
    running: list[Child] = []
    codes: dict[int, int] = {}
    stop, forwarded = Stop(), 0
    with stop.listening(), Watch(tree, submission.seeds) as watch:
        while running or (waiting and not stop.asked):
            while waiting and not stop.asked and len(running) < plan.local_parallelism:
                running.append(_start(waiting.pop(0), placement, own))
                watch.started(running[-1].run)
            if stop.asked > forwarded:
                watch.say(
                    "Asked to stop: the runs save now. Once more ends them at once." if forwarded == 0 else "Ended."
                )
                forwarded = stop.asked
                _signal(running, signal.SIGTERM if forwarded == 1 else signal.SIGKILL)
            for child in [child for child in running if child.process.poll() is not None]:
                running.remove(child)
                codes[child.run.seed] = child.process.returncode
                _decide(child)
                watch.ended(child.run, child.process.returncode)
            watch.look()
            time.sleep(POLL_SECONDS)
    return _verdict(tree, codes, stopped=bool(stop.asked))


def _record(plan: Plan, tree: Tree, own: Bundle) -> Submission | None:
    """The submission of what is to be run, recorded before anything starts. None: all of it is under way already."""
    tree.submissions.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(tree.submissions / ".lock", timeout=LOCK_SECONDS):
            active = {
                state.seed: state for state in examine(tree, [wanted.seed for wanted in plan.todo]) if state.active
            }
            for state in active.values():
                print(f"seed {state.seed} is under way already: {state.state} {state.detail}".rstrip())
            seeds = tuple(wanted.seed for wanted in plan.todo if wanted.seed not in active)
            if not seeds:
                return None
            submission = Submission(
                id=new_id(tree),
                place="local",
                state="submitted",
                seeds=seeds,
                job=None,
                cluster=None,
                partition=None,
                host=socket.gethostname(),
                pid=os.getpid(),
                time=now(),
            )
            folder = submission.folder(tree)
            folder.mkdir(parents=True)
            Placement(
                submission=submission.id,
                node=plan.node.as_json(),
                network=plan.network,
                environment=plan.environment,
                mounts=dict(plan.mounts),
                site="",
                preemption="requeue",
                budgets={},
                ranks=plan.ranks,
                launcher=own.digest,
            ).write(folder / "placement.json")
            return submission.write(tree)
    except Timeout as error:
        hint = f"`launch status {tree.name}` shows what it does."
        raise fail(ExitCode.TREE, "Another launch of this experiment is under way.", hint=hint) from error


def _start(run: RunDir, placement: Path, own: Bundle) -> Child:
    libc = ctypes.CDLL(None)

    def save_if_parent_dies() -> None:
        # Held back until the task can answer: a stop that comes while its Python starts would be its death.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    start = batch.launcher(sys.executable, own.path, own.digest)
    argv = (*start, "launcher.task", str(run.specification), str(placement))
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # the attempt's log has it
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the runs once, through us
        preexec_fn=save_if_parent_dies,  # noqa: PLW1509 - one thread
    )
    return Child(run, process)


def _signal(running: list[Child], number: int) -> None:
    for child in running:
        if child.process.poll() is None:
            child.process.send_signal(number)


CAUSES: Final[Mapping[int, Cause]] = {
    Exit.DONE: Cause.DONE,
    Exit.SAVED: Cause.INTERRUPTED,
    -signal.SIGTERM: Cause.INTERRUPTED,
    Exit.FENCED: Cause.FENCED,
    Exit.REFUSED: Cause.REFUSED,
    Exit.UNFIT: Cause.UNFIT,
}


def _decide(child: Child) -> None:
    """On this machine nobody preempts and nobody requeues: what the exit code says is all there is to know."""
    code, attempts = child.process.returncode, child.run.attempts()
    cause = CAUSES.get(code, Cause.INTERRUPTED if code == -signal.SIGKILL else Cause.CRASHED)
    action = Action.NONE if cause is Cause.DONE else Action.STOP
    line = {
        "event": Event.DECIDED,
        "attempt": max(attempts, default=0),
        "time": now(),
        "cause": cause,
        "action": action,
    }
    append_line(child.run.events, {**line, "evidence": {"exit_code": code}})
    if child.process.stderr is not None:
        # Only a task that broke itself writes here: the run's output goes into the log.
        if (code not in CAUSES or code in {Exit.REFUSED, Exit.UNFIT}) and (
            words := child.process.stderr.read().decode(errors="replace").strip()
        ):
            sys.stderr.write(f"{words.splitlines()[-1]}\n")
        child.process.stderr.close()


def _verdict(tree: Tree, codes: Mapping[int, int], *, stopped: bool) -> int:
    broken = {seed: code for seed, code in codes.items() if code not in (Exit.DONE, Exit.SAVED)}
    if stopped and all(code == -signal.SIGKILL for code in broken.values()):
        print("Stopped. The same command goes on from here.")
        return ExitCode.SAVED
    for seed, code in broken.items():
        run = tree.run(seed)
        log = run.attempt_log(max(run.attempts(), default=0))
        print(f"\nseed {seed} ended with exit code {code}. The end of {log}:", file=sys.stderr)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        for line in lines[-LAST_LINES:]:
            print(f"    {line}", file=sys.stderr)
    if broken:
        return ExitCode.RUN
    return ExitCode.OK if all(code == Exit.DONE for code in codes.values()) else ExitCode.SAVED
