"""What the node's own daemon wrote into a job's log about its end, where the controller does not say. Stdlib only."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Final

TAIL: Final = 1 << 18
"""Bytes at the end of a log in which it is looked for."""
DECIDED: Final = "samebits: job "
"""Begins the arbiter's last line about a start: what stands before it is of earlier starts."""


class Heard(StrEnum):
    """Why a job or a process of it was ended."""

    PREEMPTED = "preempted"
    NODE = "node failure"
    MEMORY = "out of memory"


_JOB: Final = r"^slurmstepd[^:]*: error: \*\*\* JOB \d+ .*CANCELLED AT \S+"
_LINES: Final = {
    Heard.PREEMPTED: re.compile(rf"{_JOB} DUE TO PREEMPTION", re.MULTILINE),
    Heard.NODE: re.compile(rf"{_JOB} DUE TO NODE FAILURE|^srun: error: Node failure on ", re.MULTILINE),
    # 22.05: Detected 1 oom-kill event(s) in StepId=7.0. 23.02 and later: Detected 1 oom_kill event in StepId=7.0.
    Heard.MEMORY: re.compile(r"^slurmstepd[^:]*: error: Detected \d+ oom[-_]kill event", re.MULTILINE),
}


def heard(log: Path) -> frozenset[Heard]:
    """What is said of the newest start. Nothing, when the log is not there or cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return frozenset()
    _, _, newest = text.rpartition(f"\n{DECIDED}")
    return frozenset(what for what, line in _LINES.items() if line.search(newest))
