"""The schema of a site's profile: what is particular to a cluster. Where and how runs happen, never what they compute."""

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
from launcher.config.schema import Clock, Word
from launcher.plan import BUDGETS

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
    """Its longest time limit. A run that asks for more gets a chain of attempts. null: as Slurm says."""


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
    """A node that died, or on which alone a run crashes before its first step."""
    not_started: Count = BUDGETS[Cause.NOT_STARTED]
    """A node on which no attempt begins: its python, its file systems."""
    unfit_node: Count = BUDGETS[Cause.UNFIT]
    """A node on which a run would go on to other bits, or finds no GPU."""

    def by_cause(self) -> dict[str, int]:
        """By `Cause` value, as the arbiter reads it."""
        return {
            Cause.PREEMPTED.value: self.preempted,
            Cause.TIME_LIMIT.value: self.time_limit,
            Cause.NODE_FAILURE.value: self.node_failure,
            Cause.NOT_STARTED.value: self.not_started,
            Cause.UNFIT.value: self.unfit_node,
        }


def secret(text: object) -> str:
    """A text in which variables of the launcher's environment are filled in, so that a password need not stand in the file."""
    if not isinstance(text, str) or not text or "\n" in text:
        raise ValueError("must be a text of one line")
    full = os.path.expandvars(text)
    if left := re.search(r"\$(\w+|\{[^}]*\})", full):
        raise ValueError(f"names {left[0]}, which is not set")
    return full


Url = Annotated[str, BeforeValidator(secret)]


class RegistryAt(Section):
    """Where images are pushed to and pulled from."""

    address: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9._/-]+)?$")]
    """`host:port/path`; an image of experiment code is `ADDRESS/NAME@sha256:...`."""
    insecure: bool = False
    """Plain HTTP, for a registry on loopback."""


class Build(Section):
    """How a build reaches the package index from here. Nothing of it gets into an image or a record."""

    ca_bundle: Folder | None = None
    """File with the certificates of the site's authority."""
    index_url: Url | None = None
    """pip's index; `$VARIABLE` is filled in. null: pip's default."""
    extra_index_urls: list[Url] = Field(default_factory=list)
    """Further indexes."""
    find_links: list[Url] = Field(default_factory=list)
    """Further places of wheels, as URLs that a build can reach."""
    proxies: dict[Literal["http", "https", "no"], Url] = Field(default_factory=dict)
    """Proxies of the build. Default: none; HTTP_PROXY and the like of the launcher are not used by themselves."""
    network: Literal["default", "host"] = "default"
    """host: a build sees this machine's own network, for a proxy or an index on loopback."""


class Docker(Section):
    """How Docker runs containers on the nodes."""

    gpus: Literal["nvidia", "cdi", "devices"] = "nvidia"
    """How a container gets its job's GPUs: by NVIDIA's runtime (`--gpus`), by CDI, or as plain device files."""
    gpu_device: Line = "/dev/nvidia{}"
    """With `devices`: the file of GPU number {}."""


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
    registry: RegistryAt | None = None
    """Where images are pushed to after a build, and pulled from by digest on the node. null: nowhere; with Docker the nodes must
    then have the image, with Apptainer it lies in the store."""
    build: Build = Build()
    """How a build reaches the package index."""
    docker: Docker = Docker()
    """How Docker runs containers on the nodes."""
    node_cache: Folder | None = None
    """A folder on each node's own disk for verified copies of SIF files. null: they are used where the store has them."""
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
