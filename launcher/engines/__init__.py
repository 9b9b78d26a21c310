"""The seam to what executes a run. Plain modules stand behind it, one per engine; this file is the only switch.

Everything here is imported on the compute node before the run starts: standard library only at import."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol, cast

from jobs.contract import ImagePin
from launcher.errors import Problem

Say = Callable[[str], None]
"""Where an engine reports progress, a line at a time."""


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


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a program in an image."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    """The whole environment, not an addition: isolation is by allow-list."""
    cwd: Path


class Engine(Protocol):
    """Six operations. `store` is the content-addressed folder on the shared file system."""

    def health(self) -> list[Problem]:
        """Why this engine cannot be used on this machine; empty when it can."""

    def pin(self, request: ImageRequest) -> ImagePin | None:
        """The pin, where it is known without building (host); None where it is known only afterwards."""

    def ensure(self, request: ImageRequest, store: Path, say: Say) -> ImagePin:
        """Find or make the image. Idempotent, safe against another launcher at the same moment. Raises LaunchError (IMAGE)."""

    def verify(self, pin: ImagePin, store: Path) -> list[Problem]:
        """On the node, before anything starts: how what is there differs from the pin; empty when it does not."""

    def command(
        self, pin: ImagePin, store: Path, arguments: Sequence[str], env: Mapping[str, str], mounts: Mapping[Path, str]
    ) -> Command:
        """How to start `python ARGUMENTS` in the image, with exactly `env` (beside what the engine itself must set), and
        `mounts` (folder: `ro` or `rw`) visible at their own paths."""

    def clean(self, run_id: str) -> None:
        """Remove what an earlier attempt of this run left behind on this node (a container that outlived its task)."""


ENGINES: Final = {"host": "launcher.engines.host"}
"""Name in the config: module."""


def engine(name: str) -> Engine:
    """The engine of that name. Raises KeyError for an unknown one: the config's schema lists them."""
    return cast("Engine", import_module(ENGINES[name]))
