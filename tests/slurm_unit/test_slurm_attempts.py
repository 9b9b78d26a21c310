"""The fold of events."""

from jobs.contract import Event
from jobs.files import append_line
from jobs.rundir import RunDir
from launcher.attempts import AttemptRecord, attempts, fold
from launcher.history import Goodput, gains, goodput, idle, minutes

FIRST = [
    {"event": Event.STARTED, "attempt": 1, "time": "t1", "node": "n1", "job": "7_0", "restart": 0},
    {"event": Event.RESUMED, "attempt": 1, "time": "t2", "step": 0, "checkpoint": None, "skipped": [], "lost_steps": 0},
    {"event": Event.SIGNALLED, "attempt": 1, "time": "t3", "signal": "SIGTERM"},
    {"event": Event.SIGNALLED, "attempt": 1, "time": "t4", "signal": "SIGUSR2"},
    {"event": Event.SAVED, "attempt": 1, "time": "t5", "step": 9, "checkpoint": "c", "seconds": 0.2},
    {"event": Event.ENDED, "attempt": 1, "time": "t6", "exit_code": 75, "step": 9},
    {
        "event": Event.DECIDED,
        "attempt": 1,
        "time": "t7",
        "cause": "preempted",
        "action": "requeue",
        "evidence": {"a": 1},
    },
]


def test_one_attempt():
    (record,) = fold(FIRST)
    assert (record.number, record.node, record.job, record.restart) == (1, "n1", "7_0", 0)
    assert (record.signal, record.signalled, record.exit_code, record.step) == ("SIGTERM", "t3", 75, 9)
    assert (record.cause, record.action, record.evidence, record.executed) == ("preempted", "requeue", {"a": 1}, 9)


def test_the_last_decision_counts():
    last = {"event": Event.DECIDED, "attempt": 1, "time": "t8", "cause": "preempted", "action": "stop"}
    (record,) = fold([*FIRST, last])
    assert (record.action, record.decided) == ("stop", "t8")


def test_attempts_come_in_order_and_executed_steps_count_from_where_it_went_on():
    second = [
        {"event": Event.STARTED, "attempt": 2, "time": "t9", "node": "n2", "job": "7_0", "restart": 1},
        {
            "event": Event.RESUMED,
            "attempt": 2,
            "step": 9,
            "checkpoint": "c",
            "skipped": [{"file": "d"}],
            "lost_steps": 3,
        },
        {"event": Event.ENDED, "attempt": 2, "time": "ta", "exit_code": -9, "step": 12},
    ]
    first, record = fold([*second, *FIRST])
    assert first.number == 1
    assert (record.executed, record.lost_steps, record.skipped[0]["file"], record.cause) == (3, 3, "d", None)


def test_what_is_not_an_event_is_passed_over(tmp_path):
    run = RunDir(tmp_path / "x", 0)
    run.logs.mkdir(parents=True)
    for line in ({"attempt": "one"}, {"event": "of a later version", "attempt": 1}, {"event": Event.STARTED}, *FIRST):
        append_line(run.events, line)
    with run.events.open("ab") as file:
        file.write(b'{"event": "started", "att')
    (record,) = attempts(run)
    assert record.exit_code == 75


def test_a_run_without_events_has_no_attempts(tmp_path):
    assert attempts(RunDir(tmp_path / "x", 0)) == []


def record(number, first, step=None, lost=0, cause="preempted"):
    return AttemptRecord(number, first_step=first, step=step, lost_steps=lost, cause=cause)


def test_goodput_counts_what_was_done_twice():
    saved = [record(1, 0, 10), record(2, 10, 30)]
    assert goodput(saved, 30, 30) == Goodput(30, 30)
    killed = [record(1, 0, None), record(2, 5, 25, lost=7)]  # nobody wrote that the first one had reached step 12
    assert goodput(killed, 25, 25) == Goodput(25, 32)
    assert goodput(killed, 25, 25).ratio == 25 / 32


def test_goodput_of_what_no_checkpoint_holds_is_nothing():
    assert goodput([record(1, 0, 40)], 40, 0) == Goodput(0, 40)
    assert goodput([record(1, 0, 40), record(2, None)], 40, 30) == Goodput(30, 40)
    assert goodput([], None, 0).ratio is None
    assert goodput([record(1, 0), record(2, 0)], None, 0).ratio is None


def test_minutes_of_an_attempt_that_never_said_its_end_run_until_now():
    first = AttemptRecord(1, started="2026-01-31T12:00:00.000Z", ended="2026-01-31T12:30:00.000Z")
    second = AttemptRecord(2, started="2026-01-31T13:00:00.000Z")
    torn = AttemptRecord(3, started="yesterday")
    assert minutes([first, second, torn], "2026-01-31T13:15:00.000Z") == 45


def test_gains_are_what_the_next_start_found():
    assert gains([record(1, 0, 50), record(2, 20, 60), record(3, None), record(4, 20, 70)], 45) == [20, 0, 0, 25]
    assert gains([record(1, 30), record(2, 10)], 10) == [0, 0]  # a damaged checkpoint was passed over


def test_idle_starts_are_counted_since_the_last_step_that_lasts():
    limits = [record(1, 0, cause="time limit"), record(2, 8, cause="preempted"), record(3, 8, cause="time limit")]
    now = record(4, 8, cause=None)
    assert idle([*limits, now], now, 8) == 2
    assert idle([*limits, now], now, 9) == 0
    assert idle(limits, None, 9) == 0
