"""The launcher itself as one file under its content: what decides about a run is pinned like what it executes.

A job may wait for days, and meanwhile its launcher is upgraded, or edited in a clone. So each submission carries the launcher that
made it: on the node nothing of an installed one is imported. One file, because one hash over one read says whether it is whole, a
parallel file system is asked for one name instead of a hundred, and no compiled file can ever lie in it."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jobs
import launcher
from jobs.files import publish

READ_ONLY: Final = 0o444
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The time of every member: the file's content depends on the code alone."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """`STORE/launcher/HASH.zip`, importable as it is."""

    path: Path
    digest: str
    """``sha256:`` of the file."""


def planned(store: Path) -> Bundle:
    """The bundle of the launcher that runs now. Writes nothing."""
    return _bundle(store, _pack())


def ensure(store: Path) -> Bundle:
    """The same, and it stands in the store. One that was changed there is made anew. Raises OSError."""
    data = _pack()
    bundle = _bundle(store, data)
    if not is_whole(bundle):
        bundle.path.parent.mkdir(parents=True, exist_ok=True)
        publish(bundle.path, data, READ_ONLY)
    return bundle


def is_whole(bundle: Bundle) -> bool:
    """Whether it is there, and is by content what it is by name."""
    try:
        return digest_of(bundle.path.read_bytes()) == bundle.digest
    except OSError:
        return False


def find(store: Path, digest: str) -> Bundle:
    """The bundle of that digest, wherever it comes from; it need not be there."""
    return Bundle(store / "launcher" / f"{digest.removeprefix('sha256:')}.zip", digest)


def _bundle(store: Path, data: bytes) -> Bundle:
    return find(store, digest_of(data))


def digest_of(data: bytes) -> str:
    """``sha256:`` of a bundle's bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _pack() -> bytes:
    """Both packages as an archive, the same bytes for the same code: sorted, without times, not compressed."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, path in _files():
            member = zipfile.ZipInfo(name, EPOCH)
            member.external_attr = 0o644 << 16
            archive.writestr(member, path.read_bytes())
    return packed.getvalue()


def _files() -> Iterator[tuple[str, Path]]:
    """Source and data of the two packages, from wherever each is installed; neither compiled files nor an editor's hidden ones."""
    for package in (jobs, launcher):
        top = Path(package.__file__ or "").parent
        for path in sorted(top.rglob("*")):
            parts = path.relative_to(top).parts
            if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in parts):
                yield "/".join((top.name, *parts)), path
