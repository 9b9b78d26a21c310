"""Trackers: what they hold is what metrics.jsonl says, attempts do not overlap, no secret gets in, and none can end a run."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from content_samples import generators, specification, tree
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jobs.files import append_line, now
from jobs.trackers import Trackers, numbers, open_trackers

SECRET = "0123456789abcdef0123456789abcdef01234567"  # noqa: S105 - planted
WANDB = {"tensorboard": False, "wandb": {"project": "samples", "mode": "offline"}}
ONLY_TENSORBOARD = {"tensorboard": True, "wandb": None}


@pytest.fixture
def run(tmp_path):
    return tree(tmp_path)


def train(step: int) -> dict:
    return {"kind": "train", "step": step, "epoch": 1, "loss": 1 / step, "lr": 0.1, "seconds": 0.5, "time": now()}


def evaluation(step: int) -> dict:
    line = {"kind": "evaluation", "step": step, "epoch": step // 4, "train_loss": None, "val_loss": 2.0, "time": now()}
    return {**line, "accuracy": 0.5, "gpu_utilization": None, "gpu_reason": "runs on the cpu"}


class Logged:
    """An attempt that writes metrics.jsonl as the run does: the file first, then the trackers."""

    def __init__(self, run, tracking: dict, step: int) -> None:
        made = specification(tracking=tracking)
        self.run, self.trackers = run, open_trackers(made.recipe.tracking, run, made, step)

    def __call__(self, *lines: dict) -> "Logged":
        for line in lines:
            append_line(self.run.metrics_file, line)
            self.trackers.log(line)
        return self


def read_back(run) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run.metrics / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def cut_back(run, lines: int) -> None:
    """As the run does before it opens the trackers: to what its checkpoint counts on."""
    kept = run.metrics_file.read_text().splitlines(keepends=True)[:lines]
    run.metrics_file.write_text("".join(kept))


def truth(run, kind: str, key: str) -> list[tuple[int, float]]:
    found = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    return [(line["step"], pytest.approx(line[key])) for line in found if line["kind"] == kind]


def agrees(run) -> bool:
    shown = read_back(run)
    return shown["train/loss"] == truth(run, "train", "loss") and shown["evaluation/val_loss"] == truth(
        run, "evaluation", "val_loss"
    )


def test_only_figures_are_shown_under_one_name_each():
    assert set(numbers(evaluation(4))) == {"evaluation/epoch", "evaluation/val_loss", "evaluation/accuracy"}
    assert set(numbers(train(1))) == {"train/epoch", "train/loss", "train/lr", "train/seconds"}


def test_tensorboard_reads_back_what_was_logged(run):
    Logged(run, ONLY_TENSORBOARD, 0)(evaluation(0), train(1), train(2)).trackers.close(0)
    assert agrees(run)
    assert "evaluation/gpu_utilization" not in read_back(run)  # never 0 where it is not known


def test_a_killed_run_has_lost_nothing_of_it(run):
    """Nothing is closed here, nor waited for: it is read while the writer still has it open."""
    logged = Logged(run, ONLY_TENSORBOARD, 0)(evaluation(0), train(1), train(2))
    assert agrees(run)
    logged.trackers.close(0)


@pytest.mark.parametrize(
    ("kept", "step"),
    [
        pytest.param(0, 0, id="nothing"),
        pytest.param(1, 0, id="the evaluation before training"),
        pytest.param(4, 3, id="in an epoch"),
        pytest.param(5, 4, id="before the evaluation of its step"),
        pytest.param(6, 4, id="after the evaluation of its step"),
        pytest.param(8, 6, id="everything"),
    ],
)
def test_attempts_do_not_overlap_and_leave_no_gap(run, kept, step):
    first = [evaluation(0), train(1), train(2), train(3), train(4), evaluation(4), train(5), train(6)]
    Logged(run, ONLY_TENSORBOARD, 0)(*first).trackers.close(75)
    for _ in range(2):  # twice in a row, the second time without having got any further
        cut_back(run, kept)
        again = Logged(run, ONLY_TENSORBOARD, step)
        again.trackers.close(75)
    Logged(run, ONLY_TENSORBOARD, step)(*first[kept:], train(7)).trackers.close(0)
    assert agrees(run)
    assert len(read_back(run)["train/loss"]) == 7


def test_a_torn_event_file_costs_only_what_was_torn(run):
    first = [evaluation(0), train(1), train(2), train(3)]
    Logged(run, ONLY_TENSORBOARD, 0)(*first).trackers.close(75)
    path = next((run.metrics / "tensorboard").iterdir())
    os.truncate(path, path.stat().st_size - 5)
    cut_back(run, 3)
    Logged(run, ONLY_TENSORBOARD, 2)(*first[3:]).trackers.close(0)
    assert agrees(run)


def test_a_clock_that_goes_back_does_not_change_the_order_of_attempts(run, monkeypatch):
    Logged(run, ONLY_TENSORBOARD, 0)(evaluation(0), train(1), train(2)).trackers.close(75)
    cut_back(run, 2)
    monkeypatch.setattr(time, "time", lambda: 1.7e9)
    Logged(run, ONLY_TENSORBOARD, 1)(train(2), train(3)).trackers.close(0)
    assert agrees(run)


def test_a_tracker_that_fails_is_named_and_left_out(run, capsys):
    class Full:
        def __init__(self) -> None:
            self.asked = 0

        def log(self, line) -> None:
            self.asked += 1
            raise OSError(28, "No space left on device")

        def close(self, exit_code: int) -> None:
            raise OSError

    class Counts:
        lines = 0

        def log(self, line) -> None:
            self.lines += 1

        def close(self, exit_code: int) -> None: ...

    full, counts = Full(), Counts()
    trackers = Trackers()
    trackers.start("full", lambda: full)
    trackers.start("counts", lambda: counts)
    trackers.log(train(1))
    trackers.log(train(2))
    trackers.close(0)
    assert (full.asked, counts.lines) == (1, 2)
    assert capsys.readouterr().out.count("WARNING: full fails: [Errno 28] No space left on device") == 1


def test_a_tracker_that_cannot_start_is_a_warning(run, capsys):
    (run.metrics / "tensorboard").write_text("a file where a folder should be")
    trackers = Logged(run, ONLY_TENSORBOARD, 0)(train(1)).trackers
    trackers.close(0)
    assert "WARNING: tensorboard cannot be started" in capsys.readouterr().out


def test_tensorboard_draws_nothing(run):
    before = generators()
    Logged(run, ONLY_TENSORBOARD, 0)(evaluation(0), train(1)).trackers.close(0)
    assert before == generators()


# wandb, in processes of its own: it keeps state and a service per process, as each attempt has it.

ATTEMPT = """
import os, signal, subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from content_samples import specification
from jobs.rundir import RunDir
from jobs.trackers import open_trackers
made = specification(tracking={tracking!r})
run = RunDir(Path(sys.argv[1]), 3)
trackers = open_trackers(made.recipe.tracking, run, made, 0)
for step in range(1, 4):
    if step == 2 and {kill!r}:
        for pid in subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True).stdout.split():
            if "wandb" in Path("/proc", pid, "cmdline").read_text():
                os.kill(int(pid), getattr(signal, {kill!r}))
    line = {{"kind": "train", "step": step, "epoch": 1, "loss": 1.0 / step, "time": "2026-01-31T12:00:00.000Z"}}
    trackers.log(line)
trackers.close(0)
print("went on to the end")
"""


def attempt(run, *, tracking: dict = WANDB, kill: str = "", **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPT.format(tracking=tracking, kill=kill), str(run.root), str(Path(__file__).parent)],
        env={**os.environ, "HOME": str(run.root / "home"), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("went on to the end\n"), done.stdout
    return done.stdout + done.stderr


def records(path: Path) -> Iterator[bytes]:
    """Of a file of wandb: a header of 7 bytes, then LevelDB's log format (blocks of 32 KiB; crc, length, type)."""
    data, at, part = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (rest := -at % 32768) < 7:
            at += rest
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield part
            part = b""


def history(folder: Path) -> list[dict]:
    """The lines that an attempt left in its folder."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for data in records(next(folder.glob("run-*.wandb"))):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            found.append({key: json.loads(value) for key, value in items.items()})
    return found


def offline_runs(run) -> list[Path]:
    return sorted(path for path in (run.metrics / "wandb").glob("offline-run-*") if path.is_dir())


def test_attempts_of_wandb_continue_one_run_and_hold_no_secret(run):
    text = [attempt(run, WANDB_API_KEY=SECRET, HF_TOKEN=SECRET) for _ in range(2)]
    folders = offline_runs(run)
    assert len(folders) == 2
    identity = "sample-seed-3-dddddddd-cccccccc"
    assert all(folder.name.endswith(identity) for folder in folders)
    assert [(line["_step"], line["train/loss"]) for line in history(folders[0])] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    content = next(folders[0].glob("run-*.wandb")).read_bytes()
    assert b"sample-config" in content  # R20
    assert b"c" * 40 in content  # R21
    assert not [path for path in run.root.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert SECRET not in "".join(text)
    assert not (run.root / "home").exists()  # nothing outside of the tree
    assert not [path for path in run.root.rglob("*") if path.name in {"output.log", "wandb-metadata.json"}]


@pytest.mark.parametrize("kill", [signal.SIGTERM.name, signal.SIGKILL.name])
def test_a_wandb_that_dies_does_not_take_the_run_along(run, kill):
    """Slurm signals every process of a step, wandb's own too."""
    started = time.monotonic()
    attempt(run, kill=kill)
    assert time.monotonic() - started < 30


def test_wandb_without_a_key_or_a_network_is_a_warning(run):
    online = {"tensorboard": False, "wandb": {"project": "samples", "mode": "online"}}
    text = attempt(run, tracking=online, WANDB_BASE_URL="http://127.0.0.1:9", WANDB_API_KEY="")
    assert "WARNING: wandb cannot be started: " in text
