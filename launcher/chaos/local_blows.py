"""Blows on this machine: signals to the run, to its task, to the launcher."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from launcher.attempts import AttemptRecord
from launcher.chaos.scene import Deal, Effect, Scene, UnableError, disk_full, over, wait
from launcher.chaos.target import Target

TASK: Final = "launcher.task"
GRACE_SECONDS: Final = 5.0


def processes(target: Target) -> tuple[list[int], list[int]]:
    """The task of a run, and the run itself: every process of ours whose arguments name the run's specification."""
    wanted = os.fsencode(target.run.specification)
    tasks: list[int] = []
    runs: list[int] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            if wanted not in words or path.stat().st_uid != os.geteuid():
                continue
        except OSError:
            continue
        (tasks if TASK.encode() in words else runs).append(int(path.name))
    return tasks, runs


def _send(pids: list[int], *numbers: int) -> None:
    if not pids:
        raise UnableError("its process is not there")
    for number in numbers:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _to_task(*numbers: int) -> Deal:
    @contextmanager
    def deal(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
        del scene
        _send(processes(target)[0], *numbers)
        yield over(target, attempt)

    return deal


def _to_launcher(number: int) -> Deal:
    """All runs of the launcher save then, those that are not aimed at as well."""

    @contextmanager
    def deal(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
        process = scene.launcher.process
        if process is None or process.poll() is not None:
            raise UnableError("the launcher is not there")
        process.send_signal(number)
        yield over(target, attempt)

    return deal


@contextmanager
def _kill_run(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
    del scene
    _send(processes(target)[1], signal.SIGKILL)
    yield over(target, attempt)


@contextmanager
def _kill_in_grace(scene: Scene, target: Target, attempt: AttemptRecord) -> Iterator[Effect]:
    del scene
    tasks, runs = processes(target)
    _send(tasks, signal.SIGTERM)
    wait(lambda: target.saving() or target.ended(attempt.number), GRACE_SECONDS)
    with suppress(UnableError):  # it was faster
        _send(runs, signal.SIGKILL)
    yield over(target, attempt)


DEALS: Final[Mapping[str, Deal]] = {
    "term": _to_task(signal.SIGTERM),
    "signals": _to_task(signal.SIGTERM, signal.SIGUSR2),
    "interrupt": _to_launcher(signal.SIGINT),
    "kill": _to_task(signal.SIGKILL),
    "kill-run": _kill_run,
    "kill-in-grace": _kill_in_grace,
    "launcher-killed": _to_launcher(signal.SIGKILL),
    "disk-full": disk_full,
}
