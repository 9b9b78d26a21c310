"""The task: host Python on the node, or a child on this machine. Starts the image, forwards signals, tells the tree how it ended.

Standard library only at import. submitit pickles nothing but a call of `start` with two paths."""

import contextlib
import ctypes
import json
import os
import platform
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final

from jobs.contract import ATTEMPT_VARIABLE, SLURM_VERSION_VARIABLE, STOP_SIGNALS, Event, Exit, ImagePin
from jobs.files import append_line, now, read_lines
from jobs.rundir import RunDir
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
    signal.signal(signal.SIGCONT, signal.SIG_DFL)  # comes with Slurm's SIGTERM; submitit answers it in a way of its own
    path = Path(specification)
    run = RunDir.of_specification(path)
    if run.done.exists():
        print(f"{run.name} seed {run.seed}: done already", flush=True)
        return Exit.DONE
    place = Placement.read(Path(placement))
    if is_cancelled(run, place.submission):
        print(f"{run.name} seed {run.seed}: cancelled, so it does not start", flush=True)
        return Exit.SAVED
    attempt = run.take_attempt()
    append_line(run.events, _started(attempt))
    with run.attempt_log(attempt).open("ab", buffering=0) as log:
        code = _attempt(path, run, place, attempt, log, received)
    _record(run, {"event": Event.ENDED, "attempt": attempt, "time": now(), "exit_code": code, "step": _last_step(run)})
    return code


def _record(run: RunDir, line: dict[str, Any]) -> None:
    """An event. A disk that does not take it must not end the run, which may be saving at this moment."""
    try:
        append_line(run.events, line)
    except OSError as error:
        print(f"event not written: {error}: {line}", file=sys.stderr, flush=True)


def _started(attempt: int) -> dict[str, Any]:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return {
        "event": Event.STARTED,
        "attempt": attempt,
        "time": now(),
        "node": os.environ.get("SLURMD_NODENAME") or platform.node(),
        "job": f"{array}_{task}" if array and task else None,
        "restart": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    }


def _last_step(run: RunDir) -> int | None:
    """The last step in the ledger; None before the first."""
    last = None
    for line in read_lines(run.ledger):
        last = line
    step = last.get("step") if last else None
    return step if isinstance(step, int) else None


def _attempt(path: Path, run: RunDir, place: Placement, attempt: int, log: IO[bytes], received: list[int]) -> int:
    pin = ImagePin(**json.loads(path.read_text(encoding="utf-8"))["image"])
    image, node = engine(pin.engine), NodeOptions.from_json(place.node)
    try:
        problems = image.verify(pin, node)
    except (OSError, LaunchError) as error:  # an engine that is down, a file system that is gone: this node's trouble
        _say(log, f"refused here: the image cannot be checked: {error}\n".encode())
        return Exit.UNFIT
    if problems:
        text = "".join(f"refused: {problem}\n" for problem in problems)
        _say(log, text.encode())
        return Exit.REFUSED
    image.clean(run.id)
    given = {name: os.environ[name] for name in (*place.environment, *SLURM_VARIABLES) if name in os.environ}
    cache = hub_cache(os.environ)
    if pin.engine == "host" or str(cache) in place.mounts:
        # Safe to share, weights are pinned by revision; without it each node would fetch them anew.
        given.setdefault("HF_HOME", str(cache))
    begin = Start(
        run_id=run.id,
        attempt=attempt,
        arguments=("-m", "jobs", str(path)),
        env={**given, **_slurm_version(), ATTEMPT_VARIABLE: str(attempt)},
        mounts={run.root: "rw", **{Path(folder): mode for folder, mode in place.mounts.items()}},
        network=place.network,
        allocation=allocation(os.environ),
    )
    return _supervise(image.command(pin, node, begin), run, attempt, log, received)


def _slurm_version() -> dict[str, str]:
    """For the record, some milliseconds; nothing where Slurm does not answer: a run does not wait for its record."""
    if "SLURM_JOB_ID" not in os.environ:
        return {}
    try:
        answer = run_program(["scontrol", "--version"], timeout=VERSION_SECONDS)
    except LaunchError:
        return {}
    return {SLURM_VERSION_VARIABLE: answer.stdout.strip()} if answer.ok else {}


def _supervise(command: Command, run: RunDir, attempt: int, log: IO[bytes], received: list[int]) -> int:
    """Start the run, pass its output on, forward signals, those `received` before as well, and return its exit code."""
    child: list[subprocess.Popen[bytes]] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for process in child:
            # poll() would reap it under the feet of wait(); a signal to a child that has ended but is not reaped does nothing
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):  # wait() has reaped it, and not said so yet
                    os.kill(process.pid, number)

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
    told = 0
    assert process.stdout is not None  # noqa: S101 - it was asked for
    for block in _output(process):
        if block:
            _say(log, block)
        told = _tell(run, attempt, received, told)
    code = process.wait()
    _tell(run, attempt, received, told)
    return code


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


def _tell(run: RunDir, attempt: int, received: Sequence[int], told: int) -> int:
    """Record each kind of signal once; Slurm sends some of them many times over."""
    for position in range(told, len(received)):
        number = received[position]
        if number not in received[:position]:
            name = signal.Signals(number).name
            _record(run, {"event": Event.SIGNALLED, "attempt": attempt, "time": now(), "signal": name})
    return len(received)


def main(arguments: Sequence[str]) -> int:
    """`python -m launcher.task SPECIFICATION PLACEMENT`, for runs on this machine."""
    specification, placement = arguments
    code = start(specification, placement)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
