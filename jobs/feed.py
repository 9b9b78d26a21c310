"""Rows into batches: any number of loader workers, random transforms included, and always the same bits (R4)."""

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from jobs import preemption
from jobs.determinism import seed_everything, undisturbed
from jobs.order import Course, Purpose, Row, mix
from jobs.ranks import ALONE, Ranks

Batch = dict[str, torch.Tensor]


def checksum(batch: Batch, micro: int) -> int:
    """32 bits over a batch as it was fed, and its place in the step: their sum over a step tells whether two runs saw the same."""
    found = micro
    for name in sorted(batch):
        raw = batch[name].contiguous().view(-1).view(torch.uint8)
        found = zlib.crc32(raw.numpy().data, zlib.crc32(name.encode(), found))
    return found


class SeededRows(Dataset[Any]):
    """Rows by (number, seed). What a row's transforms draw from the global generators becomes a function of its position,
    whatever process loads it; the generators themselves are left as they were found."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __getitems__(self, rows: Sequence[Row]) -> list[Any]:
        with undisturbed():
            return [self._seeded(row) for row in rows]

    def _seeded(self, row: Row) -> Any:
        random.seed(row.seed)
        np.random.seed(row.seed & 0xFFFFFFFF)  # noqa: NPY002 - the global generator is what transforms draw from
        torch.default_generator.manual_seed(row.seed)
        return self.rows[row.number]

    def __getitem__(self, row: Row) -> Any:
        return self.__getitems__([row])[0]


class _Order:
    """The batch sampler: a rank's part of the rest of the course, from where the run stands."""

    def __init__(self, course: Course, step: int, done: int, ranks: Ranks) -> None:
        self._course, self._step, self._done, self._ranks = course, step, done, ranks

    def __iter__(self) -> Iterator[list[Row]]:
        return self._course.feed(self._step, self._done, self._ranks.rank, self._ranks.size)


class _StartWorker:
    """R4: a worker's generators follow from the run's seed and the worker's number; and it leaves stop signals to its parent."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, worker: int) -> None:
        preemption.deafen()
        seed_everything(mix(self._seed, Purpose.WORKER, worker) & 0xFFFFFFFF)


def feed(  # noqa: PLR0913 - all but the first two by name
    rows: Any,
    course: Course,
    *,
    step: int,
    done: int,
    workers: int,
    collate: Callable[[Sequence[Any]], Batch],
    ranks: Ranks = ALONE,
) -> Iterator[Batch]:
    """Every micro-batch of this rank from (step, `done` micro-batches already done) to the end of the course."""
    loader = DataLoader(
        SeededRows(rows),
        batch_sampler=_Order(course, step, done, ranks),  # it needs no length
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_StartWorker(course.seed),
        # Its own generator: else making an iterator would draw from the global one, once more after each resume.
        generator=torch.Generator().manual_seed(course.seed),
    )
    # Workers begin with torch's own handler of SIGTERM, which ends them, and Slurm signals every process of a step: a stop in
    # that moment would look like a crash.
    with preemption.blocked():
        return iter(loader)
