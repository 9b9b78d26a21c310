"""Checkpoints: named and filled as R6 to R8 ask, whole or passed over, fenced, kept within bounds, and survived by the run."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import miniature
import pytest
import torch
from miniature import MIDDLE, StopAfter, event, files, newest, stopped
from same_bits import assert_same_run

from jobs.checkpoint import Checkpoints, Manifest, Position
from jobs.compare import difference
from jobs.contract import Exit
from jobs.errors import Failed, Refused, Unfit
from jobs.files import read_lines
from jobs.ledger import broken_link
from jobs.preemption import StopFlag
from jobs.rundir import RunDir
from launcher.attempts import attempts
from launcher.history import crossings


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


def test_run_checkpoint_of_other_numerics_goes_on_where_the_config_has_it_marked(tmp_path: Path) -> None:
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm", numerics={"other_class": "mark"}))
    path, run = stopped(tmp_path / "crossed", numerics={"other_class": "mark"})
    step = len(list(read_lines(run.ledger)))
    assert miniature.start(path, StopAfter(MIDDLE), numerics={"class": "another"}) is Exit.SAVED
    assert miniature.start(path, StopFlag(), numerics={"class": "another"}) is Exit.DONE
    marked = {line["step"]: line["class"] for line in read_lines(run.ledger) if "class" in line}
    assert marked == {step + 1: ["class: this -> another"]}
    assert broken_link(run.ledger) is None
    assert [line.get("class") for line in read_lines(run.events) if line["event"] == "resumed"] == [
        None,
        ["class: this -> another"],
        None,
    ]
    found = difference(calm, run)
    assert found is not None
    assert (found.step, found.piece) == (step + 1, "the hardware class")
    assert difference(run, calm) is not None
    (crossing,) = crossings(attempts(run))
    assert (crossing.number, crossing.first_step) == (2, step)


def test_run_checkpoint_keeps_the_mark_until_there_is_a_line_for_it(tmp_path: Path) -> None:
    """The attempt that crosses is stopped within its first step: the next one is of its class, and writes the line."""
    changes = {"numerics": {"other_class": "mark"}}
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm", **changes))
    path, run = stopped(tmp_path / "crossed", **changes)
    step = len(list(read_lines(run.ledger)))
    assert miniature.start(path, StopAfter(2), numerics={"class": "another"}) is Exit.SAVED
    assert len(list(read_lines(run.ledger))) == step
    assert miniature.start(path, StopFlag(), numerics={"class": "another"}) is Exit.DONE
    assert [line["step"] for line in read_lines(run.ledger) if "class" in line] == [step + 1]
    found = difference(calm, run)
    assert found is not None
    assert found.piece == "the hardware class"


def test_run_checkpoint_that_is_the_last_has_nothing_to_mark(tmp_path: Path) -> None:
    """Killed between the last checkpoint and the done marker: what is left is to write it."""
    path = miniature.make_tree(tmp_path, numerics={"other_class": "mark"})
    run = miniature.calm(path)
    run.done.unlink()
    assert miniature.start(path, StopFlag(), numerics={"class": "another"}) is Exit.DONE
    assert crossings(attempts(run)) == []


def test_run_checkpoint_of_frozen_weights_that_come_out_otherwise_is_for_another_machine(tmp_path: Path) -> None:
    path, run = stopped(tmp_path, numerics={"other_class": "mark"})
    file = newest(run)
    content = torch.load(file, weights_only=True)
    content["base"] = "2:0000000000000000"
    torch.save(content, file)
    manifest = file.with_name(f"{file.name}.json")
    fields = json.loads(manifest.read_text())
    data = file.read_bytes()
    manifest.write_text(json.dumps({**fields, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}))
    with pytest.raises(Refused) as same:
        miniature.start(path, StopFlag())
    assert not isinstance(same.value, Unfit)
    with pytest.raises(Unfit, match="class: this -> another"):
        miniature.start(path, StopFlag(), numerics={"class": "another"})


class BreakAfter(StopFlag):
    """The run dies at the n-th time that it is asked for."""

    def __init__(self, asks: int) -> None:
        super().__init__()
        self.left = asks

    def __call__(self) -> bool:
        self.left -= 1
        if self.left <= 0:
            raise ZeroDivisionError
        return super().__call__()


def test_run_checkpoint_steps_of_another_class_that_are_done_again_leave_no_mark(tmp_path: Path) -> None:
    """The attempt that crossed saves nothing; the next one is on a machine of the first class again."""
    changes = {"numerics": {"other_class": "mark"}}
    calm = miniature.calm(miniature.make_tree(tmp_path / "calm", **changes))
    path, run = stopped(tmp_path / "crossed", **changes)
    with pytest.raises(ZeroDivisionError):
        miniature.start(path, BreakAfter(2), numerics={"class": "another"})
    assert [bool(each.crossed) for each in attempts(run)] == [False, True]
    assert miniature.start(path, StopFlag()) is Exit.DONE
    assert_same_run(calm, run)
    assert crossings(attempts(run)) == []


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
