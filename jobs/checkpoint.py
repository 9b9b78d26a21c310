"""Checkpoints that are whole or do not count: written atomically, a manifest last, verified when read (R6 to R8).

The one door to torch.save and torch.load."""

import errno
import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from jobs.files import publish_json, sync_folder

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a file system without room: no reason to give up what was trained so far."""


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

    def write(self, path: Path) -> None:
        publish_json(
            path, {**{k: getattr(self, k) for k in self.__slots__ if k != "position"}, **_plain(self.position)}
        )

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Raises OSError, ValueError or KeyError."""
        fields = json.loads(path.read_text(encoding="utf-8"))
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
        """Newest first. One that cannot be read is passed over: its checkpoint does not count."""
        found = []
        for path in self._folder.glob("*.pt.json"):
            try:
                found.append(Manifest.read(path))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return sorted(found, key=lambda manifest: manifest.position, reverse=True)

    def newest(self, check: Callable[[dict[str, Any]], str | None]) -> Found:
        """The newest checkpoint that is whole and of which `check` knows no reason against it."""
        skipped: list[dict[str, str]] = []
        for manifest in self.manifests():
            state, reason = self._read(manifest)
            reason = reason or check(state or {})
            if reason is None:
                return Found(state, manifest.file, tuple(skipped))
            skipped.append({"file": manifest.file, "reason": reason})
        return Found(None, None, tuple(skipped))

    def _read(self, manifest: Manifest) -> tuple[dict[str, Any] | None, str | None]:
        try:
            data = (self._folder / manifest.file).read_bytes()
        except OSError as error:
            return None, f"cannot be read: {error.strerror}"
        if len(data) != manifest.bytes:
            return None, f"has {len(data)} bytes instead of {manifest.bytes}"
        if (found := hashlib.sha256(data).hexdigest()) != manifest.sha256:
            return None, f"has sha256 {found} instead of {manifest.sha256}"
        try:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - whatever torch says of a file that it cannot read, the one before may do
            return None, f"cannot be loaded: {error}"
        return state, None

    def save(
        self, state: dict[str, Any], name: str, manifest: Callable[[str, int, str], Manifest], *, best: bool
    ) -> Path:
        """Publish a checkpoint, point `latest` (and `best`) at it, and drop what need not stay.

        Raises OSError; nothing is left behind then, and the one before stands."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getbuffer()
        path = self._folder / name
        self._fence()
        self._publish(path, data)
        manifest(name, len(data), hashlib.sha256(data).hexdigest()).write(_manifest_of(path))
        self._point("latest", name)
        if best:
            self._point("best", name)
        self._drop_old()
        return path

    def _publish(self, path: Path, data: memoryview) -> None:
        temporary = self._folder / f".{path.name}.{os.getpid()}.tmp"
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._fence()
            # A manifest of the same name belongs to other bytes from now on: it goes first.
            _manifest_of(path).unlink(missing_ok=True)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(self._folder)

    def _point(self, link: str, name: str) -> None:
        temporary = self._folder / f".{link}.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(name)
        temporary.replace(self._folder / link)

    def _drop_old(self) -> None:
        kept = {os.path.realpath(self._folder / link) for link in ("best", "latest")}
        for manifest in self.manifests()[self._keep :]:
            path = self._folder / manifest.file
            if str(path.resolve()) not in kept:
                _manifest_of(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)


def _manifest_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
