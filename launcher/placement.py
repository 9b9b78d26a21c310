"""Where and how a run is placed, for the task and the arbiter on the node; run.json says what. Stdlib only."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.files import publish_json


@dataclass(frozen=True, slots=True)
class Placement:
    """`logs/submissions/ID/placement.json`. Nothing in it changes a result."""

    submission: str
    """The submission's id."""
    node: Mapping[str, Any]
    """`launcher.engines.NodeOptions`: where the images are, and how this site runs them."""
    network: str
    """`none` or `host`: what a run in a container sees of the network."""
    environment: tuple[str, ...]
    """Names of variables that reach the run, if set on the node. Values are never written down."""
    mounts: Mapping[str, str]
    """Absolute folder: `ro` or `rw`."""
    site: str
    preemption: str
    """What Slurm does to a preempted job here: `requeue` or `cancel`."""
    budgets: Mapping[str, int]
    """How often a run may be requeued, by `Cause` value."""
    signal_seconds: int = 0
    """How long before the time limit Slurm sends its signal; 0 on this machine."""
    time_minutes: int = 0
    """The time limit of an attempt; 0 on this machine."""
    total_minutes: int = 0
    """Of all attempts of a run together; 0: not bounded."""
    ranks: int = 0
    """Of this launch, over all nodes; 0: those of the recipe."""
    launcher: str = ""
    """``sha256:`` of the launcher's bundle in the store, by which task and arbiter run; empty where they are started by hand."""

    def write(self, path: Path) -> None:
        publish_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Placement":
        """Raises OSError or ValueError."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields["environment"] = tuple(fields["environment"])
        return cls(**fields)
