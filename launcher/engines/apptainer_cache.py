"""Copies of images on a node's own disk: made once, hashed on the way, used only under their digest. Standard library only."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from launcher import verified
from launcher.engines import NodeOptions
from launcher.store import READ_ONLY, blob_path

BLOCK: Final = 1 << 22


def place(node: NodeOptions, digest: str, suffix: str) -> Path:
    """Where a file of the store is used from on this node: its copy, where there is a whole one."""
    original = blob_path(node.store, digest, suffix)
    if node.cache is None:
        return original
    copy = _folder(node.cache) / original.name
    with contextlib.suppress(OSError):
        if verified.digest(copy) == digest:
            return copy
    return original


def copied(original: Path, digest: str, cache: Path) -> bool:
    """Whether there is a whole copy, making it where there is none. False, and said aloud: it cannot be made here.

    Raises OSError where the original cannot be read, FileNotFoundError where there is none."""
    original.stat()
    folder = _folder(cache)
    copy = folder / original.name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.lstat().st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "it belongs to another user", str(folder))
        with (folder / f"{original.name}.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return (copy.exists() and verified.digest(copy) == digest) or _copy(original, copy, digest)
    except OSError as error:
        if str(error.filename or "").startswith(str(original)):
            raise
        print(
            f"no copy of {original.name} on this node ({folder}: {error.strerror}); it is used from {original.parent}",
            file=sys.stderr,
            flush=True,
        )
        return False


def _copy(original: Path, copy: Path, digest: str) -> bool:
    """False where what was read is not what the name says: `verify` then reads the original and names both digests."""
    _make_room(copy.parent, original.stat().st_size)
    temporary = copy.with_name(f".{copy.name}.tmp")
    seen = hashlib.sha256()
    try:
        with original.open("rb", buffering=0) as source, temporary.open("wb", buffering=0) as target:
            while block := source.read(BLOCK):
                seen.update(block)
                view = memoryview(block)
                while view:
                    view = view[target.write(view) :]
            os.fsync(target.fileno())
        if f"sha256:{seen.hexdigest()}" != digest:
            return False
        temporary.chmod(READ_ONLY)
        temporary.replace(copy)
        verified.keep(copy, digest)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _make_room(folder: Path, wanted: int) -> None:
    """Remove the copies that were read least recently, until one more fits. A run that has one mounted keeps what it has."""
    copies = [path for path in folder.glob("sha256-*") if path.suffix != ".lock"]
    copies.sort(key=lambda path: path.stat().st_atime)
    for path in copies:
        if shutil.disk_usage(folder).free > wanted:
            return
        path.unlink(missing_ok=True)


def _folder(cache: Path) -> Path:
    return cache / f"samebits-{os.getuid()}"
