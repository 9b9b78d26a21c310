"""What a cluster is made of: its options, kept from `start` for the verbs after it, and the places of its files."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DEFAULT_ROOT = Path("/var/tmp/samebits-cluster")  # noqa: S108 - the jobs' user must reach it; the verbs check who owns it
NODES = ("n1", "n2", "n3", "n4")


class ClusterError(Exception):
    """Something that the user of the test cluster can read and act on."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `start` was told. Two clusters live side by side when root and base_port differ."""

    user: str
    base_port: int
    grace: int
    """Seconds that a preempted job of partition `gpu` may go on (GraceTime)."""
    node_cpus: int
    accounting: bool
    user_signal: bool
    """SlurmctldParameters=preempt_send_user_signal."""
    min_job_age: int
    """Seconds after its end for which squeue and scontrol still know a job."""
    containers: bool = False
    """A Docker engine, a registry and Apptainer beside it."""
    slurm: str = "22.05"
    """The machine's own version, or one that is fetched."""
    confine_memory: bool = False
    """Jobs are held to their memory by control groups."""

    @property
    def ports(self) -> range:
        return range(self.base_port, self.base_port + (8 if self.containers else 6))


@dataclass(frozen=True, slots=True)
class Layout:
    """Places under the root. `home` and `environment` outlive `stop`, so do logs and images; the rest does not."""

    root: Path

    @property
    def options(self) -> Path:
        return self.root / "options.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    @property
    def conf(self) -> Path:
        return self.etc / "slurm.conf"

    @property
    def run(self) -> Path:
        """Pid files."""
        return self.root / "run"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def munge(self) -> Path:
        """Munge's own folder: nobody else may write there, or munged refuses to start."""
        return self.root / "munge"

    @property
    def database(self) -> Path:
        return self.root / "database"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def devices(self) -> Path:
        return self.root / "dev"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def project(self) -> Path:
        """The user's clone of the repository."""
        return self.home / "project"

    @property
    def environment(self) -> Path:
        """The user's virtual environment."""
        return self.root / "venv"

    @property
    def images(self) -> Path:
        """What the container engine keeps."""
        return self.root / "images"

    @property
    def registry(self) -> Path:
        """What the registry keeps."""
        return self.images / "registry"

    @property
    def wheels(self) -> Path:
        """Links to folders of wheels, where there are some to be served."""
        return self.run / "wheels"

    @property
    def programs(self) -> Path:
        """On the user's PATH before the system's: docker and apptainer, another version of Slurm."""
        return self.root / "bin"

    @property
    def base(self) -> Path:
        """File with the reference of the base image."""
        return self.root / "base"

    @property
    def site(self) -> Path:
        """The profile of a cluster with containers; it is there once they can be used."""
        return self.root / "site.yaml"

    @property
    def runtime(self) -> tuple[Path, ...]:
        """What `stop` removes."""
        folders = (self.etc, self.run, self.munge, self.database, self.state, self.spool, self.devices, self.programs)
        return (*folders, self.base, self.site, self.options)

    def read_options(self) -> Options | None:
        """What the running cluster was started with; None when there is none."""
        try:
            return Options(**json.loads(self.options.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write_options(self, options: Options) -> None:
        self.options.write_text(json.dumps(asdict(options), indent=2) + "\n", encoding="utf-8")
