"""TensorBoard: event files in metrics/seed-N/tensorboard, one per attempt, that read as those of one run.

Written record by record on the calling thread: no queue, so a killed run has lost nothing that its checkpoint counts on."""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from jobs import trackers
from jobs.rundir import RunDir

PREFIX: Final = "events.out.tfevents."

TAIL: Final = 1 << 16
"""Bytes at the end of metrics.jsonl in which the lines of its last step are looked for; they are under 1 kB."""


class EventFile:
    """One attempt's file."""

    def __init__(self, rundir: RunDir, resumed_step: int) -> None:
        folder = rundir.metrics / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{PREFIX}{_number(folder):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._writer = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # Readers drop what earlier files say of this step and later ones. The step itself is then told again, since a step
        # and the evaluation after it share a number, and only one of them may stand.
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=resumed_step, session_log=start))
        for line in _last_lines(rundir, resumed_step):
            self.log(line)

    def log(self, line: Mapping[str, Any]) -> None:
        values = [Summary.Value(tag=tag, simple_value=number) for tag, number in trackers.numbers(line).items()]
        when = datetime.fromisoformat(line["time"]).timestamp()
        self._write(Event(wall_time=when, step=line["step"], summary=Summary(value=values)))

    def close(self, exit_code: int) -> None:  # noqa: ARG002 - every tracker is told
        self._file.close()

    def _write(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())
        self._file.flush()


def start(rundir: RunDir, resumed_step: int) -> EventFile:
    """Raises OSError."""
    return EventFile(rundir, resumed_step)


def _number(folder: Path) -> int:
    """The time, as is the custom, but after that of every file before: TensorBoard reads them in the order of their names, and
    the clock of another node may be behind."""
    taken = [path.name.removeprefix(PREFIX).split(".")[0] for path in folder.glob(f"{PREFIX}*")]
    return max([int(time.time()), *(int(number) + 1 for number in taken if number.isdecimal())])


def _last_lines(rundir: RunDir, step: int) -> Iterator[dict[str, Any]]:
    """The lines of metrics.jsonl that tell of `step`, which is its last."""
    try:
        with rundir.metrics_file.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            tail = file.read().split(b"\n")
    except FileNotFoundError:
        return
    for text in tail[1:] if size > TAIL else tail:
        if text.strip() and (line := json.loads(text))["step"] == step:
            yield line
