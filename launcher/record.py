"""The record of a submission: written before anything is started, completed with the job id, found again after a crash."""

import contextlib
import json
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from jobs.files import publish_json
from jobs.rundir import RunDir, Tree

State = Literal["intent", "submitted", "failed", "cancelled"]

COMMENT = "samebits:"
"""Begins the comment of a job on Slurm; the submission's id follows."""

STAMP: Final = "%Y%m%d-%H%M%S-%f"
"""The time in a submission's id."""


@dataclass(frozen=True, slots=True)
class Submission:
    """`logs/submissions/ID/submission.json`: one array of Slurm, or one launch on this machine."""

    id: str
    """Sorts by time; also in the job's comment on Slurm, by which an orphan is found again."""
    place: Literal["slurm", "local"]
    state: State
    seeds: tuple[int, ...]
    """In array order: task I runs seeds[I]."""
    job: str | None
    """The array's job id; None until sbatch has answered, and for `local`."""
    cluster: str | None
    partition: str | None
    host: str
    pid: int
    """Of the launcher (intent) or of the local runner."""
    time: str

    def job_of(self, seed: int) -> str | None:
        """`ARRAYJOB_TASK`, the only form in which a job is ever named to Slurm."""
        return f"{self.job}_{self.seeds.index(seed)}" if self.job is not None else None

    def folder(self, tree: Tree) -> Path:
        return tree.submissions / self.id

    def write(self, tree: Tree) -> "Submission":
        """Publish it, for the submission and for each of its seeds that has no newer one. Returns itself."""
        folder = self.folder(tree)
        folder.mkdir(parents=True, exist_ok=True)
        publish_json(folder / "submission.json", asdict(self))
        for seed in self.seeds:
            run = tree.run(seed)
            run.logs.mkdir(parents=True, exist_ok=True)
            if _fields(run.submission).get("id", "") > self.id:
                continue
            state = (
                "cancelled" if is_cancelled(run, self.id) else self.state
            )  # it may be cancelled while it is submitted
            publish_json(run.submission, self._of(seed) | {"state": state})
        return self

    @classmethod
    def read(cls, path: Path) -> "Submission":
        """Raises OSError, ValueError or TypeError."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**fields, "seeds": tuple(fields["seeds"])})

    def cancel(self, tree: Tree, seed: int) -> None:
        """Record that a seed is to end for good, before Slurm is told: from here on nothing of this submission brings it back, and
        a start of it ends at once. Slurm keeps no trace of a task that was cancelled while it waited. Raises OSError."""
        run = tree.run(seed)
        if _fields(run.submission).get("id") == self.id:
            publish_json(run.submission, self._of(seed) | {"state": "cancelled"})

    def _of(self, seed: int) -> dict[str, Any]:
        return asdict(self) | {"seed": seed, "job": self.job_of(seed)}

    def with_state(self, state: State, job: str | None = None) -> "Submission":
        return replace(self, state=state, job=job if job is not None else self.job)


def is_cancelled(run: RunDir, submission: str) -> bool:
    """Whether somebody has asked by `launch cancel` that this submission of a run ends for good."""
    fields = _fields(run.submission)
    return fields.get("id") == submission and fields.get("state") == "cancelled"


def _fields(path: Path) -> dict[str, Any]:
    """A seed's record; empty when there is none that can be read."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


def new_id(tree: Tree) -> str:
    """`20260131-120000-000000-1a2b`: sorts after every submission that the tree has, safe in a path and in a Slurm comment.

    Of one made on a machine whose clock is ahead, too: the order is that of the records, not that of the clocks."""
    moment = datetime.now(UTC)
    newest = max((path.parent.name for path in tree.submissions.glob("*/submission.json")), default="")
    with contextlib.suppress(ValueError):
        last = datetime.strptime(newest.rpartition("-")[0], STAMP).replace(tzinfo=UTC)
        moment = max(moment, last + timedelta(microseconds=1))
    return f"{moment:{STAMP}}-{secrets.token_hex(2)}"


def submissions(tree: Tree) -> list[Submission]:
    """All submissions of a tree, oldest first. A folder without a readable record is passed over: it never became an intent."""
    found = []
    for path in sorted(tree.submissions.glob("*/submission.json")):
        try:
            found.append(Submission.read(path))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return found
