"""The fold of events."""

from jobs.contract import Event
from jobs.files import append_line
from jobs.rundir import RunDir
from launcher.attempts import attempts, fold

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
