"""An image as one file, for machines that cannot build: everything that a run needs, every part known by its digest.

A plain tar. Its first member is the manifest, whose name is its own hash; it lists the others with size and sha256. Names in a
parcel are never used as paths: what comes in is written under numbers, and only what the manifest lists is taken."""

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from jobs.contract import ImagePin
from jobs.files import now, sync_folder
from launcher.errors import ExitCode, LaunchError, fail

FORMAT: Final = 1
MANIFEST: Final = re.compile(r"samebits-([0-9a-f]{64})\.json")
LARGEST_MANIFEST: Final = 16 << 20
BLOCK: Final = 1 << 20
AGAIN: Final = "Copy it again from where it was exported; compare both with sha256sum."


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is in a parcel, once all of it was found whole."""

    pin: ImagePin
    about: Mapping[str, Any]
    """What the engine wrote about it: its records."""
    files: Mapping[str, Path]
    """The parts by their names, in a folder of the store that goes away afterwards."""


def write(file: Path, pin: ImagePin, about: Mapping[str, Any], parts: Mapping[str, Path]) -> int:
    """Put these files into a parcel. It appears whole, or not at all. Returns its bytes.

    Raises LaunchError (FILES) where something has that name, and OSError."""
    check_name(file)
    listed = {name: {"size": path.stat().st_size, "sha256": _digest(path)} for name, path in parts.items()}
    manifest = {"format": FORMAT, "written": now(), "pin": asdict(pin), "about": dict(about), "files": listed}
    text = json.dumps(manifest, indent=2, sort_keys=True).encode()
    handle, temporary = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".tmp", dir=file.absolute().parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
                _add(archive, f"samebits-{hashlib.sha256(text).hexdigest()}.json", len(text), io.BytesIO(text))
                for name, path in parts.items():
                    with path.open("rb") as content:
                        _add(archive, name, path.stat().st_size, content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        _name(Path(temporary), file)
    finally:
        Path(temporary).unlink(missing_ok=True)
    sync_folder(file.absolute().parent)
    return file.stat().st_size


def check_name(file: Path) -> None:
    """That a parcel can be written there. Raises LaunchError (FILES)."""
    if file.exists() or file.is_symlink():
        raise fail(ExitCode.FILES, "It is there already.", where=str(file), hint="Take another name, or remove it.")
    if not file.absolute().parent.is_dir():
        raise fail(ExitCode.FILES, "There is no such folder.", where=str(file.absolute().parent))


def _name(temporary: Path, file: Path) -> None:
    try:
        os.link(temporary, file)  # unlike a rename, it takes nobody's place
    except FileExistsError:
        raise
    except OSError:  # a file system without links: a stick between two machines
        temporary.rename(file)


def _add(archive: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    archive.addfile(member, content)


@contextmanager
def opened(file: Path, store: Path) -> Iterator[Parcel]:
    """Take a parcel apart, inside of the store but under none of its names, and remove what was taken out at the end.

    Raises LaunchError: FILES for a file that is no parcel, that does not fit on the disk, or of which any bit is not as listed."""
    store.mkdir(parents=True, exist_ok=True)
    folder = store / "incoming"
    folder.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".parcel.", suffix=".tmp", dir=folder))
    try:
        with _plain_words(file), tarfile.open(file, "r:") as archive:
            parcel = _taken(archive, file, scratch)
        yield parcel
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _plain_words(file: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"It is no image that `launch image export` wrote, or not all of it: {error!r}."
        raise fail(ExitCode.FILES, what, where=str(file), hint=AGAIN) from error


def _taken(archive: tarfile.TarFile, file: Path, scratch: Path) -> Parcel:
    manifest = _manifest(archive, file)
    listed: Mapping[str, Any] = manifest["files"]
    needed = sum(entry["size"] for entry in listed.values())
    if needed > (free := shutil.disk_usage(scratch).free):
        what = f"It unpacks to {needed / 1e9:.1f} GB; there are {free / 1e9:.1f} GB left."
        raise fail(ExitCode.FILES, what, where=str(scratch.parent), hint="`launch image prune` removes what is unused.")
    found: dict[str, Path] = {}
    for member in archive:
        name = member.name
        if MANIFEST.fullmatch(name) and not found and member.offset == 0:
            continue
        if name not in listed or name in found or not member.isreg() or member.size != listed[name]["size"]:
            raise _refused(file, f"`{name}` is not as the manifest lists it")
        found[name] = scratch / str(len(found))
        content = archive.extractfile(member)
        assert content is not None  # noqa: S101 - it is a regular file
        digest = _copy(content, found[name])
        if digest != listed[name]["sha256"]:
            raise _refused(file, f"`{name}` has sha256:{digest}, and should have sha256:{listed[name]['sha256']}")
    if missing := sorted(set(listed) - set(found)):
        raise _refused(file, f"`{missing[0]}` is missing")
    return Parcel(ImagePin(**manifest["pin"]), manifest["about"], found)


def _manifest(archive: tarfile.TarFile, file: Path) -> dict[str, Any]:
    first = archive.next()
    named = MANIFEST.fullmatch(first.name) if first is not None else None
    if first is None or named is None or not first.isreg() or first.size > LARGEST_MANIFEST:
        hint = "`launch image export CONFIG FILE` writes one, on a machine that can build."
        raise fail(ExitCode.FILES, "It is no image that `launch image export` wrote.", where=str(file), hint=hint)
    content = archive.extractfile(first)
    text = content.read() if content is not None else b""
    if hashlib.sha256(text).hexdigest() != named[1]:
        raise _refused(file, "its manifest has another hash than its name says")
    manifest: dict[str, Any] = json.loads(text)
    if manifest["format"] != FORMAT:
        what = f"It has format {manifest['format']}; this launcher reads {FORMAT}."
        raise fail(ExitCode.FILES, what, where=str(file), hint="Use the same version of samebits on both sides.")
    return manifest


def _refused(file: Path, why: str) -> LaunchError:
    return fail(
        ExitCode.FILES, f"It was damaged or changed: {why}. Nothing of it was taken.", where=str(file), hint=AGAIN
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(content: IO[bytes], path: Path) -> str:
    """Write it down, synced; returns the hash of what was written."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        while block := content.read(BLOCK):
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
