"""The schedule of blows: the same from the same seed, fair to kinds, runs and moments, and aimed where the moment is."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from launcher.chaos.schedule import LOCAL, SLURM, Blow, Course, Moment, draw

COURSE = Course(steps=700, per_epoch=140, interval=100)


def test_chaos_the_same_seed_deals_the_same_blows() -> None:
    assert draw(7, 50, (0, 1, 2), SLURM, COURSE) == draw(7, 50, (0, 1, 2), SLURM, COURSE)
    assert draw(7, 50, (0, 1, 2), SLURM, COURSE) != draw(8, 50, (0, 1, 2), SLURM, COURSE)


def test_chaos_a_schedule_can_be_read() -> None:
    kinds = {kind.name: kind for kind in SLURM}
    assert (
        str(Blow(3, 1, kinds["kill"], Moment.SAVE, 200, 0.0)) == "blow 3 on seed 1: kill in its save, from step 200 on"
    )
    assert str(Blow(4, 0, kinds["preempt"], Moment.START, 9, 0.5)) == "blow 4 on seed 0: preempt while it starts"


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 200),
    st.lists(st.integers(0, 99), min_size=1, max_size=5, unique=True),
    st.integers(1, 400),
    st.integers(1, 60),
    st.sampled_from([SLURM, LOCAL]),
)
def test_chaos_each_kind_run_and_moment_comes_as_often_as_the_others(
    seed, count, seeds, steps, interval, kinds
) -> None:
    course = Course(steps, max(1, steps // 3), interval)
    blows = draw(seed, count, seeds, kinds, course)
    assert [blow.number for blow in blows] == list(range(1, count + 1))
    for cards, dealt in ((kinds, (blow.kind for blow in blows)), (seeds, (blow.seed for blow in blows))):
        found = Counter(dealt)
        assert max(found[card] for card in cards) - min(found[card] for card in cards) <= 1
    for run in seeds:
        steps_of_run = [blow.step for blow in blows if blow.seed == run]
        assert steps_of_run == sorted(steps_of_run)
    for blow in blows:
        assert 1 <= blow.step <= steps
        assert blow.moment is not Moment.SAVE or blow.step % interval == 0
        assert blow.moment is not Moment.EVALUATION or blow.step % course.per_epoch == 0
