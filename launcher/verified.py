"""The digest of a large file: computed once, and again when anything about the file has changed. Standard library only.

What was computed is kept as a stamp in a folder of the user's own on this machine, never beside the file: whoever can write into
the store could write a stamp there as well."""

import contextlib
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jobs.files import publish_json

SETTLED_NS: Final = 2_000_000_000
"""A file that was changed as lately as this may change once more within one tick of its clock: it gets no stamp yet."""


def digest(path: Path, stamps: Path | None = None) -> str:
    """``sha256:`` of a file. Read as a whole, unless device, inode, size and both times are those of the last time.

    Reading costs about a second per gigabyte, a stamp less than a millisecond. A disk that returns other bytes without anybody
    having written is found only by reading. Raises OSError."""
    folder = stamps if stamps is not None else own_folder()
    with path.open("rb", buffering=0) as file:  # opening asks a network file system for fresh attributes
        before = _identity(os.fstat(file.fileno()))
        name = f"{before['device']}-{before['inode']}.json"
        if folder is not None and (known := _known(folder / name, before)) is not None:
            return known
        found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        after = _identity(os.fstat(file.fileno()))
    settled = time.time_ns() - max(before["mtime_ns"], before["ctime_ns"]) > SETTLED_NS
    if folder is not None and before == after and settled:
        _keep(folder / name, found, before)
    return found


def keep(path: Path, found: str) -> None:
    """Remember the digest of a file that the caller alone can write, and has just written. Raises OSError."""
    folder, identity = own_folder(), _identity(path.stat())
    if folder is not None:
        _keep(folder / f"{identity['device']}-{identity['inode']}.json", found, identity)


def _keep(stamp: Path, found: str, identity: Mapping[str, int]) -> None:
    with contextlib.suppress(OSError):  # a full disk costs the next check its time
        publish_json(stamp, {**identity, "digest": found}, 0o600)


def own_folder() -> Path | None:
    """Where this user's stamps are on this machine; None where the name is taken by something that others can write."""
    folder = Path(tempfile.gettempdir()) / f"samebits-verified-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o700  # noqa: PLR2004
    return folder if ours else None


def _identity(found: os.stat_result) -> dict[str, int]:
    return {
        "device": found.st_dev,
        "inode": found.st_ino,
        "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
    }


def _known(stamp: Path, identity: Mapping[str, int]) -> str | None:
    try:
        kept: dict[str, Any] = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(kept, dict) or any(kept.get(name) != value for name, value in identity.items()):
        return None
    found = kept.get("digest")
    return found if isinstance(found, str) else None
