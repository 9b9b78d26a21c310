"""Checkpoints that are whole or do not count: written atomically, a manifest last, verified when read (R6 to R8).

The one door to torch.save and torch.load."""

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO, cast

import torch
from torch.utils.serialization import config

from jobs.errors import Fenced
from jobs.files import claim, publish_new, sync_folder, temporary_of


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a run stands. Ordered: a later position is a newer checkpoint."""

    step: int
    """Optimizer steps done."""
    micro: int
    """Micro-batches of the step under way that are done."""
    evaluated: int
    """Evaluations done; the one before the first step counts."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """`X.pt.json`: what a checkpoint must be. It counts once this stands."""

    file: str
    bytes: int
    sha256: str
    position: Position
    epoch: int
    """Epochs completed."""
    loss: float
    """In the name: after an epoch the validation loss, else the last training loss."""
    attempt: int

    def write(self, path: Path) -> bool:
        """False: there is one, which stays."""
        fields = {**{k: getattr(self, k) for k in self.__slots__ if k != "position"}, **_plain(self.position)}
        return publish_new(path, (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Raises OSError, ValueError, KeyError or TypeError."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["file"] != path.name.removesuffix(".json"):
            raise ValueError(f"it is that of {fields['file']}")
        position = Position(*(int(fields[key]) for key in ("step", "micro", "evaluated")))
        return cls(
            str(fields["file"]), int(fields["bytes"]), str(fields["sha256"]), position, int(fields["epoch"]),
            float(fields["loss"]), int(fields["attempt"]),
        )  # fmt: skip


def _plain(position: Position) -> dict[str, int]:
    return {"step": position.step, "micro": position.micro, "evaluated": position.evaluated}


@dataclass(frozen=True, slots=True)
class Found:
    """What there was to go on from."""

    state: dict[str, Any] | None
    """The checkpoint's content; None when there is none that is whole."""
    file: str | None
    skipped: tuple[dict[str, str], ...]
    """Newer ones that were passed over: {file, reason}."""
    misfits: int = 0
    """How many of those were whole, and passed over for a reason that `check` had."""


def file_name(experiment: str, epoch: int, loss: float, position: Position | None) -> str:
    """R7: `NAME_epoch3_loss0.1234.pt` after an epoch; in between `..._step120.pt`, in an accumulation `..._step120.2.pt`."""
    between = ""
    if position is not None:
        between = f"_step{position.step}" + (f".{position.micro}" if position.micro else "")
    return f"{experiment}_epoch{epoch}_loss{loss:.4f}{between}.pt"


class Checkpoints:
    """The checkpoints of one run in one folder. `fence` is asked right before anything is published, and raises."""

    def __init__(self, folder: Path, keep: int, fence: Callable[[], None]) -> None:
        self._folder, self._keep, self._fence = folder, keep, fence
        folder.mkdir(parents=True, exist_ok=True)

    def clear_leftovers(self) -> None:
        """Remove what a killed writer left: temporary files, and files that never got a manifest."""
        self._fence()
        for path in (*self._folder.glob(".*.tmp"), *self._folder.glob("*.pt")):
            if path.suffix == ".tmp" or not _manifest_of(path).exists():
                path.unlink(missing_ok=True)

    def manifests(self) -> list[Manifest]:
        """Newest first, without those that cannot be read: their checkpoints do not count."""
        return self._manifests()[0]

    def _manifests(self) -> tuple[list[Manifest], list[dict[str, str]]]:
        """The manifests, newest first, and what is wrong with the others: {file, reason}."""
        found, unreadable = [], []
        for path in sorted(self._folder.glob("*.pt.json")):
            try:
                found.append(Manifest.read(path))
            except (OSError, ValueError, KeyError, TypeError) as error:
                reason = f"has a manifest that cannot be read: {error}"
                unreadable.append({"file": path.name.removesuffix(".json"), "reason": reason})
        return sorted(found, key=lambda manifest: manifest.position, reverse=True), unreadable

    def newest(self, check: Callable[[dict[str, Any]], str | None]) -> Found:
        """The newest checkpoint that is whole and of which `check` knows no reason against it."""
        manifests, skipped = self._manifests()
        misfits = 0
        for manifest in manifests:
            state, reason = self._read(manifest)
            if state is not None and (reason := check(state)):
                misfits += 1
            if reason is None:
                return Found(state, manifest.file, tuple(skipped), misfits)
            skipped.append({"file": manifest.file, "reason": reason})
        return Found(None, None, tuple(skipped), misfits)

    def read(self, file: str) -> tuple[dict[str, Any] | None, str | None]:
        """The content of one checkpoint, or what is wrong with it."""
        try:
            manifest = Manifest.read(_manifest_of(self._folder / file))
        except (OSError, ValueError, KeyError, TypeError) as error:
            return None, f"has a manifest that cannot be read: {error}"
        return self._read(manifest)

    def _read(self, manifest: Manifest) -> tuple[dict[str, Any] | None, str | None]:
        """Its content, or what is wrong with it."""
        try:
            with (self._folder / manifest.file).open("rb") as file:
                if (size := os.fstat(file.fileno()).st_size) != manifest.bytes:
                    return None, f"has {size} bytes instead of {manifest.bytes}"
                if (found := hashlib.file_digest(file, "sha256").hexdigest()) != manifest.sha256:
                    return None, f"has sha256 {found} instead of {manifest.sha256}"
                file.seek(0)
                return torch.load(file, map_location="cpu", weights_only=True), None
        except OSError as error:
            return None, f"cannot be read: {error.strerror}"
        except Exception as error:  # noqa: BLE001 - whatever torch says of a file that it cannot read, the one before may do
            return None, f"cannot be loaded: {error}"

    def settle(self, found: Found, *, best: bool) -> None:
        """Make the folder agree with what the run goes on from: what was passed over is set aside, so that it is neither counted
        among those to keep nor tried again, and the links point where a killed writer did not come to point them."""
        self._fence()
        for skipped in found.skipped:
            _set_aside(self._folder / skipped["file"])
        if found.file is not None:
            self._point("latest", found.file)
            if best:
                self._point("best", found.file)

    def save(
        self, state: dict[str, Any], name: str, manifest: Callable[[str, int, str], Manifest], *, best: bool
    ) -> Path:
        """Publish a checkpoint, point `latest` (and `best`) at it, and drop what need not stay.

        Raises OSError; nothing is left behind then, and the one before stands. Raises TypeError for content that could be
        written but not read again."""
        _check_plain(state)
        path = self._folder / name
        self._fence()
        try:
            size, digest = self._publish(path, state)
        except OSError:
            self._fence()  # a newer attempt clears away what an older one was making
            raise
        self._fence()
        if not manifest(name, size, digest).write(_manifest_of(path)):
            self._fence()
            raise FileExistsError(f"{_manifest_of(path)} appeared while its checkpoint was written")
        self._fence()
        self._point("latest", name)
        if best:
            self._point("best", name)
        sync_folder(self._folder)  # or a power cut may take the new link, and not what is dropped next
        self._fence()
        self._drop_old()
        return path

    def _publish(self, path: Path, state: dict[str, Any]) -> tuple[int, str]:
        """Size and sha256 of the file."""
        temporary = temporary_of(path)
        try:
            with temporary.open("wb") as file:
                sink = _HashingFile(file)
                # The whole is hashed: a checksum of each tensor besides would cost half the time again.
                with config.patch("save.compute_crc32", False):  # type: ignore[attr-defined]  # noqa: FBT003
                    torch.save(state, cast("BinaryIO", sink))
                sink.check()
                file.flush()
                os.fsync(file.fileno())
            self._fence()
            while not claim(
                temporary, path
            ):  # a newer attempt's, which the fence will say; or one that was passed over
                self._fence()
                _set_aside(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(self._folder)
        return sink.size, sink.hash.hexdigest()

    def _point(self, link: str, name: str) -> None:
        """Asked again afterwards: a process that slept between the fence and the rename has pointed it back, at a file that may be
        gone. Where it should point follows from the manifests alone, so whoever finds that mends it."""
        self._link(link, name)
        try:
            self._fence()
        except Fenced:
            for each, manifest in self._links().items():
                self._link(each, manifest.file)
            raise

    def _link(self, link: str, name: str) -> None:
        temporary = temporary_of(self._folder / link)
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(name)
        temporary.replace(self._folder / link)

    def _links(self) -> dict[str, Manifest]:
        """`latest` is the furthest; `best` the epoch with the lowest validation loss, the first of equal ones."""
        found = self.manifests()
        epochs = [manifest for manifest in reversed(found) if "_step" not in manifest.file]
        links = {"latest": found[0]} if found else {}
        return links | ({"best": min(epochs, key=lambda manifest: manifest.loss)} if epochs else {})

    def _drop_old(self) -> None:
        kept = {os.path.realpath(self._folder / link) for link in ("best", "latest")}
        for manifest in self.manifests()[self._keep :]:
            path = self._folder / manifest.file
            if str(path.resolve()) not in kept:
                _manifest_of(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)


def _check_plain(value: Any, path: str = "") -> None:
    """Raises TypeError for what `weights_only` would refuse to load, subclasses of plain types included: such a checkpoint would
    be written, and found out when it is needed."""
    if type(value) in {dict, OrderedDict}:
        for key, part in value.items():
            _check_plain(key, path)
            _check_plain(part, f"{path}/{key}")
    elif type(value) in {list, tuple}:
        for number, part in enumerate(value):
            _check_plain(part, f"{path}/{number}")
    elif type(value) not in {torch.Tensor, str, int, float, bool, NoneType}:
        raise TypeError(f"a checkpoint cannot hold {path}, a {type(value).__module__}.{type(value).__qualname__}")


class _HashingFile:
    """What torch.save writes to: hashed on its way, so that a checkpoint is never in memory as a whole.

    An error is kept for afterwards: torch's writer, interrupted, would hide it behind one of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size, self.hash, self.error = 0, hashlib.sha256(), None  # type: tuple[int, hashlib._Hash, OSError | None]

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
            self.hash.update(data)
            self.size += len(data)
        return len(data)

    def check(self) -> None:
        """Raises the OSError that was kept."""
        if self.error is not None:
            raise self.error

    def flush(self) -> None:
        """torch calls it; the file is flushed once, before its fsync."""


def _set_aside(path: Path) -> None:
    """Out of the way, and kept for a look. Its manifest goes first: it would belong to other bytes."""
    _manifest_of(path).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        path.replace(path.with_name(f"{path.name}.set-aside"))


def _manifest_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
