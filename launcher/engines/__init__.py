"""The seam to what executes a run. Plain modules stand behind it, one per engine; this file is the only switch.

Everything here is imported on the compute node before the run starts: standard library only at import."""

import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol, cast

from jobs.contract import ImagePin
from launcher.allocation import Allocation
from launcher.errors import Problem

Say = Callable[[str], None]
"""Where an engine reports progress, a line at a time."""

KEY_FORMAT: Final = 1
"""Counts up when the same ingredients are to make another environment."""


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A file of the commit that goes into an environment."""

    path: str
    """From the top of the repository."""
    sha256: str


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What the image is made of. Pure: known before anything is built."""

    engine: str
    repository: Path
    """Top of the git work tree; only objects of git are read from it."""
    commit: str
    code_tree: str
    """Hash of the git tree that becomes the code layer: the commit's, or, with --allow-dirty, of the patched tree."""
    lock: str
    """Path of the lock inside that tree, `requirements.lock`."""
    lock_sha256: str
    build: str | None = None
    """What the environment is built by, `dockerfile` or `definition`. None for `host`, as is all that follows."""
    recipe: str | None = None
    """Path of the Dockerfile or the definition inside that tree."""
    base: str | None = None
    """``name@sha256:`` of the base image."""
    cuda_lock: str | None = None
    """Path of the second lock, with CUDA's wheels. None where the commit has none."""
    ingredients: tuple[Ingredient, ...] = ()
    """Recipe, locks and further files: the whole context of the build, nothing else can get into the environment."""
    origin: str | None = None
    """Where the repository comes from (its remote, without user and password), for the image's labels."""

    @property
    def key(self) -> str:
        """Hash of all that the environment is made from. The code is not part of it: it is a layer of its own."""
        made_from = {
            "format": KEY_FORMAT,
            "build": self.build,
            "recipe": self.recipe,
            "base": self.base,
            "machine": platform.machine(),
            "lock": self.lock,
            "cuda_lock": self.cuda_lock,
            "ingredients": sorted([one.path, one.sha256] for one in self.ingredients),
        }
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Registry:
    """Where a site keeps its images."""

    address: str
    """``host:port/path``; an image is ``ADDRESS/NAME``."""
    insecure: bool = False
    """Plain HTTP, for one on loopback."""


@dataclass(frozen=True, slots=True, repr=False)
class BuildOptions:
    """How a build reaches the network. Never in an image, never in a record: an index may hold a password (so: no repr)."""

    ca_bundle: str | None = None
    """File with the certificates of the site's authority."""
    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    """Further places of wheels, as pip takes them, reachable from within the build."""
    proxies: Mapping[str, str] = field(default_factory=dict)
    """`http`, `https`, `no`: as HTTP_PROXY and the like."""
    network: str = "default"
    """`default` or `host`: whether a build sees this machine's own network (a proxy on loopback)."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where images are made: the login node."""

    store: Path
    """The content-addressed folder on the shared file system."""
    registry: Registry | None = None
    build: BuildOptions = BuildOptions()


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What an engine must know on the node, from the site's profile. Nothing in it changes a result."""

    store: Path
    registry: Registry | None = None
    cache: Path | None = None
    """A folder on the node's own disk for verified copies of large images; None: they are used where they lie."""
    gpus: str = "nvidia"
    """How Docker gives GPUs to a container: `nvidia` (its runtime), `cdi`, or `devices` (plain device files)."""
    gpu_device: str = "/dev/nvidia{}"
    """With `devices`: the file of GPU number {}."""

    def as_json(self) -> dict[str, Any]:
        registry = self.registry and {"address": self.registry.address, "insecure": self.registry.insecure}
        return {
            "store": str(self.store),
            "registry": registry,
            "cache": str(self.cache) if self.cache else None,
            "gpus": self.gpus,
            "gpu_device": self.gpu_device,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "NodeOptions":
        registry, cache = value["registry"], value["cache"]
        return cls(
            store=Path(value["store"]),
            registry=Registry(**registry) if registry else None,
            cache=Path(cache) if cache else None,
            gpus=value["gpus"],
            gpu_device=value["gpu_device"],
        )


@dataclass(frozen=True, slots=True)
class Start:
    """One start of `python ARGUMENTS` in an image."""

    run_id: str
    """Names the run on this machine, safe in a container's name: what an earlier attempt left is found by it."""
    attempt: int
    arguments: tuple[str, ...]
    env: Mapping[str, str]
    """Exactly these variables, beside what the engine itself must set. May hold keys: not for an argv."""
    mounts: Mapping[Path, str]
    """Folder or file: `ro` or `rw`, visible at its own path."""
    network: str = "none"
    """`none` or `host`."""
    allocation: Allocation = field(default_factory=Allocation)
    """What the job was given; a container must not outgrow it."""
    node: int = 0
    """The number of this node among those of the attempt."""


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a program in an image."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    """The whole environment of that process, not an addition: isolation is by allow-list."""
    cwd: Path


class Engine(Protocol):
    """Six operations: three where images are made, three on the node."""

    def health(self) -> list[Problem]:
        """Why this engine cannot be used on this machine; empty when it can."""

    def pin(self, request: ImageRequest, store: Path) -> ImagePin | None:
        """The pin, where it is known without building (host; a container's that is made already); else None.

        Asks the store alone."""

    def ensure(self, request: ImageRequest, workshop: Workshop, say: Say) -> ImagePin:
        """Find or make the image. Idempotent, safe against another launcher at the same moment. Raises LaunchError (IMAGE)."""

    def verify(self, pin: ImagePin, node: NodeOptions) -> list[Problem]:
        """On the node, before anything starts: how what is there differs from the pin; empty when it does not."""

    def command(self, pin: ImagePin, node: NodeOptions, start: Start) -> Command:
        """How to start it. After `verify`."""

    def clean(self, run_id: str) -> None:
        """Remove what an attempt of this run left behind on this node (a container that outlived its task)."""


ENGINES: Final = {
    "host": "launcher.engines.host",
    "docker": "launcher.engines.docker",
    "apptainer": "launcher.engines.apptainer",
}
"""Name in the config: module."""


def engine(name: str) -> Engine:
    """The engine of that name. Raises KeyError for an unknown one: the config's schema lists them."""
    return cast("Engine", import_module(ENGINES[name]))
