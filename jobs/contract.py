"""What the launcher and the run agree on: exit codes, signals, events, pins. Standard library only, no heavy import."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

SPECIFICATION_FORMAT: Final = 1
"""Version of `run.json`. A run refuses a format that it does not know."""

ATTEMPT_VARIABLE: Final = "SAMEBITS_ATTEMPT"
"""Environment variable with the number of this attempt. Absent when a run is started by hand: it then takes one itself."""

SLURM_VERSION_VARIABLE: Final = "SAMEBITS_SLURM_VERSION"
"""Environment variable with what Slurm says of its version, for the record: within an image nothing can ask it."""

NODES_VARIABLE: Final = "SAMEBITS_NODES"
"""Environment variable with the number of nodes of this attempt: one `python -m jobs RUN` is started on each. Absent: 1."""

NODE_VARIABLE: Final = "SAMEBITS_NODE"
"""Environment variable with the number of this node among them, from 0. Absent: 0."""

ADDRESS_VARIABLE: Final = "SAMEBITS_ADDRESS"
"""Environment variable with the name or address by which the other nodes reach this one. Absent: 127.0.0.1."""

RANKS_VARIABLE: Final = "SAMEBITS_RANKS"
"""Environment variable with the ranks of this attempt, over all nodes. Absent: those of the recipe. Other than those only where the
recipe is elastic."""

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
"""Signals that ask a run to save and exit with `Exit.SAVED`. All mean the same. Whoever starts a run may start it with
them blocked; the run unblocks them once its handlers stand, so none is lost while it imports."""


class Exit(IntEnum):
    """Exit codes of `python -m jobs RUN`, the only word that the run says to the task besides the tree."""

    DONE = 0
    """The run is finished, now or by an earlier attempt."""
    BROKEN = 1
    """A crash: it is not retried as if it were a preemption."""
    SAVED = 75
    """Asked to stop, saved, can go on. EX_TEMPFAIL of sysexits.h."""
    FENCED = 76
    """A newer attempt of the same run exists; this one has written nothing since."""
    REFUSED = 78
    """The input, the image or the machine is not what the specification pins. EX_CONFIG."""
    UNFIT = 79
    """Refused for this machine alone, without having changed anything: on another one the same run may go on."""
    PEER = 80
    """A rank ended and took this one with it. Whoever knows of the other ranks, on this node or elsewhere, has the cause."""


_SEVERITY: Final = (Exit.UNFIT, Exit.REFUSED, Exit.FENCED, Exit.PEER, Exit.SAVED, Exit.DONE)


def worst(codes: Sequence[int]) -> int:
    """One end out of those of several ranks or nodes (negative: a signal): the one that is the cause of the others. A signal comes
    before a crash, a crash before all that the run can say of itself."""
    killed = [code for code in codes if code < 0]
    crashed = [code for code in codes if code not in _SEVERITY]
    return next(iter([*killed, *crashed]), None) or next(int(code) for code in _SEVERITY if code in codes)


class Cause(StrEnum):
    """Why an attempt ended. One per attempt, decided by the arbiter (see `launcher/arbiter.py`)."""

    DONE = "done"
    PREEMPTED = "preempted"
    REQUEUED = "requeued"
    TIME_LIMIT = "time limit"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out of memory"
    NODE_FAILURE = "node failure"
    NOT_STARTED = "not started"
    """The batch script ran, and no attempt was taken: the node's python, its file systems."""
    UNFIT = "unfit node"
    """The run would go on to other bits there, or finds no GPU."""
    REFUSED = "refused"
    FENCED = "fenced"
    UNKNOWN = "unknown"


class Action(StrEnum):
    """What the arbiter did about it."""

    NONE = "none"
    """Nothing to do: finished, or Slurm requeues by itself."""
    REQUEUE = "requeue"
    STOP = "stop"


class Event(StrEnum):
    """The `event` key of a line of `events.jsonl`. Lines are appended, never changed; readers fold them per attempt.

    started    by the task:    attempt, time, node, job (``ARRAYJOB_TASK`` or null), restart (Slurm's restart count). By the
                               arbiter, for a start of which the task never spoke
    resumed    by the run:     attempt, time, step, steps (of the whole run), checkpoint (file name or null), lost_steps,
                               skipped (list of {file, reason}), at ([step, micro-batch, evaluations] that it went on from),
                               class (only where the hardware class is another one than that of the checkpoint: what differs)
    signalled  by the task:    attempt, time, signal (name)
    saved      by the run:     attempt, time, step, checkpoint, seconds (from the signal to the published checkpoint)
    unsaved    by the run:     attempt, time, step, checkpoint (that stands, or null), reason: the disk was full, training goes on
    ended      by the task:    attempt, time, exit_code (negative: killed by that signal), step (last in the ledger)
    decided    by the arbiter: attempt, time, cause, action, evidence (the fields of Slurm's answer it was decided on; exclude:
                               nodes that are kept from the next attempts)
    """

    STARTED = "started"
    RESUMED = "resumed"
    SIGNALLED = "signalled"
    SAVED = "saved"
    UNSAVED = "unsaved"
    ENDED = "ended"
    DECIDED = "decided"


@dataclass(frozen=True, slots=True)
class ImagePin:
    """What a run executes, by content. Written into `run.json`, compared again on the node before anything starts."""

    engine: str
    """`host`, `docker` or `apptainer`."""
    environment: str
    """``sha256:`` of the environment. For `host`: of requirements.lock, which the installed packages must equal. For `docker`: the
    id of the environment's image. For `apptainer`: of the SIF file."""
    code: str
    """``git-tree:`` and the hash of the commit's tree."""
    python: str
    """The interpreter's version, ``3.11.2``."""
    base: str | None = None
    """``name@sha256:`` of the base image. None for `host`."""
    layer: str | None = None
    """``sha256:`` of what brings the code. For `docker`: the id of the image that is run, the environment's with the code on top.
    For `apptainer`: of the squashfs file. None for `host`, where the tree's own hash is compared."""
    manifest: str | None = None
    """``registry/name@sha256:`` by which a node pulls what is run. None where it was pushed nowhere."""
    key: str | None = None
    """Hash of what the environment is made from (`ImageRequest.key`). None for `host`."""


TIMING_FIELDS: Final = frozenset(
    {"time", "seconds", "epoch_seconds", "tokens_per_second", "gpu_utilization", "gpu_reason", "gpu_memory_bytes"}
)
"""Keys of a metrics line that say how fast or how busy, not what: two equal runs may differ in them and in nothing else."""
