"""The ledger: one line per optimizer step with the bits of what it computed, each carrying the hash of the line before."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import torch

from jobs.linefile import LineFile

START: Final = "0" * 64
"""What the first line carries as the hash of the line before it."""

_WORDS: Final = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}
_CHUNK: Final = 1 << 22
_GOLDEN: Final = -7046029254386353131
"""2**64 divided by the golden ratio, as a signed integer; odd, so that multiplying by it loses nothing."""


class Checksum:
    """64 bits over the raw bits of a fixed list of tensors.

    Each word is multiplied by an odd number of its position and summed in wrapping 64-bit integers: the sum does not depend on
    the order in which a device adds, and a single flipped bit always shows. It finds accidents; `digest` is for more."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self._tensors = list(tensors)
        self._factors: dict[torch.device, torch.Tensor] = {}

    def _factor(self, device: torch.device, count: int) -> torch.Tensor:
        kept = self._factors.get(device)
        if kept is None or kept.numel() < count:
            positions = torch.arange(1, min(_CHUNK, max(count, 1)) + 1, dtype=torch.int64, device=device)
            kept = self._factors[device] = (positions * _GOLDEN) ^ (positions << 17) | 1
        return kept[:count]

    @torch.no_grad()
    def __call__(self) -> str:
        """16 hex digits for the tensors as they are now."""
        total: torch.Tensor | int = 0  # stays on the device: one wait for it per step, not one per tensor
        for tensor in self._tensors:
            words = tensor.detach().contiguous().view(-1).view(_WORDS[tensor.element_size()])
            for start in range(0, words.numel(), _CHUNK):
                part = words[start : start + _CHUNK].to(torch.int64)
                total = total * _GOLDEN + (part * self._factor(part.device, part.numel())).sum() + part.numel()
        return f"{int(total) & ((1 << 64) - 1):016x}"


@torch.no_grad()
def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over names, types, shapes and bytes: the name of a set of weights, the same on every machine."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().to("cpu").contiguous().flatten()
        found.update(f"{name} {plain.dtype} {list(tensor.shape)}\n".encode())
        found.update(plain.view(torch.uint8).numpy().data)
    return found.hexdigest()


class Ledger:
    """`ledger.jsonl`, open for appending after the line that `head` is the hash of."""

    def __init__(self, file: LineFile, head: str = START) -> None:
        self._file = file
        self.head = head
        """sha256 of the last line, which the next one will carry."""

    def append(self, step: int, loss: float, grad_norm: float, weights: str) -> None:
        """Floats are written as `float.hex`: every bit, readable by any language."""
        line = {
            "step": step,
            "loss": loss.hex(),
            "grad_norm": grad_norm.hex(),
            "weights": weights,
            "previous": self.head,
        }
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
