"""The store: images and code by content, on a file system that all nodes see. What stands there is whole and read-only.

Standard library only at import; nothing here knows an engine."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from json import loads
from pathlib import Path
from typing import Any, Final

from jobs.files import publish_json, sync_folder

READ_ONLY: Final = 0o444


@dataclass(frozen=True, slots=True)
class Made:
    """`STORE/images/KEY.ENGINE.json`: an environment that was made, and what was found in it."""

    key: str
    """`ImageRequest.key`."""
    engine: str
    environment: str
    """As in the pin: ``sha256:`` of it."""
    base: str
    python: str
    packages: tuple[str, ...]
    """`pip freeze` inside, ``name==version``, sorted."""
    lock_sha256: str
    made_from: dict[str, Any]
    """Recipe, ingredients with their digests, commit and origin: for people."""
    time: str
    manifest: str | None = None
    """``registry/name@sha256:`` of the environment, where it was pushed."""

    @classmethod
    def read(cls, store: Path, key: str, engine: str) -> "Made | None":
        """None where none was made, or its record cannot be read: then it is made anew."""
        try:
            fields = loads(made_path(store, key, engine).read_text(encoding="utf-8"))
            return cls(**{**fields, "packages": tuple(fields["packages"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, store: Path) -> "Made":
        path = made_path(store, self.key, self.engine)
        path.parent.mkdir(parents=True, exist_ok=True)
        publish_json(path, asdict(self))
        return self


def made_path(store: Path, key: str, engine: str) -> Path:
    return store / "images" / f"{key}.{engine}.json"


def code_folder(store: Path, tree: str) -> Path:
    """The files of a git tree; `tree` is its hash."""
    return store / "code" / tree


def lock_path(store: Path, sha256: str) -> Path:
    return store / "locks" / f"{sha256}.lock"


def blob_path(store: Path, digest: str, suffix: str) -> Path:
    """A large file under its content: SIFs, code layers. `digest` begins with ``sha256:``."""
    return store / "blobs" / f"sha256-{digest.removeprefix('sha256:')}{suffix}"


@contextmanager
def locked(store: Path, name: str) -> Iterator[None]:
    """Hold a lock of the store while something is made. Look again once it is held: another may have made it meanwhile."""
    from filelock import FileLock

    folder = store / "locks.held"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        yield


def publish_folder(store: Path, folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder that is there whole, or not at all: filled under another name, read-only, renamed. Launchers that come at
    once do the work once."""
    with locked(store, folder.name):
        if folder.exists():
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        try:
            fill(scratch)
            for path in scratch.rglob("*"):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode & 0o555 if path.is_file() else 0o755)
            scratch.chmod(0o755)
            scratch.rename(folder)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        sync_folder(folder.parent)


def publish_blob(store: Path, suffix: str, make: Callable[[Path], None]) -> str:
    """Let `make` write a file under a temporary name, and put it under its content, read-only and synced. Returns ``sha256:``.

    The caller holds the lock of what it makes. A file that is there already is left as it is: it is the same by name, and
    `verify` says whether it is by content."""
    folder = store / "blobs"
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".making.", suffix=".tmp", dir=folder))
    try:
        file = scratch / f"new{suffix}"
        make(file)
        file.chmod(READ_ONLY)
        with file.open("rb") as content:
            digest = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
            os.fsync(content.fileno())
        wanted = blob_path(store, digest, suffix)
        file.replace(wanted)
        sync_folder(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return digest
