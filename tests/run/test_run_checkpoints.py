"""Checkpoints: named and filled as R6 to R8 ask, whole or passed over, fenced, kept within bounds, and survived by the run."""

import json
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import miniature
import pytest
import torch
from miniature import StopAfter
from same_bits import assert_same_run

from jobs.checkpoint import Checkpoints, Manifest, Position
from jobs.contract import Exit
from jobs.errors import Failed, Fenced, Refused, Unfit
from jobs.files import read_lines
from jobs.linefile import LineFile, Mark
from jobs.preemption import StopFlag
from jobs.rundir import RunDir

MIDDLE = 4 + 9 + 4 + 3 + 2
"""Asks until the first micro-batch of step 5 is done: one checkpoint after the epoch, two in between, one of the stop."""


def stopped(root: Path, asks: int = MIDDLE, **changes: Any) -> tuple[Path, RunDir]:
    path = miniature.make_tree(root, **changes)
    assert miniature.start(path, StopAfter(asks)) is Exit.SAVED
    return path, RunDir.of_specification(path)


def files(run: RunDir) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


def event(run: RunDir, kind: str) -> dict[str, Any]:
    return [line for line in read_lines(run.events) if line["event"] == kind][-1]


def newest(run: RunDir) -> Path:
    return run.checkpoints / (run.checkpoints / "latest").readlink()


def test_run_checkpoint_names_and_links(tmp_path: Path) -> None:
    run = miniature.calm(miniature.make_tree(tmp_path, checkpoints={"keep": 50}))
    lines = list(read_lines(run.metrics_file))
    validation = {line["epoch"]: line["val_loss"] for line in lines if line["kind"] == "evaluation"}
    training = {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}
    expected = {f"tiny_epoch{n}_loss{validation[n]:.4f}.pt" for n in (1, 2, 3)}
    expected |= {f"tiny_epoch{n // 3}_loss{training[n]:.4f}_step{n}.pt" for n in (2, 4, 8)}  # step 6 ends an epoch
    assert set(files(run)) == expected | {f"{name}.json" for name in expected} | {"best", "latest"}
    best = min((1, 2, 3), key=lambda n: validation[n])
    assert (run.checkpoints / "best").readlink() == Path(f"tiny_epoch{best}_loss{validation[best]:.4f}.pt")
    assert (run.checkpoints / "latest").readlink() == Path(f"tiny_epoch3_loss{validation[3]:.4f}.pt")


def test_run_checkpoint_holds_what_the_rules_ask(tmp_path: Path) -> None:
    path = miniature.make_tree(tmp_path)
    run = miniature.calm(path)
    content = torch.load(run.checkpoints / "latest", weights_only=True)
    assert content["config"] == json.loads(path.read_text())["recipe"]
    assert (content["epoch"], content["seed"], content["commit"]) == (3, miniature.SEED, "a" * 40)
    assert content["loss"] == json.loads(run.done.read_text())["val_loss"]
    assert content["optimizer"]["state"]
    assert "up.weight" in content["model"]
    assert "embedding.weight" not in content["model"], "what is frozen is named by its checksum"
    assert content["base"]


def test_run_checkpoint_stop_in_an_accumulation_is_in_the_name(tmp_path: Path) -> None:
    _, run = stopped(tmp_path)
    loss = [line["loss"] for line in read_lines(run.metrics_file) if line["kind"] == "train"][-1]
    assert newest(run).name == f"tiny_epoch1_loss{loss:.4f}_step4.1.pt"
    said = event(run, "saved")
    assert (said["step"], said["checkpoint"]) == (4, newest(run).name)
    assert 0 <= said["seconds"] < 5


def test_run_checkpoint_retention(tmp_path: Path) -> None:
    """The newest two, and best and latest; each file with its manifest."""
    run = miniature.calm(miniature.make_tree(tmp_path, checkpoints={"keep": 2, "every_steps": 1}))
    kept = {name for name in files(run) if name.endswith(".pt")}
    links = {str((run.checkpoints / link).readlink()) for link in ("best", "latest")}
    assert len(kept | links) <= 3
    assert links <= kept
    assert {name for name in files(run) if name.endswith(".json")} == {f"{name}.json" for name in kept}


def test_run_checkpoint_best_stays_when_later_epochs_are_worse(tmp_path: Path) -> None:
    """A learning rate far too high makes the first epoch the best one, which retention then must not take."""
    training = {
        "optimizer": {"name": "sgd", "lr": 3.0},
        "epochs": 6,
        "schedule": {"name": "constant"},
        "clip_norm": None,
    }
    run = miniature.calm(miniature.make_tree(tmp_path, training=training, checkpoints={"keep": 1}))
    lines = [line for line in read_lines(run.metrics_file) if line["kind"] == "evaluation" and line["epoch"]]
    best = min(lines, key=lambda line: line["val_loss"])
    assert best["epoch"] < 6
    assert (run.checkpoints / "best").readlink() == Path(f"tiny_epoch{best['epoch']}_loss{best['val_loss']:.4f}.pt")
    assert (run.checkpoints / "best").exists()


def _tear(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def _no_manifest(path: Path) -> None:
    path.with_name(f"{path.name}.json").unlink()


def _torn_manifest(path: Path) -> None:
    _tear(path.with_name(f"{path.name}.json"))


def _gone(path: Path) -> None:
    path.unlink()


def _pickled(path: Path) -> None:
    """A checkpoint that would run code, with a manifest that fits it."""
    torch.save({"format": 1, "code": os.system}, path)
    manifest = path.with_name(f"{path.name}.json")
    fields = json.loads(manifest.read_text())
    digest = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    manifest.write_text(json.dumps(fields | {"bytes": path.stat().st_size, "sha256": digest}))


DAMAGE = {
    "torn": (_tear, "bytes instead of"),
    "flipped": (_flip, "has sha256"),
    "manifest torn": (_torn_manifest, "manifest that cannot be read"),
    "gone": (_gone, "cannot be read"),
    "pickled": (_pickled, "cannot be loaded"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE)
def test_run_checkpoint_damaged_is_passed_over_out_loud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Any, reason: str
) -> None:
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm"))
    path, run = stopped(tmp_path / "blown")
    hurt = newest(run)
    damage(hurt)
    assert miniature.start(path, StopFlag()) is Exit.DONE
    assert f"passing over the checkpoint {hurt.name}: it " in capsys.readouterr().out
    said = event(run, "resumed")
    assert [skipped["file"] for skipped in said["skipped"]] == [hurt.name]
    assert reason in said["skipped"][0]["reason"]
    assert (said["step"], said["lost_steps"]) == (4, 0)
    assert_same_run(calm, run)


def test_run_checkpoint_without_manifest_never_counted(tmp_path: Path) -> None:
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm"))
    path, run = stopped(tmp_path / "blown")
    _no_manifest(newest(run))
    (run.checkpoints / ".half.pt.77.tmp").write_bytes(b"half")
    assert miniature.start(path, StopFlag()) is Exit.DONE
    assert event(run, "resumed")["step"] == 4
    assert not [name for name in files(run) if name.endswith(".tmp") or "step4.1" in name]
    assert_same_run(calm, run)


def test_run_checkpoint_all_damaged_begins_anew(tmp_path: Path) -> None:
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm"))
    path, run = stopped(tmp_path / "blown")
    for hurt in run.checkpoints.glob("*.pt"):
        _flip(hurt)
    assert miniature.start(path, StopFlag()) is Exit.DONE
    said = event(run, "resumed")
    assert (said["step"], said["checkpoint"], said["lost_steps"]) == (0, None, 4)
    assert_same_run(calm, run)


def test_run_checkpoint_set_aside_is_not_among_those_to_keep(tmp_path: Path) -> None:
    """With the damaged newer one counted, the only good one would have been dropped."""
    path, run = stopped(tmp_path, checkpoints={"keep": 2})
    _flip(newest(run))
    assert miniature.start(path, StopAfter(2)) is Exit.SAVED
    whole = [name for name in files(run) if name.endswith(".pt")]
    assert len([name for name in whole if "step" in name or name == "best"]) == 2
    assert [name for name in files(run) if name.endswith(".set-aside")]


def test_run_checkpoint_lost_lines_are_a_refusal(tmp_path: Path) -> None:
    path, run = stopped(tmp_path)
    kept = run.metrics_file.read_bytes()
    run.metrics_file.unlink()
    with pytest.raises(Refused, match=r"does not hold the lines"):
        miniature.start(path, StopFlag())
    run.metrics_file.write_bytes(kept)
    assert miniature.start(path, StopFlag()) is Exit.DONE


def test_run_checkpoint_lines_of_another_attempt_do_not_fit(tmp_path: Path) -> None:
    """Long enough, and yet not what the checkpoint was made after: the one before is taken, whose lines stand."""
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm"))
    path, run = stopped(tmp_path / "blown")
    lines = run.metrics_file.read_bytes()
    run.metrics_file.write_bytes(lines[:-30] + b"x" * 60)
    assert miniature.start(path, StopFlag()) is Exit.DONE
    said = event(run, "resumed")
    assert "counts on other lines" in said["skipped"][0]["reason"]
    assert_same_run(calm, run)


def test_run_checkpoint_lines_after_it_are_cut_off(tmp_path: Path) -> None:
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm"))
    path, run = stopped(tmp_path / "blown")
    newest(run).unlink()
    with run.metrics_file.open("ab") as file:
        file.write(b'{"kind": "train", "st')
    assert miniature.start(path, StopFlag()) is Exit.DONE
    assert_same_run(calm, run)


@pytest.mark.parametrize(
    ("section", "fields", "told"),
    [("training", {"epochs": 4}, "config.training.epochs: 3 -> 4"), ("image", {}, "code: git-tree:2 -> git-tree:3")],
)
def test_run_checkpoint_of_another_run_is_refused(
    tmp_path: Path, section: str, fields: dict[str, Any], told: str
) -> None:
    path, _ = stopped(tmp_path)
    specification = json.loads(path.read_text())
    if section == "image":
        specification["image"]["code"] = "git-tree:3"
    else:
        specification["recipe"][section].update(fields)
    path.write_text(json.dumps(specification))
    with pytest.raises(Refused, match=told):
        miniature.start(path, StopFlag())


def test_run_checkpoint_of_other_numerics_is_refused_with_both_values(tmp_path: Path) -> None:
    path, run = stopped(tmp_path)
    before = files(run)
    with pytest.raises(Unfit, match=r"class: this -> another"):
        miniature.start(path, StopFlag(), numerics={"class": "another"})
    assert files(run) == before


def test_run_checkpoint_nothing_new_saves_nothing(tmp_path: Path) -> None:
    path = miniature.make_tree(tmp_path)
    run = RunDir.of_specification(path)
    assert miniature.start(path, StopAfter(1)) is Exit.SAVED
    assert files(run) == []
    assert event(run, "saved")["checkpoint"] is None
    assert miniature.start(path, StopAfter(MIDDLE)) is Exit.SAVED
    first = newest(run).stat()
    assert miniature.start(path, StopAfter(1)) is Exit.SAVED
    assert newest(run).stat().st_ino == first.st_ino
    assert event(run, "saved")["checkpoint"] == newest(run).name


def test_run_done_is_not_done_again(tmp_path: Path) -> None:
    path = miniature.make_tree(tmp_path)
    run = miniature.calm(path)
    before = {file: file.stat().st_mtime_ns for file in run.root.rglob("*")}
    assert miniature.start(path, StopFlag()) is Exit.DONE
    assert {file: file.stat().st_mtime_ns for file in run.root.rglob("*")} == before


class OvertakenAfter(StopFlag):
    """A newer attempt is taken at the n-th ask; this one is never asked to stop."""

    def __init__(self, run: RunDir, asks: int) -> None:
        super().__init__()
        self.run, self.left, self.seen = run, asks, {}  # type: ignore[var-annotated]

    def __call__(self) -> bool:
        self.left -= 1
        if self.left == 0:
            self.run.take_attempt()
            self.seen = tree_of(self.run)
        return False


def tree_of(run: RunDir) -> dict[str, tuple[int, int]]:
    return {
        str(file): (file.lstat().st_mtime_ns, file.lstat().st_size) for file in run.root.rglob("*") if not file.is_dir()
    }


@pytest.mark.parametrize("asks", [1, 4, 6, 15, 40])
def test_run_fenced_writes_nothing_more(tmp_path: Path, asks: int) -> None:
    path = miniature.make_tree(tmp_path)
    run = RunDir.of_specification(path)
    stop = OvertakenAfter(run, asks)
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
    """Fills the disk at one ask, and makes room again at another."""

    def __init__(self, folder: Path, full: int, free: int, asks: int = 10**9) -> None:
        super().__init__(asks)
        self.folder, self.full, self.free, self.asked = folder, full, free, 0

    def __call__(self) -> bool:
        self.asked += 1
        if self.asked == self.full:
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


def test_run_full_disk_at_the_stop_is_told(tmp_path: Path) -> None:
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm"))
    with small_disk("2m", tmp_path / "disk") as disk:
        path = miniature.make_tree(disk / "tree")
        run = RunDir.of_specification(path)
        with pytest.raises(Failed, match=r"asked to stop by SIGTERM.*No space left.*step4.pt \(step 4\) stands"):
            miniature.start(path, FullFrom(disk, full=MIDDLE, free=10**9, asks=MIDDLE + 1))
        (disk / "filler").unlink()
        assert miniature.start(path, StopFlag()) is Exit.DONE
        assert event(run, "resumed")["step"] == 4
        assert_same_run(calm, run)


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


def test_run_number_that_is_none_ends_it(tmp_path: Path) -> None:
    training = {"optimizer": {"name": "sgd", "lr": 1e38}, "schedule": {"name": "constant"}, "clip_norm": None}
    path = miniature.make_tree(tmp_path, training=training)
    with pytest.raises(Failed, match=r"is (nan|inf) in step \d"):
        miniature.start(path, StopFlag())
    assert "nan" not in RunDir.of_specification(path).metrics_file.read_text().lower()


def test_run_checkpoint_of_numerics_as_torch_gives_them_can_be_read_again(tmp_path: Path) -> None:
    """torch.__version__ is a subclass of str: saved as it is, no checkpoint could ever be loaded."""
    path = miniature.make_tree(tmp_path)
    numerics = {"torch": torch.__version__}
    assert miniature.start(path, StopAfter(MIDDLE), numerics=numerics) is Exit.SAVED
    assert miniature.start(path, StopFlag(), numerics=numerics) is Exit.DONE
    said = event(RunDir.of_specification(path), "resumed")
    assert (said["step"], said["skipped"]) == (4, [])


@pytest.mark.parametrize("value", [torch.__version__, {1}, Path("x"), torch.nn.Parameter(torch.ones(1))])
def test_run_checkpoint_that_could_not_be_read_again_is_not_written(tmp_path: Path, value: Any) -> None:
    checkpoints = Checkpoints(tmp_path, 3, lambda: None)
    manifest = Manifest("", 0, "", Position(1, 0, 1), 0, 0.0, 1)
    with pytest.raises(TypeError, match=r"cannot hold /deep/0, a "):
        checkpoints.save({"deep": [value]}, "x.pt", lambda *_: manifest, best=False)
    assert not list(tmp_path.iterdir())
