"""The verdict bites: other bits, a missing or doubled step, a step lost in spite of a notice, what came back from the dead."""

import json
from pathlib import Path

import miniature
import pytest

from jobs.rundir import RunDir
from launcher.attempts import AttemptRecord
from launcher.chaos.beater import Dealt
from launcher.chaos.report import Report
from launcher.chaos.schedule import SLURM, Blow, Course, Moment
from launcher.chaos.verdict import RunVerdict, gaps, judge, losses, unsaved
from launcher.history import Goodput

COURSE = Course(steps=9, per_epoch=3, interval=2)
KINDS = {kind.name: kind for kind in SLURM}


def dealt(kind: str, attempt: int | None = 1, *, landed: bool = True, breach: bool = False) -> Dealt:
    blow = Blow(1, 0, KINDS[kind], Moment.STEP, 3, 0.0)
    return Dealt(blow, attempt, 3, Moment.STEP, landed, 1.0, "it came back" if breach else "", breach)


def verdict(**changes: object) -> RunVerdict:
    good = {
        "seed": 0, "identical": True, "compared": "identical", "gaps": (), "losses": (), "goodput": Goodput(9, 10),
        "attempts": 2, "causes": {},
    }  # fmt: skip
    return RunVerdict(**{**good, **changes})  # type: ignore[arg-type]


def report(*verdicts: RunVerdict, blows: list[Dealt]) -> Report:
    facts = {"config": "x.yaml", "place": "here"}
    return Report(facts, 1, COURSE, {"preempt": "no partition"}, blows, verdicts, 60.0)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return miniature.calm(miniature.make_tree(tmp_path_factory.mktemp("calm")))


def test_chaos_a_run_that_was_stopped_and_went_on_is_good(tmp_path: Path, calm: RunDir) -> None:
    path, run = miniature.stopped(tmp_path)
    miniature.until_done(path, miniature.StopFlag)
    found = judge(calm, run, [dealt("requeue")], COURSE)
    assert (found.good, found.compared, found.attempts) == (True, "identical", 2)
    assert found.goodput.ratio == 1


def test_chaos_other_bits_are_named_with_their_step_and_piece(tmp_path: Path, calm: RunDir) -> None:
    """The breach: what was beaten went on to other weights."""
    other = miniature.calm(miniature.make_tree(tmp_path, checkpoints={"every_steps": 2, "keep": 4}))
    lines = other.ledger.read_text().splitlines(keepends=True)
    changed = json.loads(lines[4])
    changed["weights"] = "2:0000000000000000"
    other.ledger.write_text("".join([*lines[:4], json.dumps(changed) + "\n", *lines[5:]]))
    found = judge(calm, other, [dealt("requeue")], COURSE)
    assert not found.good
    assert "step" in found.compared or "line" in found.compared
    assert str(6) in found.compared or str(5) in found.compared


def test_chaos_what_is_not_finished_is_not_good(tmp_path: Path, calm: RunDir) -> None:
    _, run = miniature.stopped(tmp_path)
    found = judge(calm, run, [], COURSE, "launched 3 times")
    assert (found.good, found.compared) == (False, "not finished: launched 3 times")


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([1, 2, 3], []),
        ([1, 3], ["the ledger: 2 is missing"]),
        ([1, 2, 2, 3], ["the ledger: 2 is doubled"]),
        ([2, 3], ["the ledger: 1 is missing"]),
    ],
)
def test_chaos_missing_and_doubled_steps_are_seen(tmp_path: Path, steps: list[int], said: list[str]) -> None:
    run = RunDir(tmp_path, 0)
    run.metrics.mkdir(parents=True)
    run.ledger.write_text("".join(json.dumps({"step": step}) + "\n" for step in steps))
    assert gaps(run) == said
    run.metrics_file.write_text("".join(json.dumps({"kind": "evaluation", "epoch": epoch}) + "\n" for epoch in (0, 2)))
    assert gaps(run)[-1] == "the evaluations: 1 is missing"


def test_chaos_what_a_blow_may_cost(tmp_path: Path) -> None:
    """Nothing with notice, two intervals without; an end that no blow was aimed at by its cause."""

    def history(cause: str, lost: int) -> list[AttemptRecord]:
        return [
            AttemptRecord(1, first_step=0, step=5, cause=cause),
            AttemptRecord(2, first_step=5 - lost, step=9, lost_steps=lost),
        ]

    for kind, lost, good in [("preempt", 0, True), ("preempt", 1, False), ("kill", 4, True), ("kill", 5, False)]:
        (loss,) = losses(history("crashed", lost), [dealt(kind)], COURSE, {})
        assert (loss.kind, loss.steps, verdict(losses=(loss,)).good) == (kind, lost, good)
    (loss,) = losses(history("time limit", 1), [], COURSE, {})
    assert (loss.kind, loss.allowed) == ("no blow: time limit", 0)
    # A blow without effect excuses nothing, and accuses nothing: what ended the attempt was something else
    for kind, cause, allowed in [("kill", "preempted", 0), ("signals", "node failure", 4)]:
        (loss,) = losses(history(cause, 1), [dealt(kind, landed=False)], COURSE, {})
        assert (loss.kind, loss.allowed) == (f"no blow: {cause}", allowed)
    # A full disk lets the run go on: what ended it was another blow
    (loss,) = losses(history("crashed", 1), [dealt("disk-full")], COURSE, {})
    assert loss.kind == "no blow: crashed"
    # What it left without room is no fault of the kill that came later, in the same attempt
    (loss,) = losses(history("crashed", 5), [dealt("kill")], COURSE, {1: 1})
    assert (loss.allowed, verdict(losses=(loss,)).good) == (6, True)
    (loss,) = losses(history("crashed", 5), [dealt("kill")], COURSE, {2: 1})
    assert (loss.allowed, verdict(losses=(loss,)).good) == (4, False)
    (loss,) = losses(history("preempted", 1), [dealt("preempt")], COURSE, {1: 1})
    assert loss.allowed == 0


def test_chaos_checkpoints_without_room_are_counted_by_attempt(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "x", 0)
    run.logs.mkdir(parents=True)
    lines = [{"event": "unsaved", "attempt": attempt} for attempt in (1, 3, 3)] + [{"event": "saved", "attempt": 3}]
    run.events.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"event": "unsaved", "att')
    assert unsaved(run) == {1: 1, 3: 2}


def test_chaos_a_blow_that_was_never_dealt_is_not_counted_as_dealt() -> None:
    blows = [dealt("kill"), dealt("kill", landed=False), dealt("kill", None, landed=False)]
    found = report(verdict(), blows=blows)
    (row,) = found.rows()
    assert row[:4] == ("kill", "3", "2", "1")
    assert "1 of 3 drawn blows landed" in found.verdict()


def test_chaos_the_report_is_good_only_if_all_is() -> None:
    assert report(verdict(), blows=[dealt("kill")]).good
    assert report(verdict(), blows=[dealt("kill")]).verdict().startswith("HELD: 1 of 1 runs identical")
    nothing = report(verdict(), blows=[dealt("kill", None, landed=False)])
    assert (nothing.good, nothing.verdict().partition(":")[0]) == (False, "NOTHING WAS TRIED")
    for bad, said in [
        (report(verdict(identical=False, compared="step 5: weights"), blows=[dealt("kill")]), "step 5: weights"),
        (report(verdict(gaps=("the ledger: 3 is doubled",)), blows=[dealt("kill")]), "3 is doubled"),
        (report(verdict(), blows=[dealt("scancel", breach=True)]), "blow 1: it came back"),
    ]:
        assert not bad.good
        assert bad.verdict().startswith("FAILED")
        assert said in "".join(bad.problems())
        assert said in bad.as_markdown()
        json.dumps(bad.as_json())
