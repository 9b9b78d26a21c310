"""Two live attempts of one run: the older one is frozen, overtaken, and woken. It writes nothing more, and no bit changes."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import miniature
import pytest
from same_bits import assert_same_run

from jobs.contract import STOP_SIGNALS, Exit
from jobs.files import read_lines
from jobs.rundir import RunDir

SAVES_OFTEN = {"checkpoints": {"every_steps": 1}, "training": {"epochs": 4}}
ROUND = int(os.environ.get("BLOWS_ROUND", "1"))


def launch(path: Path, log: Path, pause: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, miniature.__file__, str(path)],
            env={**os.environ, "PYTHONPATH": str(Path(miniature.__file__).parents[2]), "MINIATURE_PAUSE": pause},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS),  # noqa: PLW1509 - as the task does it
        )


def contents(run: RunDir) -> dict[str, str]:
    """Every file of the run with its hash. The first attempt's own log may grow: it says there why it ends."""
    files = [path for folder in run.folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {
        str(path.relative_to(run.root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path != run.attempt_log(1)
    }


@pytest.mark.timeout(180)
@pytest.mark.parametrize("moment", range(2))
def test_run_fence_holds_against_an_attempt_that_was_frozen(tmp_path: Path, moment: int) -> None:
    calm_path = miniature.make_tree(tmp_path / "calm", **SAVES_OFTEN)
    calm = launch(calm_path, tmp_path / "calm.log", "0")
    assert calm.wait(timeout=90) == Exit.DONE, (tmp_path / "calm.log").read_text()
    path = miniature.make_tree(tmp_path / "frozen", **SAVES_OFTEN)
    run = RunDir.of_specification(path)

    first = launch(path, tmp_path / "first.log", "0.01")
    try:
        end = time.monotonic() + 60
        while not (run.ledger.exists() and run.ledger.stat().st_size):
            assert first.poll() is None, (tmp_path / "first.log").read_text()
            assert time.monotonic() < end, "the first attempt never trained"
            time.sleep(0.001)
        # anywhere: between two lines of a file, in a save, in an evaluation
        time.sleep(random.Random(100 * ROUND + moment).uniform(0, 0.4))
        os.killpg(first.pid, signal.SIGSTOP)
        assert not run.done.exists(), "frozen too late: the first attempt was done"

        second = launch(path, tmp_path / "second.log", "0")
        assert second.wait(timeout=90) == Exit.DONE, (tmp_path / "second.log").read_text()
        assert_same_run(RunDir.of_specification(calm_path), run)
        before = contents(run)
        os.killpg(first.pid, signal.SIGCONT)
        assert first.wait(timeout=60) == Exit.FENCED, (tmp_path / "first.log").read_text()
    finally:
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
    assert contents(run) == before
    assert_same_run(RunDir.of_specification(calm_path), run)
    numbers = [line["attempt"] for line in read_lines(run.events) if line["event"] == "resumed"]
    assert numbers == [1, 2]


def test_run_fence_without_it_the_old_attempt_would_write(tmp_path: Path) -> None:
    """The planted breach: an attempt that does not look at the fence writes after it was overtaken."""
    from jobs.errors import Fenced
    from jobs.fence import Fence

    run = RunDir(tmp_path / miniature.NAME, miniature.SEED)
    first = run.take_attempt()
    Fence(run, first)()
    second = run.take_attempt()
    with pytest.raises(Fenced, match="attempt 1 was overtaken by attempt 2"):
        Fence(run, first)()
    Fence(run, second)()
