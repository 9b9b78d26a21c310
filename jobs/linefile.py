"""A file of JSON lines that a run appends to, that resuming cuts back, and that a newer attempt fences off."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jobs.errors import PASSING, Fenced
from jobs.files import sync_folder, temporary_of, write_all

_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a file of lines had come when a checkpoint was made."""

    size: int = 0
    """Bytes."""
    sha256: str = hashlib.sha256().hexdigest()
    """Of those bytes: a file may be long enough, and yet the file of another attempt."""

    def missing(self, path: Path) -> str | None:
        """Why `path` does not begin with what was marked; None when it does."""
        size = path.stat().st_size if path.exists() else 0
        if size < self.size:
            return f"counts on {self.size} bytes of {path.name}, which has {size}"
        if _sha256(path, self.size) != self.sha256:
            return f"counts on other lines than those of {path.name}"
        return None


class LineFile:
    """Open for appending after `mark`; what lay behind it is cut off. `fence` is asked before each write and raises.

    It becomes a new file under the old name: an older attempt that still has the old one open writes to nowhere. A full disk
    does not lose a line: it waits in memory for the next write; `flush` is the one that insists."""

    def __init__(self, path: Path, mark: Mark, fence: Callable[[], None]) -> None:
        fence()
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            leftover.unlink(missing_ok=True)
        self._path, self._fence, self._waiting, self._said = path, fence, b"", False
        self._handle, self._hash = _reopen(path, mark.size)
        self._written = mark.size

    def append(self, value: Mapping[str, Any]) -> bytes:
        """Write one line; returns its bytes, line break included. Raises ValueError for a number that JSON has not (nan)."""
        self._fence()
        line = (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()
        self._hash.update(line)
        self._waiting += line
        try:
            self.flush()
        except OSError as error:
            if error.errno not in PASSING:
                raise
            if not self._said:
                print(f"WARNING: {self._path}: {error}. Its lines wait in memory.", file=sys.stderr, flush=True)
            self._said = True
        return line

    def flush(self) -> None:
        """Write what waits. Raises OSError when the disk is full: a checkpoint, which counts on the lines, is not made then."""
        while self._waiting:
            done = os.pwrite(self._handle, self._waiting, self._written)
            self._waiting, self._written = self._waiting[done:], self._written + done
        self._said = False

    def mark(self) -> Mark:
        """Where it stands now."""
        return Mark(self._written + len(self._waiting), self._hash.hexdigest())

    def sync(self) -> None:
        """Make durable what was written, before a checkpoint that has its mark is published. Raises OSError. The only thing here
        that another thread may do, while lines are appended."""
        os.fsync(self._handle)

    def close(self) -> None:
        """What still waits is tried once more, unless a newer attempt exists."""
        with suppress(OSError, Fenced):
            self._fence()
            self.flush()
        os.close(self._handle)


def _reopen(path: Path, size: int) -> tuple[int, "hashlib._Hash"]:
    """A new file with the first `size` bytes of the old one, in its place; its descriptor, and the hash so far."""
    temporary = temporary_of(path)
    handle = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
    digest = hashlib.sha256()
    try:
        if size:
            with path.open("rb") as old:
                while data := old.read(min(_CHUNK, size - old.tell())):
                    digest.update(data)
                    write_all(handle, data)
        os.fsync(handle)
        temporary.replace(path)
    except BaseException:
        os.close(handle)
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return handle, digest


def _sha256(path: Path, size: int) -> str:
    """Hash of the first `size` bytes; a missing file has none."""
    digest = hashlib.sha256()
    if size:
        with path.open("rb") as file:
            while data := file.read(min(_CHUNK, size - file.tell())):
                digest.update(data)
    return digest.hexdigest()
