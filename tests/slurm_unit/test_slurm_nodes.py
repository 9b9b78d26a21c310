"""What the nodes of a job tell each other, and the one end that comes of it."""

import json
from pathlib import Path

import pytest

from jobs.contract import Exit, worst
from launcher import nodes
from launcher.attempts import AttemptRecord, fold
from launcher.history import blamed, failures
from launcher.nodes import Here, Meeting, Watch, Word, here

JOB = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURM_RESTART_COUNT": "1"}


@pytest.fixture
def both(tmp_path: Path) -> tuple[Meeting, Meeting]:
    return tuple(Meeting(tmp_path, Here(2, number, f"n{number + 1}"), JOB) for number in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("codes", "one"),
    [
        ([0, 0], 0),
        ([75, 0], 75),
        ([75, 80], 80),
        ([80, 76], 76),
        ([75, 79], 79),
        ([78, 79, 80], 79),
        ([75, 78], 78),
        ([1, 79], 1),
        ([80, 1], 1),
        ([137, 80], 137),
        ([75, -9], -9),
        ([1, -9], -9),
    ],
)
def test_the_cause_of_the_others_counts(codes: list[int], one: int) -> None:
    assert worst(codes) == one
    assert worst(codes[::-1]) == one


def test_who_this_node_is() -> None:
    inside = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURMD_NODENAME": "n2"}
    assert here(inside) == Here(2, 1, "n2")
    assert here({**inside, "SLURM_NNODES": "1", "SLURM_NODEID": "0"}).first
    assert here({"SLURM_NNODES": "2"}).count == 1  # left over in a shell


def test_the_first_one_says_what_all_do(both: tuple[Meeting, Meeting]) -> None:
    first, second = both
    first.say(Word(3))
    assert second.wait(lambda: False) == Word(3, Exit.DONE)
    first.say(Word(None, Exit.SAVED))
    assert second.wait(lambda: False) == Word(None, Exit.SAVED)


def test_a_stop_while_it_waits(both: tuple[Meeting, Meeting]) -> None:
    assert both[1].wait(lambda: True) == Word(None, Exit.SAVED)


def test_a_first_node_that_failed_or_is_silent(both: tuple[Meeting, Meeting], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = both
    monkeypatch.setattr(nodes, "BEGIN_SECONDS", 0.2)
    assert second.wait(lambda: False) == Word(None, Exit.PEER)
    monkeypatch.undo()
    first.end(Exit.UNFIT)
    assert second.wait(lambda: False) == Word(None, Exit.PEER)


def test_each_start_of_a_job_has_its_own(tmp_path: Path, both: tuple[Meeting, Meeting]) -> None:
    both[0].say(Word(3))
    later = Meeting(tmp_path, Here(2, 1, "n2"), {**JOB, "SLURM_RESTART_COUNT": "2"})
    assert later.wait(lambda: True) == Word(None, Exit.SAVED)


def test_ends_are_one(both: tuple[Meeting, Meeting], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = both
    monkeypatch.setattr(nodes, "ENDS_SECONDS", 0.2)
    first.end(Exit.SAVED)
    assert first.ends() == (Exit.PEER, {"n1": 75})  # the second one never said
    second.end(Exit.UNFIT)
    assert first.ends() == (Exit.UNFIT, {"n1": 75, "n2": 79})
    assert first.failed()
    assert not second.failed()


def test_an_end_that_cannot_be_written_is_no_other_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meeting = Meeting(tmp_path, Here(2, 1, "n2"), JOB)
    meeting.folder.rmdir()
    meeting.end(Exit.SAVED)
    assert "the end on n2 is not told" in capsys.readouterr().err


def test_what_failed_elsewhere_is_asked_and_then_ended(
    both: tuple[Meeting, Meeting], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = both
    sent: list[int] = []
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(nodes.time, "monotonic", lambda: float(next(clock)))
    watch = Watch(first, sent.append)
    watch.look()
    second.end(Exit.SAVED)
    watch.look()
    assert sent == []
    second.end(-9)
    for _ in range(nodes.LAST_SECONDS.__int__()):
        watch.look()
    assert sent[:2] == [15, 9]
    assert watch.ended


def test_the_node_that_refused_is_blamed_whichever_it_is() -> None:
    lines = [
        {"event": "started", "attempt": 1, "node": "n1", "nodes": "n[1-2]", "job": "7_2"},
        {"event": "ended", "attempt": 1, "exit_code": 79, "nodes": {"n1": 75, "n2": 79}},
        {"event": "decided", "attempt": 1, "cause": "unfit node", "action": "requeue"},
    ]
    (record,) = fold(json.loads(json.dumps(lines)))
    assert (record.where, blamed(record), failures([record])) == ("n[1-2]", ["n2"], {"n2": 2})
    assert blamed(AttemptRecord(1, node="n1", cause="unfit node")) == ["n1"]
    record.cause = "not started"
    assert blamed(record) == ["n1"]
    record.cause = "node failure"
    assert blamed(record) == []
