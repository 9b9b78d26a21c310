"""What is particular to a cluster: slurm/sites/NAME.yaml. Where and how runs happen, never what they compute."""

import os
import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from jobs.contract import Cause
from jobs.recipe import Section
from launcher import walltime
from launcher.config import hints
from launcher.config.mistake import Mistake, Mistakes
from launcher.config.read import SUFFIXES, read
from launcher.config.schema import Clock, Word
from launcher.errors import ExitCode, Problem, fail
from launcher.plan import BUDGETS

VARIABLE: Final = "SAMEBITS_SITE"
"""Environment variable with the site's name, for those who always use the same."""
DEFAULT: Final = "default"
FOLDER: Final = Path("slurm", "sites")

PASSED_ON: Final = (
    "WANDB_API_KEY",
    "WANDB_BASE_URL",
    "HF_HOME",
    "HF_TOKEN",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
"""Accounts, caches and the way to the network: nothing that changes a result."""

OURS: Final = {
    "begin": "A submission begins as soon as its record stands.",
    "array": "It is the seeds of the config.",
    "job_name": "It is the experiment's name.",
    "comment": "It holds the submission's id.",
    "output": "Logs lie in the tree.",
    "error": "Logs lie in the tree.",
    "open_mode": "It is append: no attempt's log is truncated.",
    "requeue": "It is always on.",
    "no_requeue": "Preempted runs are requeued.",
    "signal": "Set signal_seconds.",
    "time": "Set time, here or in the config, or use --time.",
    "partition": "Set partition, or use --partition.",
    "account": "Set account, or use --account.",
    "qos": "Set qos, or use --qos.",
    "exclude": "Set exclude.",
    "nodes": "It is cluster.nodes of the config.",
    "ntasks": "A run is one task per node.",
    "ntasks_per_node": "A run is one task per node.",
    "cpus_per_task": "It is cluster.cpus of the config.",
    "gpus_per_node": "It is cluster.gpus of the config.",
    "gpus": "It is cluster.gpus of the config.",
    "gres": "GPUs are cluster.gpus of the config.",
    "mem": "It is cluster.memory of the config.",
    "export": "Set environment.",
    "wckey": "It would be overwritten.",
}
"""Parameters of sbatch that are not the site's to set, and where they come from."""


def expand(text: object) -> Path:
    """An absolute folder; `~` and variables of the launcher's environment are filled in. Raises ValueError."""
    if not isinstance(text, str) or not text:
        raise ValueError("must be the path of a folder, as a text")
    if "\n" in text:
        raise ValueError("holds a line break")
    full = os.path.expandvars(text)
    if left := re.search(r"\$(\w+|\{[^}]*\})", full):
        raise ValueError(f"names {left[0]}, which is not set")
    path = Path(full).expanduser()
    if not path.is_absolute():
        raise ValueError("must be an absolute path, or start with ~ or with a variable such as $SCRATCH")
    return path


def check_line(line: str) -> str:
    if "\n" in line or "\r" in line:
        raise ValueError("holds a line break; write one item per line")
    return line


def check_variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
        raise ValueError("is not the name of a variable; values are taken from the environment and written nowhere")
    if name.startswith(("PYTHON", "SAMEBITS_", "LD_")):
        raise ValueError("may not be passed on: it would change what a run executes")
    return name


Folder = Annotated[Path, BeforeValidator(expand)]
Line = Annotated[str, AfterValidator(check_line)]
Variable = Annotated[str, AfterValidator(check_variable)]
Count = Annotated[int, Field(ge=0)]


class Partition(Section):
    """What a partition offers. Asked for more, a launch is refused before Slurm is asked."""

    gpus_per_node: Count | None = None
    """GPUs of each of its nodes. null: not checked."""
    max_time: Clock | None = None
    """Its longest time limit. null: not checked."""


class Preemption(Section):
    """What Slurm does to a job whose nodes somebody with priority wants."""

    mode: Literal["requeue", "cancel"] = "requeue"
    """Slurm's PreemptMode for these partitions: `scontrol show config | grep PreemptMode`."""
    grace_seconds: Count = 0
    """The partition's GraceTime: how long a preempted job may still run."""
    user_signal: bool = False
    """Whether SlurmctldParameters has preempt_send_user_signal."""


class Budgets(Section):
    """How often one submission is requeued, by cause. A crash and a scancel never are."""

    preempted: Count = BUDGETS[Cause.PREEMPTED]
    """Nobody's fault, hence large."""
    time_limit: Count = BUDGETS[Cause.TIME_LIMIT]
    """Attempts that a long run may take."""
    node_failure: Count = BUDGETS[Cause.NODE_FAILURE]
    """A node that died."""

    def by_cause(self) -> dict[str, int]:
        """By `Cause` value, as the arbiter reads it."""
        return {
            Cause.PREEMPTED.value: self.preempted,
            Cause.TIME_LIMIT.value: self.time_limit,
            Cause.NODE_FAILURE.value: self.node_failure,
        }


class Profile(Section):
    """The keys of a site's file. All have a default, so that a machine without Slurm needs no file."""

    description: str = ""
    """For people."""
    partitions: dict[Word, Partition] | None = None
    """Those that may be used, by name. null: whatever Slurm accepts."""
    partition: Word | None = None
    """Used by `--site` without `--partition`."""
    account: Word | None = None
    """Charged unless `--account` says otherwise."""
    qos: Word | None = None
    """Used unless `--qos` says otherwise."""
    time: Clock = "01:00:00"
    """Time limit of one attempt where neither the config nor `--time` gives one."""
    signal_seconds: Annotated[int, Field(ge=1, le=65535)] = 120
    """How long before the time limit a run is asked to save. Slurm may be up to 60 s early."""
    preemption: Preemption = Preemption()
    """What Slurm does to a preempted job."""
    budgets: Budgets = Budgets()
    """How often one submission is requeued."""
    environment: list[Variable] = Field(default_factory=lambda: list(PASSED_ON))
    """Names of variables that reach a run, if they are set; nothing else of the environment does. Default: those of wandb,
    the model hub, certificates and proxies."""
    mounts: dict[Folder, Literal["ro", "rw"]] = Field(default_factory=dict)
    """Further folders that a run in a container sees, at their own paths."""
    store: Folder = Field(default_factory=lambda: expand("~/.local/share/samebits"))
    """Images and code by content, on a file system that all nodes see. Default: `~/.local/share/samebits`."""
    experiments: Folder | None = None
    """Folder of all trees. null: `experiments` at the top of the repository."""
    setup: list[Line] = Field(default_factory=list)
    """Shell lines of the batch script before a run starts: `module load ...`."""
    teardown: list[Line] = Field(default_factory=list)
    """Shell lines of the batch script after a run ended."""
    exclude: Line | None = None
    """Nodes not to be used, in Slurm's notation."""
    sbatch: dict[Word, Line] = Field(default_factory=dict)
    """Further parameters of sbatch, by name: `constraint: a100`."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        found = []
        if self.partition is not None and self.partitions is not None and self.partition not in self.partitions:
            near = hints.close(self.partition, list(self.partitions))
            hint = f"Did you mean {near}?" if near else f"There: {', '.join(self.partitions)}."
            found.append(Mistake(("partition",), f"{self.partition} is not among the partitions.", hint))
        found += [
            Mistake(("sbatch", key), "is not the site's to set.", OURS[key.replace("-", "_")])
            for key in self.sbatch
            if key.replace("-", "_") in OURS
        ]
        if walltime.minutes(self.time) * 60 <= self.signal_seconds:
            found.append(
                Mistake(("signal_seconds",), f"is {self.signal_seconds}, no less than the time of {self.time}.")
            )
        if found:
            raise Mistakes(found)
        return self


class Site(Profile):
    """A profile and its name, which is its file's."""

    name: str
    """The file's name without its suffix."""
    file: Path | None
    """None: there is no file, every key has its default."""

    def refusals(self, partition: str, gpus: int, minutes: int) -> list[Problem]:
        """Why a run of that size and time limit cannot go to that partition, as far as the profile says; empty if it can."""
        found = []
        if minutes * 60 <= self.signal_seconds:
            what = f"The time limit of {minutes} min leaves nothing before the signal, {self.signal_seconds} s ahead of it."
            found.append(Problem(what, f"site {self.name}", "Ask for more time, or lower the site's signal_seconds."))
        if self.partitions is None:
            return found
        where = str(_short(self.file)) if self.file else f"site {self.name}"
        offer = self.partitions.get(partition)
        if offer is None:
            near = hints.close(partition, list(self.partitions))
            known = f"There: {', '.join(self.partitions)}."
            hint = f"Did you mean {near}? {known}" if near else known
            return [*found, Problem(f"The site has no partition `{partition}`.", where, hint)]
        if offer.gpus_per_node is not None and gpus > offer.gpus_per_node:
            what = f"Partition {partition} has {offer.gpus_per_node} GPUs per node; the config asks for {gpus}."
            found.append(Problem(what, where, "Another partition, or cluster.gpus in the config."))
        if offer.max_time is not None and minutes > walltime.minutes(offer.max_time):
            what = f"Partition {partition} allows {offer.max_time} at most; {minutes} min are asked for."
            found.append(Problem(what, where, "A shorter --time is enough: a run goes on in the next attempt."))
        return found


def load_site(name: str | None, repository: Path) -> Site:
    """The site of that name, or of $SAMEBITS_SITE, or `default`, which needs no file.

    Raises LaunchError: CLUSTER for one that is not there, CONFIG for mistakes in it, FILES when it may not be read."""
    wanted = name or os.environ.get(VARIABLE) or DEFAULT
    folder = repository / FOLDER
    there = {path.stem: path for path in sorted(folder.glob("*")) if path.suffix in SUFFIXES}
    if wanted in there:
        profile, _ = read(_short(there[wanted]), Profile, "site profile")
        return _named(profile, wanted, there[wanted])
    if wanted == DEFAULT:
        return _named(Profile(), wanted, None)
    near = hints.close(wanted, list(there))
    known = f"There: {', '.join(there)}." if there else f"There is none in {folder}."
    hint = f"Did you mean {near}? {known}" if near else known
    source = "" if name else f" (from ${VARIABLE})"
    raise fail(ExitCode.CLUSTER, f"No site `{wanted}`{source}.", hint=hint)


def _named(profile: Profile, name: str, file: Path | None) -> Site:
    values = {key: getattr(profile, key) for key in Profile.model_fields}
    return Site.model_construct(**values, name=name, file=file)


def _short(path: Path) -> Path:
    """Relative to the working directory where that is shorter to read."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
