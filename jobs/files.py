"""Writing that never leaves a half: publish a whole file, append a whole line. Standard library only, used by both halves."""

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_TOKEN = secrets.token_hex(4)


def publish(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the old one or the whole new one, also after a power cut.

    Temporary name in the same folder, fsync, rename, fsync of the folder. A leftover of a killed writer is never read.
    Raises OSError; the temporary file is then removed."""
    with _written(path, data, mode) as temporary:
        temporary.replace(path)
    sync_folder(path.parent)


def publish_new(path: Path, data: bytes, mode: int = 0o644) -> bool:
    """As `publish`, but a file that is there stays as it is: then False."""
    with _written(path, data, mode) as temporary:
        done = claim(temporary, path)
    sync_folder(path.parent)
    return done


@contextmanager
def _written(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """The data under a temporary name, synced; that name is gone afterwards."""
    temporary = temporary_of(path)
    try:
        handle = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """A name beside it for a file that is being made; `.*.tmp` is never read. A process id alone would not do: in containers on two
    nodes everybody has the same."""
    return path.with_name(f".{path.name}.{os.getpid()}-{_TOKEN}.tmp")


def claim(temporary: Path, path: Path) -> bool:
    """Give a finished file its name, unless that is taken: then False, and both stay as they are. One step for the file system: a
    process that slept just before it cannot replace what somebody else has put there meanwhile.

    Raises OSError. Where the file system has no hard links it is a look and a rename."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
        if path.exists():
            return False
        temporary.replace(path)
    temporary.unlink(missing_ok=True)
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish_json(path: Path, value: Any, mode: int = 0o644) -> None:
    """`publish` a value as indented JSON with a final line break."""
    publish(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(), mode)


def write_all(handle: int, data: bytes) -> None:
    """Write every byte: a nearly full disk takes a part without an error, and says so only when asked for the rest.

    Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON object as a line, in a single write on a descriptor opened for appending: lines never interleave.

    A line that a killed writer left without its end is ended first, so that it spoils only itself."""
    data = (json.dumps(value, ensure_ascii=False) + "\n").encode()
    handle = os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            data = b"\n" + data
        write_all(handle, data)
    finally:
        os.close(handle)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines; a missing file has none, a torn line is passed over."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def now() -> str:
    """The time in UTC, to the millisecond: ``2026-01-31T12:00:00.123Z``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
