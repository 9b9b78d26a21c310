"""The ranks of one attempt: how they find each other, agree, and exchange what they computed, always in the order of the ranks.

The one door to torch.distributed. Every method but the properties is a meeting: all ranks call it, in the same order."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist

from jobs.errors import PeerLost
from jobs.preemption import StopFlag

PATIENCE: Final = timedelta(minutes=30)
"""How long a rank waits for the others at a meeting: one of them may write a checkpoint to a slow disk meanwhile. A rank that
dies is noticed at once, by its closed connection."""

BUCKET_BYTES: Final = 32 << 20
"""So much is exchanged at once: what a sum needs in memory besides the gradients themselves."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among its peers. Alone, a meeting costs nothing."""

    rank: int = 0
    size: int = 1
    nodes: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def share(self, first: int, end: int) -> Iterator[int]:
        """Which of `range(first, end)` this rank computes. By the number alone: it matters not where a run was stopped."""
        return (number for number in range(first, end) if number % self.size == self.rank)

    def numbers(self, values: Sequence[float]) -> list[list[float]]:
        """The values of each rank, as many from each; float64, so whole numbers below 2**53 stay what they are. By rank."""
        if self.size == 1:
            return [list(values)]
        mine = torch.tensor(values, dtype=torch.float64)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        with _meeting():
            dist.all_gather(found, mine)
        return [each.tolist() for each in found]

    def objects(self, value: Any) -> list[Any]:
        """The value of each rank, by rank: small ones, now and then."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with _meeting():
            dist.all_gather_object(found, value)
        return found

    def from_first(self, value: Any) -> Any:
        """What the first rank has for `value`; the others' does not count."""
        return self.objects(value if self.first else None)[0]

    def tensors(self, mine: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
        """The tensors of each rank, by rank: bit for bit, whatever their types. All ranks give the same shapes and types. What
        comes back is the caller's, to be written over."""
        if self.size == 1 or not mine:
            return [[tensor.clone() for tensor in mine] for _ in range(self.size)]
        found: list[list[torch.Tensor]] = [[] for _ in range(self.size)]
        for bucket in _buckets(mine):
            packed = torch.cat([_raw(tensor) for tensor in bucket])
            received = [torch.empty_like(packed) for _ in range(self.size)]
            with _meeting():
                dist.all_gather(received, packed)
            for kept, raw in zip(found, received, strict=True):
                parts = torch.split(raw, [tensor.nbytes for tensor in bucket])
                kept += [part.view(tensor.dtype).view(tensor.shape) for part, tensor in zip(parts, bucket, strict=True)]
        return found

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the ranks. The same bits each time for one number of ranks, others for another."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            with _meeting():
                dist.all_reduce(flat)
            parts = torch.split(flat, [tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def overwrite(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by the first rank's."""
        if self.size > 1:
            with _meeting():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def close(self) -> None:
        """Leave. No meeting: the others may be gone."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


ALONE: Final = Ranks()


class SharedStop(StopFlag):
    """A stop that all ranks obey at the same place: raised by any of them, seen by all at the next meeting."""

    def __init__(self, own: StopFlag, ranks: Ranks) -> None:
        super().__init__()
        self._own, self._ranks = own, ranks

    def __call__(self) -> bool:
        """A meeting, as long as nobody has raised it."""
        if self.signal is None:
            raised = self._own()
            number = signal.Signals[self._own.signal].value if self._own.signal else 0
            told = self._ranks.numbers([number])
            first = next((int(each[0]) for each in told if each[0]), 0)
            if first:
                self.signal = signal.Signals(first).name
                self.since = self._own.since if raised else time.monotonic()
        return self.signal is not None


@contextmanager
def _meeting() -> Iterator[None]:
    """Raises PeerLost when another rank is gone."""
    try:
        yield
    except RuntimeError as error:  # gloo's; what NCCL raises is one, too
        raise PeerLost(f"another rank is gone: {str(error).splitlines()[0]}") from error


def _raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """In their order, of one type each, as large as is exchanged at once."""
    bucket: list[torch.Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (size + tensor.nbytes > BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket
