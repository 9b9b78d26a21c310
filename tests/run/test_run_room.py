"""No room, or no right to write any more: full disks, limits and newer attempts, met by checkpoints and by lines."""

import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import miniature
import pytest
from miniature import MIDDLE, StopAfter, event, files, until
from same_bits import assert_same_run

from jobs.checkpoint import Checkpoints
from jobs.contract import Exit
from jobs.errors import Failed, Fenced
from jobs.files import read_lines
from jobs.linefile import LineFile, Mark
from jobs.preemption import StopFlag
from jobs.rundir import RunDir
from jobs.writer import Writer

WRITERS: list[Writer] = []


@pytest.fixture(autouse=True)
def writers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Those of the test's runs, to be asked whether they are at work."""
    begin = Writer.__init__

    def known(self: Writer) -> None:
        begin(self)
        WRITERS.append(self)

    monkeypatch.setattr(Writer, "__init__", known)
    yield
    WRITERS.clear()


class OvertakenAfter(StopFlag):
    """A newer attempt is taken at the n-th ask, between two checkpoints; this one is never asked to stop."""

    def __init__(self, run: RunDir, asks: int, between: threading.Lock) -> None:
        super().__init__()
        self.run, self.left, self.seen, self.between = run, asks, {}, between  # type: ignore[var-annotated]

    def __call__(self) -> bool:
        self.left -= 1
        if self.left == 0:
            with self.between:
                self.run.take_attempt()
                self.seen = tree_of(self.run)
        return False


def tree_of(run: RunDir) -> dict[str, tuple[int, int]]:
    return {
        str(file): (file.lstat().st_mtime_ns, file.lstat().st_size) for file in run.root.rglob("*") if not file.is_dir()
    }


@pytest.mark.parametrize("asks", [1, 4, 6, 15, 40])
def test_run_fenced_writes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: int) -> None:
    path = miniature.make_tree(tmp_path)
    run = RunDir.of_specification(path)
    save, between = Checkpoints.save, threading.Lock()

    def alone(*arguments: Any, **named: Any) -> Path:
        with between:
            return save(*arguments, **named)

    monkeypatch.setattr(Checkpoints, "save", alone)
    stop = OvertakenAfter(run, asks, between)
    with pytest.raises(Fenced, match="overtaken by attempt 2"):
        miniature.start(path, stop)
    assert tree_of(run) == stop.seen


def test_run_fenced_between_file_and_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last moment before a checkpoint would count."""
    path = miniature.make_tree(tmp_path)
    run = RunDir.of_specification(path)
    publish = Checkpoints._publish

    def overtaken(self: Checkpoints, *arguments: Any) -> Any:
        published = publish(self, *arguments)
        run.take_attempt()
        return published

    monkeypatch.setattr(Checkpoints, "_publish", overtaken)
    with pytest.raises(Fenced):
        miniature.start(path, StopFlag())
    assert not list(run.checkpoints.glob("*.json"))


def test_run_fenced_while_it_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is left, and nothing else changes: no line, no link, no old checkpoint dropped."""
    path = miniature.make_tree(tmp_path, checkpoints={"keep": 1, "every_steps": 1})
    run, seen, load = RunDir.of_specification(path), {}, Checkpoints._publish
    fsync = os.fsync

    def overtaken(self: Checkpoints, at: Path, content: Any) -> Any:
        if content["progress"]["step"] == 4:

            def newer(handle: int) -> None:
                fsync(handle)
                if not seen:
                    run.take_attempt()
                    seen.update({name: sizes for name, sizes in tree_of(run).items() if not name.endswith(".tmp")})

            monkeypatch.setattr(os, "fsync", newer)
        return load(self, at, content)

    monkeypatch.setattr(Checkpoints, "_publish", overtaken)
    with pytest.raises(Fenced):
        miniature.start(path, StopFlag())
    left = tree_of(run)
    assert {name for name in left if "/checkpoints/" in name} == {name for name in seen if "/checkpoints/" in name}
    assert {name: left[name] for name in seen if "/checkpoints/" in name} == {
        name: seen[name] for name in seen if "/checkpoints/" in name
    }


def test_run_fenced_writer_with_an_open_file_writes_to_nowhere(tmp_path: Path) -> None:
    """A write that passed the fence just before it fell still reaches no file of the newer attempt."""
    path = tmp_path / "metrics.jsonl"
    old = LineFile(path, Mark(), lambda: None)
    old.append({"step": 1})
    new = LineFile(path, old.mark(), lambda: None)
    old.append({"step": 2, "of": "the old one"})
    new.append({"step": 2})
    assert [line for line in read_lines(path)] == [{"step": 1}, {"step": 2}]  # noqa: C416


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file grows beyond this: a disk quota that needs no root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(size: str, folder: Path) -> Iterator[Path]:
    """A real file system of its own that can really be full."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root: a small file system is mounted, to be filled")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


class FullFrom(StopAfter):
    """Fills the disk at one ask, when no checkpoint is being written, and makes room again at another."""

    def __init__(self, folder: Path, full: int, free: int, asks: int = 10**9) -> None:
        super().__init__(asks)
        self.folder, self.full, self.free, self.asked = folder, full, free, 0

    def __call__(self) -> bool:
        self.asked += 1
        if self.asked == self.full:
            until(lambda: not any(writer.busy for writer in WRITERS))
            with pytest.raises(OSError), (self.folder / "filler").open("wb", buffering=0) as file:  # noqa: PT012
                while True:
                    file.write(b"x" * 4096)
        if self.asked == self.free:
            (self.folder / "filler").unlink()
        return super().__call__()


def test_run_full_disk_costs_a_checkpoint_not_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm"))
    with small_disk("2m", tmp_path / "disk") as disk:
        path = miniature.make_tree(disk / "tree")
        run = RunDir.of_specification(path)
        # Full from the second step to the fifth: a checkpoint in between and one after an epoch do not fit.
        assert miniature.start(path, FullFrom(disk, full=4 + 4, free=4 + 9 + 4 + 5)) is Exit.DONE
        out = capsys.readouterr().out
        assert "no checkpoint at step 2" in out
        assert "Training goes on" in out
        assert_same_run(calm, run)
        assert not [name for name in files(run) if name.endswith(".tmp")]


def test_run_full_disk_at_the_stop_falls_back_out_loud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A preempted run goes on from the last checkpoint that stands, as one that was killed would; it says what it costs."""
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm"))
    with small_disk("2m", tmp_path / "disk") as disk:
        path = miniature.make_tree(disk / "tree")
        run = RunDir.of_specification(path)
        assert miniature.start(path, FullFrom(disk, full=MIDDLE, free=10**9, asks=MIDDLE + 1)) is Exit.SAVED
        told = "no checkpoint at step 4.2: [Errno 28] No space left on device. Stopping, asked to stop by SIGTERM; "
        assert told in (out := capsys.readouterr().out)
        assert "step4.pt (step 4) stands" in out
        (disk / "filler").unlink()
        assert miniature.start(path, StopFlag()) is Exit.DONE
        assert event(run, "resumed")["step"] == 4
        assert_same_run(calm, run)


def test_run_full_disk_at_the_stop_without_any_checkpoint_is_a_failure(tmp_path: Path) -> None:
    """There is nothing to fall back to: it must not look like a stop after which the run goes on."""
    with small_disk("2m", tmp_path / "disk") as disk:
        path = miniature.make_tree(disk / "tree")
        with pytest.raises(Failed, match=r"asked to stop by SIGTERM.*No space left.*no checkpoint stands"):
            miniature.start(path, FullFrom(disk, full=4 + 2, free=10**9, asks=4 + 4))


def test_run_file_size_limit_is_survived(tmp_path: Path) -> None:
    """The same through a limit of the process, for which no root is needed."""
    path = miniature.make_tree(tmp_path, checkpoints={"every_steps": 2, "keep": 1})
    run = RunDir.of_specification(path)
    with file_size_limit(9000), pytest.raises(Failed, match="finished, but the state cannot be saved"):
        miniature.start(path, StopFlag())
    said = event(run, "unsaved")
    assert "File too large" in said["reason"]
    assert not run.done.exists()
    assert not list(run.checkpoints.iterdir())
    assert miniature.start(path, StopFlag()) is Exit.DONE


def test_run_full_disk_keeps_lines_waiting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In order, whole, said once; and a checkpoint, which counts on them, is not made meanwhile."""
    path = tmp_path / "metrics.jsonl"
    file = LineFile(path, Mark(), lambda: None)
    with file_size_limit(50):
        for step in range(10):
            file.append({"step": step})
        with pytest.raises(OSError, match="File too large"):
            file.flush()
    assert path.stat().st_size == 50
    assert capsys.readouterr().err.count("lines wait in memory") == 1
    file.append({"step": 10})
    assert [line["step"] for line in read_lines(path)] == list(range(11))
    assert file.mark().missing(path) is None
