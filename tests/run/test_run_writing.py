"""Checkpoints are written behind the training: exact, in order, never torn, survived when they fail, finished on a stop."""

import errno
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import miniature
import pytest
import torch
from miniature import MIDDLE, PATIENCE, StopAfter, event, files, newest, until
from same_bits import assert_same_run

from jobs import checkpoint, keeper
from jobs import files as jobs_files
from jobs.checkpoint import Checkpoints
from jobs.contract import STOP_SIGNALS, Exit
from jobs.files import read_lines
from jobs.preemption import StopFlag
from jobs.rundir import RunDir
from jobs.writer import Writer

ROUND = int(os.environ.get("BLOWS_ROUND", "1"))


class Slow:
    """In the place of `Checkpoints.save`: the checkpoint whose name ends with `which` is held back until `released`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
        self.released, self.held, self.names = threading.Event(), threading.Event(), []  # type: ignore[var-annotated]
        self.under_way = 0
        whole = Checkpoints.save

        def save(checkpoints: Checkpoints, content: Any, name: str, *arguments: Any, **named: Any) -> Path:
            assert threading.current_thread() is not threading.main_thread()
            self.names.append(name)
            self.under_way += 1
            assert self.under_way == 1, "two checkpoints at once"
            if name.endswith(which):
                self.held.set()
                assert self.released.wait(PATIENCE)
            path = whole(checkpoints, content, name, *arguments, **named)
            self.under_way -= 1
            return path

        monkeypatch.setattr(Checkpoints, "save", save)


class ReleaseAt(StopFlag):
    """Lets the held checkpoint go at the n-th ask; asks to stop at a later one, if any."""

    def __init__(self, slow: Slow, asks: int, look: Callable[[], None], stop: int = 10**9) -> None:
        super().__init__()
        self.slow, self.asks, self.look, self.last, self.asked = slow, asks, look, stop, 0

    def __call__(self) -> bool:
        self.asked += 1
        if self.asked == self.asks:
            assert self.slow.held.wait(PATIENCE)
            self.look()
            self.slow.released.set()
        if self.asked >= self.last:
            self._raise(signal.SIGTERM, None)
        return super().__call__()


STEP_2 = 4 + 6
"""Asks until step 2 is done, where the first checkpoint is due."""


def test_run_writing_goes_on_beside_the_training_and_holds_the_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held back while step 3, and so weights, generators, metrics and ledger, went on: going on from it gives the same bits."""
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm"))
    path = miniature.make_tree(tmp_path / "blown", checkpoints={"keep": 50})
    run = RunDir.of_specification(path)
    seen = {}

    def look() -> None:
        until(lambda: len(list(read_lines(run.ledger))) == 3)
        seen["marks"] = [name for name in files(run) if name.endswith(".json")]

    slow = Slow(monkeypatch, "_step2.pt")
    # The first ask of the evaluation after step 3.
    assert miniature.start(path, ReleaseAt(slow, STEP_2 + 3 + 1, look, stop=STEP_2 + 3 + 3)) is Exit.SAVED
    assert seen == {"marks": []}
    (early,) = [name for name in files(run) if name.endswith("_step2.pt")]
    content = torch.load(run.checkpoints / early, weights_only=True)
    assert (content["progress"]["step"], content["logbook"]["ledger"]["size"] > 0) == (2, True)
    assert content["logbook"]["ledger"]["size"] < run.ledger.stat().st_size
    for name in files(run):
        if name.startswith("tiny_epoch") and "_step2.pt" not in name:
            (run.checkpoints / name).unlink()
    assert miniature.start(path, StopFlag()) is Exit.DONE
    said = event(run, "resumed")
    assert (said["step"], said["checkpoint"], said["lost_steps"]) == (2, early, 1)
    assert_same_run(calm, run)


def test_run_writing_waits_for_the_one_before_and_leaves_none_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk slower than the interval: one after the other, each at its step, and the one after the epoch too."""
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm"))
    capsys.readouterr()
    path = miniature.make_tree(tmp_path / "slow", checkpoints={"every_steps": 1, "keep": 50})
    slow, given, give, outcome = Slow(monkeypatch, "_step2.pt"), [], Writer.give, Writer.outcome

    def counted(writer: Writer, work: Callable[[], None]) -> None:
        given.append(work)
        give(writer, work)

    def waiting(writer: Writer) -> None:
        if len(given) == 2 and not slow.released.is_set():
            assert slow.held.wait(PATIENCE)
            slow.released.set()
        outcome(writer)

    monkeypatch.setattr(keeper, "WORTH_TELLING", 0.0)
    monkeypatch.setattr(Writer, "give", counted)
    monkeypatch.setattr(Writer, "outcome", waiting)
    run = miniature.calm(path)
    assert [name.partition("_loss")[2].partition("_")[2] for name in slow.names] == [
        "step1.pt", "step2.pt", "", "step4.pt", "step5.pt", "", "step7.pt", "step8.pt", "",
    ]  # fmt: skip
    assert [name.split("_")[1] for name in slow.names if "step" not in name] == ["epoch1", "epoch2", "epoch3"]
    assert {name for name in files(run) if name.endswith(".pt")} == set(slow.names)
    said = capsys.readouterr().out
    assert said.count("for the checkpoint before: it was still being written when the next was due") == 1
    assert_same_run(calm, run)


def test_run_writing_is_finished_on_a_stop_and_the_last_one_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm"))
    path = miniature.make_tree(tmp_path / "blown")
    run = RunDir.of_specification(path)
    slow = Slow(monkeypatch, "_step2.pt")
    release = threading.Timer(0.2, slow.released.set)
    stop = ReleaseAt(slow, -1, lambda: None, stop=STEP_2 + 1)
    release.start()
    assert miniature.start(path, stop) is Exit.SAVED
    release.join()
    # At the first ask of step 3 the state is that of step 2: what was being written is all there is to save.
    assert [name.rpartition("_")[2] for name in slow.names] == ["step2.pt"]
    said = event(run, "saved")
    assert (said["step"], said["checkpoint"]) == (2, newest(run).name)
    stop = StopAfter(5)
    assert miniature.start(path, stop) is Exit.SAVED
    assert miniature.start(path, StopFlag()) is Exit.DONE
    assert_same_run(calm, run)


def test_run_writing_has_the_stop_signals_blocked() -> None:
    """Else the system may give one to the thread, and what the main thread waits in is not interrupted."""
    writer, seen = Writer(), set()
    writer.give(lambda: seen.update(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    writer.outcome()
    writer.close()
    assert seen >= set(STOP_SIGNALS)
    assert not set(STOP_SIGNALS) & signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_run_writing_asks_for_each_outcome() -> None:
    writer = Writer()
    writer.give(lambda: (_ for _ in ()).throw(OSError("lost")))
    with pytest.raises(RuntimeError, match="was not asked for"):
        writer.give(lambda: None)
    with pytest.raises(OSError, match="lost"):
        writer.outcome()
    writer.outcome()
    writer.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT, errno.ESTALE])
def test_run_writing_that_fails_is_told_at_the_next_boundary_and_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    """What a device, a quota or a file server may answer at fsync, when all seemed written. (A disk that is really full, and one
    that is limited, are met in test_run_room.)"""
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm"))
    path = miniature.make_tree(tmp_path / "hurt")
    run = RunDir.of_specification(path)
    whole, hurt = Checkpoints._publish, [2]

    def publish(self: Checkpoints, at: Path, content: Any) -> Any:
        if hurt and content["progress"]["step"] == hurt.pop():
            with monkeypatch.context() as context:
                context.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
                return whole(self, at, content)
        return whole(self, at, content)

    monkeypatch.setattr(Checkpoints, "_publish", publish)
    assert miniature.start(path, StopFlag()) is Exit.DONE
    said = event(run, "unsaved")
    assert (said["step"], said["checkpoint"]) == (2, None)
    assert os.strerror(number) in said["reason"]
    out = capsys.readouterr().out
    assert "WARNING: no checkpoint at step 2: " in out
    assert out.index("no checkpoint at step 2") < out.rindex("after epoch 2/3"), "at the latest when the next is due"
    assert "Training goes on; no checkpoint stands" in out
    assert not [name for name in files(run) if name.endswith(".tmp")]
    assert_same_run(calm, run)


def test_run_writing_that_cannot_pass_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that nobody may write to will not be better at the next checkpoint: weeks of training would hang on it."""
    path = miniature.make_tree(tmp_path)

    def publish(self: Checkpoints, *arguments: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Checkpoints, "_publish", publish)
    with pytest.raises(PermissionError):
        miniature.start(path, StopFlag())
    assert event(RunDir.of_specification(path), "unsaved")["reason"].endswith("Permission denied")


class Killed:
    """In a child: counts what the writing thread does to files, and dies by SIGKILL right before the n-th."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0
        write = checkpoint._HashingFile.write

        def counted(file: Any, data: Any) -> int:
            self.strike()
            half = len(data) // 2  # a write may be cut anywhere
            write(file, data[:half])
            self.strike()
            write(file, data[half:])
            return len(data)

        checkpoint._HashingFile.write = counted  # type: ignore[method-assign]
        sync = jobs_files.sync_folder
        checkpoint.sync_folder = jobs_files.sync_folder = lambda folder: (self.strike(), sync(folder))[1]  # type: ignore[func-returns-value, attr-defined]
        sys.addaudithook(self.audit)

    def audit(self, name: str, _: Any) -> None:
        if name in {"os.rename", "os.remove", "os.link", "os.symlink", "open"}:
            self.strike()

    def strike(self) -> None:
        if threading.current_thread().name.startswith("checkpoint"):
            self.count += 1
            if self.count == self.at:
                os.kill(os.getpid(), signal.SIGKILL)


def in_a_child(work: Callable[[], int]) -> int:
    """The wait status of a child that does `work` and exits with what it returns."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # later Pythons warn of threads, of which none is alive here
        child = os.fork()
    if not child:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def test_run_writing_killed_at_any_moment_leaves_nothing_that_is_trusted(tmp_path: Path) -> None:
    """Between any two things that the writer does to a file, and in the middle of its writes."""
    changes = {"checkpoints": {"every_steps": 1, "keep": 1}}
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm", **changes))
    counter = tmp_path / "count"

    def count() -> int:
        killed = Killed(-1)
        code = miniature.start(miniature.make_tree(tmp_path / "counted", **changes), StopFlag())
        counter.write_text(str(killed.count))
        return code

    assert in_a_child(count) == 0
    total = int(counter.read_text())
    draw = random.Random(ROUND)
    assert total > 300
    # One checkpoint is some hundred moments: the third, by when there are old ones to drop, is met throughout.
    one = total // 9
    moments = sorted({*draw.sample(range(2 * one, 3 * one), 12), *draw.sample(range(1, total * 9 // 10), 8)})
    for moment in moments:
        path = miniature.make_tree(tmp_path / str(moment), **changes)

        def die(path: Path = path, moment: int = moment) -> int:
            Killed(moment)
            return miniature.start(path, StopFlag())

        assert in_a_child(die) == signal.SIGKILL, moment
        assert miniature.start(path, StopFlag()) is Exit.DONE
        run = RunDir.of_specification(path)
        assert event(run, "resumed")["skipped"] == [], "what was never published is not even looked at"
        assert not [name for name in files(run) if name.endswith(".tmp")]
        assert_same_run(calm, run)


def test_run_writing_drops_the_old_only_when_the_new_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each moment at which a file is taken away, `latest` is there, whole, and newer."""
    path = miniature.make_tree(tmp_path, checkpoints={"every_steps": 1, "keep": 1})
    run = RunDir.of_specification(path)
    unlink, dropped = Path.unlink, []

    def watched(self: Path, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - its signature
        if self.parent == run.checkpoints and self.suffix == ".pt" and self.exists():
            latest = newest(run)
            manifest = checkpoint.Manifest.read(latest.with_name(f"{latest.name}.json"))
            assert latest.stat().st_size == manifest.bytes
            assert manifest.position > checkpoint.Manifest.read(MANIFESTS[self.name]).position
            dropped.append(self.name)
        elif self.parent == run.checkpoints and self.name.endswith(".pt.json") and self.exists():
            MANIFESTS[self.name.removesuffix(".json")] = kept = tmp_path / self.name
            kept.write_bytes(self.read_bytes())
        unlink(self, missing_ok=missing_ok)

    MANIFESTS: dict[str, Path] = {}  # noqa: N806
    monkeypatch.setattr(Path, "unlink", watched)
    assert miniature.start(path, StopFlag()) is Exit.DONE
    assert len(dropped) > 4


def test_run_writing_resumed_in_between_after_a_kill_has_lost_at_most_the_interval(tmp_path: Path) -> None:
    """And what was done while one checkpoint was being written: here it stood before the blow."""
    path = miniature.make_tree(tmp_path, checkpoints={"every_steps": 2})
    run = RunDir.of_specification(path)

    class Killer(StopAfter):
        def __call__(self) -> bool:
            if super().__call__():
                until(lambda: any(name.endswith("_step4.pt.json") for name in files(run)))
                os.kill(os.getpid(), signal.SIGKILL)
            return False

    assert in_a_child(lambda: miniature.start(path, Killer(MIDDLE))) == signal.SIGKILL
    assert miniature.start(path, StopFlag()) is Exit.DONE
    assert event(run, "resumed")["lost_steps"] == 0
