"""The store: images and code by content, on a file system that all nodes see. What stands there is whole and read-only.

Standard library only at import; nothing here knows an engine."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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
            return cls.of(loads(made_path(store, key, engine).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Made":
        """From what `asdict` made of it. Raises TypeError or KeyError."""
        return cls(**{**fields, "packages": tuple(fields["packages"])})

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


@dataclass(frozen=True, slots=True)
class Stored:
    """One thing that a store holds, for people and for who tidies up. Engines list theirs (`stored`), and remove what is no file
    (`discard`)."""

    kind: str
    """`environment`, `code`, `launcher`, `lock` or `leftover`."""
    engine: str
    """Empty where it belongs to none."""
    name: str
    """An environment's key, a code layer's tree, a hash."""
    size: int | None
    """Bytes that removing it frees; None where its engine cannot be asked from here."""
    since: float
    """When it was made, in seconds since 1970."""
    names: frozenset[str]
    """By which pins refer to it."""
    lock: str
    """Name of the lock that is held while it is made."""
    paths: tuple[Path, ...] = ()
    """Its files and folders. Empty where only its engine can remove it."""
    about: Mapping[str, str] = field(default_factory=dict)
    """For people: base, python ..."""
    needs: frozenset[str] = frozenset()
    """Names of what it stands on, which stays as long as it does."""


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder. What vanishes meanwhile has none."""
    try:
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_size
        return sum(size(inside) for inside in path.iterdir())
    except OSError:
        return 0


def remove(path: Path) -> None:
    """Remove a file or a folder of the store, read-only as it is. A folder is renamed first: nobody finds half of it.

    Raises OSError; what is not there is removed already."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    doomed = path.with_name(f".{path.name}.{os.getpid()}.removed.tmp")
    path.rename(doomed)
    for folder, _, _ in os.walk(doomed):
        Path(folder).chmod(0o700)
    shutil.rmtree(doomed)


@contextmanager
def locked(store: Path, name: str, *, seconds: float = -1) -> Iterator[None]:
    """Hold a lock of the store while something is made. Look again once it is held: another may have made it meanwhile.

    Waits as long as it takes, or `seconds`: then filelock.Timeout."""
    from filelock import FileLock

    folder = store / "locks.held"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock", timeout=seconds):
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
