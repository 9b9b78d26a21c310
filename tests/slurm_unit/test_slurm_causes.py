"""The table of causes, pair by pair, and what budgets do to it."""

import itertools
from datetime import datetime, timedelta

import pytest

from jobs.contract import Action, Cause, Exit
from launcher.causes import IDLE_STARTS, TABLE, Outcome, Situation, Word, decide, outcome, slurm_word
from launcher.cluster import JobFacts

NOW = datetime(2026, 1, 31, 12, 0)  # noqa: DTZ001 - Slurm's times have no zone
LATER = NOW + timedelta(hours=1)
SOON = NOW + timedelta(seconds=100)


def facts(state="RUNNING", reason="None", restarts=0, preempted=None, end=LATER):
    return JobFacts(state, reason, restarts, preempted, end, "n1")


FACTS = {
    Word.REQUEUED: facts("COMPLETING", restarts=1),
    Word.LOST: facts("NODE_FAIL", restarts=1),
    Word.GRACE: facts(preempted=NOW),
    Word.NEAR_LIMIT: facts(end=SOON),
    Word.RUNNING: facts(),
    Word.TIME_LIMIT: facts("COMPLETING", "TimeLimit"),
    Word.TAKEN: facts("PREEMPTED", preempted=NOW),
    Word.NODE: facts("NODE_FAIL"),
    Word.MEMORY: facts("OUT_OF_MEMORY"),
    Word.ENDING: facts("COMPLETING"),
    Word.MUTE: None,
}
CODES = {
    Outcome.DONE: Exit.DONE,
    Outcome.SAVED: Exit.SAVED,
    Outcome.BROKEN: Exit.BROKEN,
    Outcome.KILLED: -9,
    Outcome.SILENT: None,
    Outcome.ABSENT: None,
    Outcome.UNFIT: Exit.UNFIT,
    Outcome.REFUSED: Exit.REFUSED,
    Outcome.FENCED: Exit.FENCED,
}


def situation(said=Outcome.SAVED, word=Word.GRACE, **changes):
    known = {"code": CODES[said], "restarts": 0, "facts": FACTS[word], "now": NOW, "signal_seconds": 60}
    known["taken"] = said is not Outcome.ABSENT
    return Situation(**{**known, **changes})


@pytest.mark.parametrize("word", Word)
def test_each_word_of_slurm_is_understood(word):
    assert slurm_word(situation(word=word)) is word


@pytest.mark.parametrize("said", [each for each in Outcome if each is not Outcome.ABSENT])
def test_each_outcome_is_understood(said):
    assert outcome(CODES[said]) is said


def test_the_table_has_an_answer_for_every_pair():
    for said, word in itertools.product(Outcome, Word):
        decision = decide(situation(said, word))
        assert (decision.cause, decision.action) == TABLE[said][word]


@pytest.mark.parametrize(
    ("word", "cause", "action"),
    [
        (Word.REQUEUED, Cause.REQUEUED, Action.NONE),
        (Word.GRACE, Cause.PREEMPTED, Action.REQUEUE),
        (Word.NEAR_LIMIT, Cause.TIME_LIMIT, Action.REQUEUE),
        (Word.TIME_LIMIT, Cause.TIME_LIMIT, Action.REQUEUE),
        (Word.ENDING, Cause.CANCELLED, Action.STOP),
        (Word.RUNNING, Cause.INTERRUPTED, Action.STOP),
        (Word.MUTE, Cause.UNKNOWN, Action.STOP),
    ],
)
def test_the_six_causes_of_a_run_that_saved(word, cause, action):
    decision = decide(situation(Outcome.SAVED, word))
    assert (decision.cause, decision.action) == (cause, action)


def test_what_slurm_requeues_itself_is_never_requeued_by_us():
    for said, word in itertools.product(Outcome, (Word.REQUEUED, Word.LOST)):
        assert decide(situation(said, word)).action is not Action.REQUEUE


def test_a_crash_is_never_requeued():
    for said, word in itertools.product((Outcome.BROKEN, Outcome.REFUSED, Outcome.FENCED), Word):
        assert decide(situation(said, word)).action is not Action.REQUEUE
    assert decide(situation(Outcome.KILLED, Word.RUNNING)).cause is Cause.CRASHED


def test_a_cancelled_job_stays_dead_also_within_its_grace():
    cancelled = facts("COMPLETING", preempted=NOW)
    decision = decide(situation(facts=cancelled))
    assert (decision.cause, decision.action) == (Cause.CANCELLED, Action.STOP)


@pytest.mark.parametrize(("used", "action"), [(1, Action.REQUEUE), (2, Action.STOP)])
def test_a_budget_turns_a_requeue_into_a_stop(used, action):
    decision = decide(situation(budgets={"preempted": 2}, used={"preempted": used}))
    assert (decision.cause, decision.action) == (Cause.PREEMPTED, action)
    assert ("budget" in decision.why) == (action is Action.STOP)


@pytest.mark.parametrize(("idle", "action"), [(IDLE_STARTS - 1, Action.REQUEUE), (IDLE_STARTS, Action.STOP)])
def test_time_limits_without_a_step_between_them_end(idle, action):
    assert decide(situation(word=Word.TIME_LIMIT, idle=idle)).action is action
    assert decide(situation(word=Word.GRACE, idle=idle)).action is Action.REQUEUE


def test_no_time_limit_is_never_near():
    assert slurm_word(situation(facts=facts(end=None))) is Word.RUNNING


def test_slurm_may_signal_a_minute_early():
    early = facts(end=NOW + timedelta(seconds=60 + 59))
    assert slurm_word(situation(facts=early)) is Word.NEAR_LIMIT
    assert slurm_word(situation(facts=facts(end=NOW + timedelta(seconds=60 + 61)))) is Word.RUNNING


def test_the_decision_carries_what_it_was_decided_on():
    evidence = decide(situation()).evidence
    assert evidence["JobState"] == "RUNNING"
    assert evidence["PreemptTime"] == NOW.isoformat()
    assert evidence["word"] == Word.GRACE


@pytest.mark.parametrize("code", [-15, -12, -2])
def test_a_run_killed_by_a_stop_signal_said_nothing(code):
    assert outcome(code) is Outcome.SILENT


@pytest.mark.parametrize("code", [1, 2, 127, -11, -6])
def test_every_other_code_is_a_crash(code):
    assert outcome(code) is Outcome.BROKEN
