"""Randomness that is computed, not stored: row order, seeds and learning rate as pure functions of where the run is.

Integers only, so the results depend on no library's version. Resuming at any step costs O(1): there is nothing to replay."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from jobs.recipe import Schedule

_MASK = (1 << 64) - 1
_ROUNDS = 4


class Purpose(IntEnum):
    """Keeps the streams of one seed apart. The numbers are part of the bits: never reuse one."""

    ROW = 1
    SHUFFLE = 2
    DROPOUT = 3
    WEIGHTS = 4
    ADAPTERS = 5
    WORKER = 6


def mix(*words: int) -> int:
    """A 64-bit hash of integers: a chain of splitmix64 (Steele, Lea, Flood 2014). Stable across processes and machines."""
    state = 0
    for word in words:
        state = (state + word + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def shuffled(position: int, count: int, key: int) -> int:
    """The row at `position` of a shuffle of range(count): a bijection for each key, without a table.

    A Feistel network over the smallest even number of bits that holds `count`, walked until it falls inside
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains")."""
    if not 0 <= position < count:
        msg = f"position {position} is outside of range({count})"
        raise IndexError(msg)
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    value = position
    while True:
        left, right = value >> half, value & low
        for turn in range(_ROUNDS):
            left, right = right, left ^ (mix(key, turn, right) & low)
        value = (left << half) | right
        if value < count:
            return value


class Row(NamedTuple):
    """One row to load: which, and the seed of whatever its transforms draw."""

    number: int
    seed: int


@dataclass(frozen=True, slots=True)
class Course:
    """Which rows each micro-batch of each optimizer step holds. The last micro-batch and step of an epoch may be short."""

    seed: int
    rows: int
    batch_size: int
    accumulation: int
    epochs: int

    @property
    def batches_per_epoch(self) -> int:
        return -(-self.rows // self.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.batches_per_epoch // self.accumulation)

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    def epoch(self, step: int) -> int:
        """Epochs completed before `step`, so the 0-based epoch that the step belongs to."""
        return step // self.steps_per_epoch

    def micro_batches(self, step: int) -> list[range]:
        """Positions within the epoch of each micro-batch of a step."""
        first = (step % self.steps_per_epoch) * self.accumulation
        last = min(first + self.accumulation, self.batches_per_epoch)
        return [
            range(batch * self.batch_size, min((batch + 1) * self.batch_size, self.rows))
            for batch in range(first, last)
        ]

    def row(self, epoch: int, position: int) -> Row:
        return Row(
            shuffled(position, self.rows, mix(self.seed, Purpose.SHUFFLE, epoch)),
            mix(self.seed, Purpose.ROW, epoch, position),
        )

    def feed(self, step: int, done: int, rank: int = 0, ranks: int = 1) -> Iterator[list[Row]]:
        """The rows of every micro-batch from (step, first `done` micro-batches already done) to the end; of `ranks`, those of one:
        micro-batch m of a step is that of rank m modulo ranks, wherever a run goes on."""
        for now in range(step, self.steps):
            epoch = self.epoch(now)
            for micro, batch in enumerate(self.micro_batches(now)):
                if micro % ranks == rank and (now > step or micro >= done):
                    yield [self.row(epoch, position) for position in batch]

    def dropout_seed(self, step: int, micro: int) -> int:
        """Seed of torch's generators for the forward pass of a micro-batch. Below 2**63, as torch wants it."""
        return mix(self.seed, Purpose.DROPOUT, step, micro) >> 1


def learning_rate_factor(schedule: Schedule, step: int, steps: int) -> float:
    """The learning rate of a step (0-based, of `steps`) as a factor of its peak; the last step has `final_fraction`."""
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    progress = (step - schedule.warmup_steps) / max(1, steps - 1 - schedule.warmup_steps)
    match schedule.name:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - (1.0 - schedule.final_fraction) * progress
        case "cosine":
            # Rounded, since the last bit of a cosine is the C library's business.
            falling = round(0.5 * (1.0 + math.cos(math.pi * progress)), 12)
            return schedule.final_fraction + (1.0 - schedule.final_fraction) * falling
