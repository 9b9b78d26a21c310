"""The plan: everything that a launch will do, decided before it does anything. Pure and frozen; --dry-run prints it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from jobs.contract import Cause, ImagePin
from launcher import walltime
from launcher.engines import ImageRequest, NodeOptions, Workshop

BUDGETS: Final[Mapping[str, int]] = {
    Cause.PREEMPTED: 1000,
    Cause.TIME_LIMIT: 100,
    Cause.NODE_FAILURE: 5,
    Cause.NOT_STARTED: 3,
    Cause.UNFIT: 10,
}
"""How often one submission is requeued where the site says nothing. Preemption is nobody's fault: a large number."""


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line may say: where and when, never what (R14)."""

    partition: str | None = None
    site: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | None = None
    """Slurm's notation: minutes, HH:MM:SS, D-HH:MM:SS."""
    nodes: int | None = None
    ranks: int | None = None
    """Other than the config's only where that is elastic: then they change no bit."""
    local: bool = False
    allow_dirty: bool = False
    experiments: Path | None = None
    """Folder of all trees; default: `experiments` at the top of the repository, or the site's."""


@dataclass(frozen=True, slots=True)
class Source:
    """The code, as git knows it."""

    repository: Path
    """Top of the work tree, absolute."""
    commit: str
    code_tree: str
    """Hash of the tree object that is run: the commit's, or of the commit plus `patch`."""
    patch: bytes | None
    """What differs from the commit (binary-safe, new files included); None when nothing does."""
    files: tuple[str, ...]
    """The files that differ; empty when none does."""

    @property
    def dirty(self) -> bool:
        return self.patch is not None


@dataclass(frozen=True, slots=True)
class SlurmRequest:
    """One array over the seeds still to run. Field names are sbatch's."""

    site: str
    job_name: str
    partition: str
    account: str | None
    qos: str | None
    time_minutes: int
    """Of one attempt."""
    nodes: int
    cpus_per_task: int
    gpus_per_node: int
    memory: str
    signal_seconds: int
    """How long before the time limit Slurm sends USR2 to the step."""
    array_parallelism: int
    """How many seeds run at once."""
    exclude: str | None
    setup: tuple[str, ...]
    """The site's shell lines before the step (`module load ...`). `launcher/batch.py` adds the project's own."""
    teardown: tuple[str, ...]
    """The site's shell lines after the step, before the arbiter."""
    additional: Mapping[str, str]
    """Further sbatch parameters of the site, by name."""
    preemption: str = "requeue"
    """What Slurm does to a preempted job here: `requeue` or `cancel`."""
    budgets: Mapping[str, int] = field(default_factory=lambda: dict(BUDGETS))
    """How often one submission may be requeued, by `Cause` value."""
    total_minutes: int = 0
    """Of all attempts of a run together, where more time was asked for than an attempt can have; 0: not bounded."""

    def within(self, minutes: int) -> "SlurmRequest":
        """The same request where an attempt has at most so many minutes: what is asked for beyond becomes a chain of attempts."""
        if self.time_minutes <= minutes:
            return self
        return replace(self, time_minutes=minutes, total_minutes=self.total_minutes or self.time_minutes)


def chain(slurm: SlurmRequest) -> str:
    """What a person is told of a request that became a chain."""
    longest, total = walltime.spelled(slurm.time_minutes), walltime.spelled(slurm.total_minutes)
    return f"Partition {slurm.partition} gives at most {longest} at a time: a chain of attempts, {total} together."


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One seed."""

    seed: int
    state: str
    """Before this launch: `new`, `unfinished` or `done`."""
    specification: str
    """Text of run.json with the pin filled in as far as it is known (see `Plan.image`)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole launch."""

    experiment: str
    config_file: Path
    config_text: str
    """Text of the tree's config.yaml: resolved, every default written out."""
    tree: Path
    """`experiments/NAME`, absolute."""
    store: Path
    source: Source
    image: ImageRequest
    workshop: Workshop
    """How the image is made, if it must be."""
    node: NodeOptions
    """How it is run."""
    network: str
    """`none` or `host`: what a run in a container sees of the network."""
    pin: ImagePin | None
    """None where the engine knows it only after building."""
    runs: tuple[RunPlan, ...]
    """All seeds of the config, in its order; `todo` are those still to run."""
    environment: tuple[str, ...]
    """Names of variables that are passed on to a run, if set."""
    mounts: Mapping[str, str]
    """Absolute folder: `ro` or `rw`."""
    local_parallelism: int
    """How many runs at once on this machine; used when `slurm` is None."""
    ranks: int
    """Of this launch, for each run; 0: those of the config."""
    slurm: SlurmRequest | None
    """None: on this machine."""
    notes: tuple[str, ...]
    """What a person should know: not reproducible, nothing to do, fewer GPUs than asked ..."""

    @property
    def todo(self) -> tuple[RunPlan, ...]:
        return tuple(run for run in self.runs if run.state != "done")
