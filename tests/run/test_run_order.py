"""Computed randomness: a bijection per epoch, streams that keep apart, a schedule that ends where it says, pinned values."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.feed import SeededRows
from jobs.order import Course, Purpose, Row, learning_rate_factor, mix, shuffled
from jobs.recipe import Schedule


@settings(deadline=None)  # a machine in use may pause anywhere
@given(st.integers(1, 400), st.integers(0, 2**64 - 1))
def test_run_order_shuffle_is_a_bijection(count: int, key: int) -> None:
    assert sorted(shuffled(position, count, key) for position in range(count)) == list(range(count))


def test_run_order_values_are_pinned() -> None:
    """Another value here means other bits for every run that was ever made."""
    assert mix(1, 2, 3) == 0x6AE515C1C0AC7E37
    assert [shuffled(position, 10, 42) for position in range(10)] == [2, 3, 0, 1, 9, 7, 4, 5, 8, 6]
    assert Course(seed=7, rows=10, batch_size=4, accumulation=2, epochs=2).dropout_seed(3, 1) == 1253640414547531419


@settings(deadline=None)  # a machine in use may pause anywhere
@given(st.integers(1, 50), st.integers(1, 7), st.integers(1, 5), st.integers(1, 3))
def test_run_order_every_row_once_per_epoch_from_any_place(
    rows: int, batch: int, accumulation: int, epochs: int
) -> None:
    course = Course(seed=1, rows=rows, batch_size=batch, accumulation=accumulation, epochs=epochs)
    whole = list(course.feed(0, 0))
    assert len(whole) == course.batches_per_epoch * epochs
    for epoch in range(epochs):
        part = whole[epoch * course.batches_per_epoch : (epoch + 1) * course.batches_per_epoch]
        assert sorted(row.number for row in itertools.chain(*part)) == list(range(rows))
    seeds = [row.seed for row in itertools.chain(*whole)]
    assert len(set(seeds)) == len(seeds)
    done = 0
    for step in range(course.steps):
        for micro in range(len(course.micro_batches(step))):
            assert list(course.feed(step, micro)) == whole[done + micro :]
        done += len(course.micro_batches(step))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 6), st.integers(1, 5), st.data())
def test_run_order_ranks_share_each_step_by_number_wherever_it_goes_on(
    rows: int, accumulation: int, ranks: int, epochs: int, data: st.DataObject
) -> None:
    """What the feeders of all ranks give, taken as the loop takes it (micro-batch m from rank m modulo ranks), is the whole."""
    course = Course(seed=1, rows=rows, batch_size=2, accumulation=accumulation, epochs=epochs)
    step = data.draw(st.integers(0, course.steps - 1))
    done = data.draw(st.integers(0, len(course.micro_batches(step)) - 1))
    feeders = [course.feed(step, done, rank, ranks) for rank in range(ranks)]
    taken = [
        next(feeders[micro % ranks])
        for now in range(step, course.steps)
        for micro in range(done if now == step else 0, len(course.micro_batches(now)))
    ]
    assert taken == list(course.feed(step, done))
    assert all(next(feeder, None) is None for feeder in feeders)


def test_run_order_epochs_and_seeds_differ() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        course = Course(seed=seed, rows=40, batch_size=4, accumulation=1, epochs=2)
        return [course.row(epoch, position).number for position in range(40)]

    assert order(0, 0) != order(0, 1) != order(1, 1) != order(1, 0)


def test_run_order_purposes_are_distinct_numbers() -> None:
    assert len({int(purpose) for purpose in Purpose}) == len(Purpose)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_run_order_learning_rate_ends_where_it_says(name: str) -> None:
    schedule = Schedule.model_validate({"name": name, "warmup_steps": 4, "final_fraction": 0.1})
    factors = [learning_rate_factor(schedule, step, 20) for step in range(20)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert factors[19] == pytest.approx(0.1)
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert learning_rate_factor(schedule, 0, 1) == 0.25
    assert {learning_rate_factor(Schedule(), step, 9) for step in range(9)} == {1.0}


class Drawing:
    """Rows that are what they draw."""

    def __getitem__(self, index: int) -> tuple[float, float, float]:
        import random

        import numpy as np

        return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002


def test_run_order_rows_draw_by_seed_and_leave_no_trace() -> None:
    rows = SeededRows(Drawing())
    first, again = rows[Row(0, 11)], rows[Row(0, 11)]
    assert first == again != rows[Row(0, 12)]
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    _ = rows[Row(0, 11)]
    assert torch.equal(torch.rand(()), expected)
