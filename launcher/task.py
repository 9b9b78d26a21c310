"""The task: host Python on the node, or a child on this machine. Starts the image, forwards signals, tells the tree how it ended.

Standard library only at import. submitit pickles nothing but a call of `start` with two paths."""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final

from jobs.contract import ATTEMPT_VARIABLE, SLURM_VERSION_VARIABLE, STOP_SIGNALS, Event, Exit, ImagePin
from jobs.files import append_line, now, read_lines
from jobs.rundir import RunDir
from launcher import nodes
from launcher.allocation import allocation
from launcher.engines import Command, NodeOptions, Start, engine
from launcher.errors import LaunchError
from launcher.inputs import hub_cache
from launcher.placement import Placement
from launcher.process import run as run_program
from launcher.record import is_cancelled

PR_SET_PDEATHSIG: Final = 1
POLL_SECONDS: Final = 0.2
VERSION_SECONDS: Final = 5
SLURM_VARIABLES: Final = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT",
    "SLURM_JOB_NAME",
    "SLURM_JOB_NODELIST",
    "SLURMD_NODENAME",
    "SLURM_JOB_PARTITION",
    "SLURM_CLUSTER_NAME",
    "CUDA_VISIBLE_DEVICES",
)
"""What a run learns of its job: for the record, and which GPUs are its own."""


def start(specification: str, placement: str) -> int:
    """Run one attempt to its end and return its exit code (`jobs.contract.Exit`; negative: killed by that signal).

    Returns at once for a run that is done: a Slurm that starts a finished job again finds nothing to do."""
    # Kept until there is a run to pass them on to: one that came before would end the task, or be lost. Kept and not blocked, since
    # what this thread blocks is taken by any other that a library has, and goes to submitit's own handler.
    received: list[int] = []
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, _frame: received.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # on this machine it is started with them blocked
    signal.signal(signal.SIGCONT, signal.SIG_DFL)  # comes with Slurm's SIGTERM; submitit answers it in a way of its own
    path, run = Path(specification), RunDir.of_specification(Path(specification))
    place, node = Placement.read(Path(placement)), nodes.here()
    meeting = nodes.Meeting(Path(placement).parent, node) if node.count > 1 else None
    if meeting is None or node.first:
        word = _begin(run, place, node)
        if meeting is not None:
            meeting.say(word)
    else:
        word = meeting.wait(lambda: bool(received))
    if word.attempt is None:
        if meeting is not None:
            meeting.end(word.code)
        return word.code
    attempt = word.attempt
    with _log(run, attempt, node).open("ab", buffering=0) as log:
        code = _Attempt(path, run, place, attempt, node, meeting, log).go(received)
    if meeting is not None:
        meeting.end(code)
    if node.first:
        _record(run, _ended(run, attempt, code, meeting))
    return code


def _begin(run: RunDir, place: Placement, node: nodes.Here) -> nodes.Word:
    """Take an attempt, for all nodes; or the exit code with which they end at once."""
    if run.done.exists():
        print(f"{run.name} seed {run.seed}: done already", flush=True)
        return nodes.Word(None, Exit.DONE)
    if is_cancelled(run, place.submission):
        print(f"{run.name} seed {run.seed}: cancelled, so it does not start", flush=True)
        return nodes.Word(None, Exit.SAVED)
    attempt = run.take_attempt()
    append_line(run.events, _started(attempt, node))
    return nodes.Word(attempt)


def _log(run: RunDir, attempt: int, node: nodes.Here) -> Path:
    """The attempt's own, which the first node has taken it with; beside it those of the others."""
    log = run.attempt_log(attempt)
    return log if node.first else log.with_suffix(f".node-{node.number}.log")


def _record(run: RunDir, line: dict[str, Any]) -> None:
    """An event. A disk that does not take it must not end the run, which may be saving at this moment."""
    try:
        append_line(run.events, line)
    except OSError as error:
        print(f"event not written: {error}: {line}", file=sys.stderr, flush=True)


def _started(attempt: int, node: nodes.Here) -> dict[str, Any]:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return {
        "event": Event.STARTED,
        "attempt": attempt,
        "time": now(),
        "node": node.name,
        "job": f"{array}_{task}" if array and task else None,
        "restart": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
        **({"nodes": os.environ["SLURM_JOB_NODELIST"]} if node.count > 1 else {}),
    }


def _ended(run: RunDir, attempt: int, code: int, meeting: nodes.Meeting | None) -> dict[str, Any]:
    """The event; of several nodes with the end of each, once they have said it."""
    told: dict[str, Any] = {}
    if meeting is not None:
        code, told["nodes"] = meeting.ends()
    head = {"event": Event.ENDED, "attempt": attempt, "time": now(), "exit_code": code, "step": _last_step(run)}
    return head | told


def _last_step(run: RunDir) -> int | None:
    """The last step in the ledger; None before the first."""
    last = None
    for line in read_lines(run.ledger):
        last = line
    step = last.get("step") if last else None
    return step if isinstance(step, int) else None


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One attempt on one node."""

    path: Path
    """Of the specification."""
    run: RunDir
    place: Placement
    number: int
    node: nodes.Here
    meeting: nodes.Meeting | None
    log: IO[bytes]

    def go(self, received: list[int]) -> int:
        """Check the image and run it to its end. Returns the exit code; negative: killed by that signal."""
        pin = ImagePin(**json.loads(self.path.read_text(encoding="utf-8"))["image"])
        image, options = engine(pin.engine), NodeOptions.from_json(self.place.node)
        try:
            layout = nodes.layout(self.node, self.place.ranks)
        except LaunchError as error:  # nobody's node is to blame for a controller that does not answer
            _say(self.log, f"not started: {error}\n".encode())
            return Exit.PEER
        try:
            problems = image.verify(pin, options)
        except (
            OSError,
            LaunchError,
        ) as error:  # an engine that is down, a file system that is gone: this node's trouble
            _say(self.log, f"refused here: the image cannot be checked: {error}\n".encode())
            return Exit.UNFIT
        if problems:
            _say(self.log, "".join(f"refused: {problem}\n" for problem in problems).encode())
            return Exit.REFUSED
        image.clean(self.run.id)
        given = {name: os.environ[name] for name in (*self.place.environment, *SLURM_VARIABLES) if name in os.environ}
        cache = hub_cache(os.environ)
        if pin.engine == "host" or str(cache) in self.place.mounts:
            # Safe to share, weights are pinned by revision; without it each node would fetch them anew.
            given.setdefault("HF_HOME", str(cache))
        begin = Start(
            run_id=self.run.id,
            attempt=self.number,
            arguments=("-m", "jobs", str(self.path)),
            env={**given, **_slurm_version(), **layout, ATTEMPT_VARIABLE: str(self.number)},
            mounts={self.run.root: "rw", **{Path(folder): mode for folder, mode in self.place.mounts.items()}},
            network=self.place.network,
            allocation=allocation(os.environ),
            node=self.node.number,
        )
        return self._supervise(image.command(pin, options, begin), received)

    def _supervise(self, command: Command, received: list[int]) -> int:
        """Start the run, pass its output on, forward signals, those `received` before as well, and return its exit code."""
        child: list[subprocess.Popen[bytes]] = []

        def send(number: int) -> None:
            for process in child:
                # poll() would reap it under the feet of wait(); a signal to a child that has ended but is not reaped does nothing
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):  # wait() has reaped it, and not said so yet
                        os.kill(process.pid, number)

        def forward(number: int, _frame: FrameType | None) -> None:
            received.append(number)
            send(number)

        for known in STOP_SIGNALS:
            signal.signal(known, forward)
        # The child starts with them blocked, and lets them in once it can save: none is lost while it imports.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            process = _popen(command)
            child.append(process)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        for number in set(received):  # before there was a child; one that it gets twice means no more
            os.kill(process.pid, number)
        told, watch = 0, nodes.Watch(self.meeting, send)
        for block in _output(process):
            if block:
                _say(self.log, block)
            told = self._tell(received, told)
            watch.look()
        code = process.wait()
        self._tell(received, told)
        return Exit.PEER if watch.ended else code

    def _tell(self, received: Sequence[int], told: int) -> int:
        """Record each kind of signal once; Slurm sends some of them many times over. Of several nodes the first one speaks."""
        for position in range(told, len(received)) if self.node.first else ():
            number = received[position]
            if number not in received[:position]:
                name = signal.Signals(number).name
                _record(self.run, {"event": Event.SIGNALLED, "attempt": self.number, "time": now(), "signal": name})
        return len(received)


def _slurm_version() -> dict[str, str]:
    """For the record, some milliseconds; nothing where Slurm does not answer: a run does not wait for its record."""
    if "SLURM_JOB_ID" not in os.environ:
        return {}
    try:
        answer = run_program(["scontrol", "--version"], timeout=VERSION_SECONDS)
    except LaunchError:
        return {}
    return {SLURM_VERSION_VARIABLE: answer.stdout.strip()} if answer.ok else {}


def _output(process: "subprocess.Popen[bytes]") -> Iterator[bytes]:
    """What a run writes, up to its end; empty when it was silent for a while. Its end, not that of the pipe: a helper that it left
    behind may hold that open for ever."""
    assert process.stdout is not None  # noqa: S101 - it was asked for
    while True:
        ended = process.poll() is not None
        if select.select([process.stdout], [], [], 0 if ended else POLL_SECONDS)[0]:
            block = process.stdout.read(1 << 16)
            if not block:
                return
            yield block
        elif ended:
            return
        else:
            yield b""


def _popen(command: Command) -> "subprocess.Popen[bytes]":
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def die_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(Exit.BROKEN)

    return subprocess.Popen(
        command.argv,
        env=dict(command.env),
        cwd=command.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        # A session of its own: Ctrl-C reaches it once, through us.
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - the task has one thread
    )


def _say(log: IO[bytes], block: bytes) -> None:
    """Into the attempt's log, and to our own output. A full disk costs lines, not the run."""
    try:
        log.write(block)
    except OSError as error:
        print(f"log not written: {error}", file=sys.stderr, flush=True)
    try:
        sys.stdout.buffer.write(block)
        sys.stdout.flush()
    except OSError:
        pass


def main(arguments: Sequence[str]) -> int:
    """`python -m launcher.task SPECIFICATION PLACEMENT`, for runs on this machine."""
    specification, placement = arguments
    code = start(specification, placement)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
