"""The paths of the experiment tree (R22), and nothing else: both halves find every file of a run through this module."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tree:
    """`experiments/NAME`. Shared by all seeds of one experiment."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def config(self) -> Path:
        """Resolved, written once, read-only."""
        return self.root / "config.yaml"

    @property
    def folders(self) -> tuple[Path, ...]:
        return tuple(self.root / part for part in ("checkpoints", "logs", "metrics", "artifacts"))

    @property
    def submissions(self) -> Path:
        """One folder per submission: its intent, and submitit's own files."""
        return self.root / "logs" / "submissions"

    @property
    def patch(self) -> Path:
        """What --allow-dirty added to the commit; absent for a clean run."""
        return self.root / "artifacts" / "source.patch"

    def run(self, seed: int) -> "RunDir":
        return RunDir(self.root, seed)

    def seeds(self) -> list[int]:
        """Seeds that have a specification, in ascending order."""
        found = (self.root / "artifacts").glob("seed-*/run.json")
        numbers = (path.parent.name.removeprefix("seed-") for path in found)
        return sorted(int(number) for number in numbers if number.isdecimal())


@dataclass(frozen=True, slots=True)
class RunDir:
    """The part of a tree that belongs to one seed."""

    root: Path
    seed: int

    @classmethod
    def of_specification(cls, path: Path) -> "RunDir":
        """From `experiments/NAME/artifacts/seed-N/run.json`. Raises ValueError for a path of another shape."""
        folder = path.absolute().parent
        number = folder.name.removeprefix("seed-")
        if path.name != "run.json" or folder.parent.name != "artifacts" or not number.isdecimal():
            msg = f"{path}: a run specification is experiments/NAME/artifacts/seed-N/run.json"
            raise ValueError(msg)
        return cls(folder.parent.parent, int(number))

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def id(self) -> str:
        """Names this run among all of a machine, of all users and trees: safe in the name of a container or a process."""
        place = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:12]
        return f"{self.name}-seed-{self.seed}-{place}"

    def _part(self, part: str) -> Path:
        return self.root / part / f"seed-{self.seed}"

    @property
    def checkpoints(self) -> Path:
        return self._part("checkpoints")

    @property
    def logs(self) -> Path:
        return self._part("logs")

    @property
    def metrics(self) -> Path:
        return self._part("metrics")

    @property
    def artifacts(self) -> Path:
        return self._part("artifacts")

    @property
    def folders(self) -> tuple[Path, ...]:
        return (self.checkpoints, self.logs, self.metrics, self.artifacts)

    @property
    def specification(self) -> Path:
        return self.artifacts / "run.json"

    @property
    def events(self) -> Path:
        return self.logs / "events.jsonl"

    @property
    def submission(self) -> Path:
        """The newest submission of this seed: its intent, then its job id."""
        return self.logs / "submission.json"

    @property
    def metrics_file(self) -> Path:
        return self.metrics / "metrics.jsonl"

    @property
    def ledger(self) -> Path:
        return self.metrics / "ledger.jsonl"

    @property
    def provenance(self) -> Path:
        return self.artifacts / "provenance.json"

    @property
    def done(self) -> Path:
        """Present once the run is finished: {step, epoch, train_loss, val_loss, accuracy, checkpoint, sha256}."""
        return self.artifacts / "done.json"

    def attempt_log(self, attempt: int) -> Path:
        return self.logs / f"attempt-{attempt}.log"

    def rendezvous(self, attempt: int) -> Path:
        """Where the first rank of an attempt says how the others reach it: {address, port}. Gone once they have."""
        return self.logs / f"rendezvous-{attempt}.json"

    def attempts(self) -> list[int]:
        """Numbers of the attempts that were ever taken, ascending."""
        found = (p.name.removeprefix("attempt-").removesuffix(".log") for p in self.logs.glob("attempt-*.log"))
        return sorted(int(n) for n in found if n.isdecimal())

    def take_attempt(self) -> int:
        """Take the next attempt number. Creating its log exclusively is what makes the number ours: it is the fence's token.

        Raises OSError when the logs' folder cannot be written."""
        self.logs.mkdir(parents=True, exist_ok=True)
        attempt = max(self.attempts(), default=0) + 1
        while True:
            try:
                os.close(os.open(self.attempt_log(attempt), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            except FileExistsError:
                attempt += 1
            else:
                return attempt

    def is_fenced(self, attempt: int) -> bool:
        """Whether a newer attempt than this one was taken. One stat, so that it can be asked before each write."""
        return self.attempt_log(attempt + 1).exists()
