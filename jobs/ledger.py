"""The ledger: one line per optimizer step with the bits of what it computed, each carrying the hash of the line before."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.linefile import LineFile

START: Final = "0" * 64
"""What the first line carries as the hash of the line before it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a step went from, and what came of it: in the order in which one thing follows from the other, so that the first field
    in which two runs differ tells what was not the same (jobs/compare.py)."""

    step: int
    """It is done now."""
    data: int
    """Checksum of its micro-batches."""
    tokens: int
    """That counted in its loss."""
    lr: float
    random: Mapping[str, int]
    """Checksums of the global generators that nobody sets anew: python's and numpy's."""
    buffers: str | None
    """Checksum of the model's buffers; None where it has none."""
    loss: float
    grad_norm: float
    weights: str
    """Checksum of what is trained."""


class Ledger:
    """`ledger.jsonl`, open for appending after the line that `head` is the hash of.

    `crossed`: what of the hardware class is another one than that of the line before."""

    def __init__(self, file: LineFile, head: str = START, crossed: Sequence[str] = ()) -> None:
        self._file = file
        self.crossed = list(crossed)
        """It will stand in the next line, as `class`; a checkpoint takes it along until there is one."""
        self.head = head
        """sha256 of the last line, which the next one will carry."""

    def append(self, entry: Entry) -> None:
        """Floats are written as `float.hex`: every bit, readable by any language."""
        values = {name: getattr(entry, name) for name in entry.__slots__}
        line = {name: value.hex() if isinstance(value, float) else value for name, value in values.items()}
        if self.crossed:
            line["class"], self.crossed = self.crossed, []
        line["previous"] = self.head
        self.head = hashlib.sha256(self._file.append(line)).hexdigest()


def broken_link(path: Path) -> int | None:
    """Number of the first line (from 1) whose chain does not hold; None when all do."""
    head = START
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        try:
            if json.loads(line)["previous"] != head:
                return number
        except (ValueError, KeyError, TypeError):
            return number
        head = hashlib.sha256(line).hexdigest()
    return None


def steps(path: Path) -> int:
    """Number of whole lines; 0 without a file."""
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
