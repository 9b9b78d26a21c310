"""status, wait, logs and cancel over trees alone: no Slurm is needed to speak of what is on disk."""

# ruff: noqa: FBT003 - as the command line calls them

import json
import subprocess
import sys

import pytest

from jobs.contract import Event
from jobs.files import append_line, publish_json
from jobs.rundir import Tree
from launcher.cancel import cancel
from launcher.errors import LaunchError
from launcher.logs import show_logs
from launcher.record import Submission
from launcher.show import finished
from launcher.status import show_status, wait

TIME = "2026-01-31T12:00:00.000Z"


@pytest.fixture
def tree(tmp_path):
    """Seed 0 is done at its second attempt, seed 1 crashed, seed 2 was never launched."""
    tree = Tree(tmp_path / "experiments" / "tiny")
    for seed in (0, 1, 2):
        run = tree.run(seed)
        for folder in run.folders:
            folder.mkdir(parents=True)
        publish_json(run.specification, {"commit": "c" * 40, "dirty": False, "recipe": {"training": {"epochs": 3}}})
    tree.config.write_text("")
    Submission("a", "slurm", "submitted", (0, 1), "7", None, "gpu", "h", 1, TIME).write(tree)
    for seed, number, code, cause, action in (
        (0, 1, 75, "preempted", "requeue"),
        (0, 2, 0, "done", "none"),
        (1, 1, 1, "crashed", "stop"),
    ):
        run = tree.run(seed)
        run.attempt_log(number).write_text(f"hello from {seed}\nlast words")
        start = {
            "event": Event.STARTED,
            "attempt": number,
            "time": TIME,
            "node": "n1",
            "job": f"7_{seed}",
            "restart": number - 1,
        }
        append_line(run.events, start)
        append_line(run.events, {"event": Event.ENDED, "attempt": number, "time": TIME, "exit_code": code, "step": 9})
        append_line(
            run.events, {"event": Event.DECIDED, "attempt": number, "time": TIME, "cause": cause, "action": action}
        )
    for number, step, lost in ((1, 0, 0), (2, 5, 4)):
        went_on = {"event": Event.RESUMED, "attempt": number, "time": TIME, "step": step, "lost_steps": lost}
        append_line(tree.run(0).events, went_on)
    append_line(tree.run(1).events, {"event": Event.RESUMED, "attempt": 1, "time": TIME, "step": 4})
    append_line(
        tree.run(1).metrics_file, {"kind": "evaluation", "step": 9, "epoch": 1, "val_loss": 0.5, "accuracy": 0.25}
    )
    publish_json(tree.run(0).done, {"step": 20, "epoch": 3, "val_loss": 0.125, "accuracy": 0.75})
    return tree


def test_the_table(tree, capsys):
    assert show_status(tree.root.parent, "tiny", False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny  commit cccccccccccc"
    assert lines[2].split()[:6] == ["0", "done", "20", "3/3", "0.1250", "75.0%"]
    assert "2: preempted, done" in lines[2]
    assert lines[3].split()[:2] == ["1", "failed"]
    assert "crashed (exit code 1)" in lines[3]
    assert lines[4].split() == ["2", "planned", "0"]
    assert "3 seeds: 1 done, 1 failed, 1 planned" in lines[5]
    assert "goodput 69.0% (20 of 29 steps)" in lines[5]
    assert "val loss 0.1250, mean of 1 done of 3 seeds (0)" in lines[5]
    assert lines[6].endswith("attempt-1.log: last words")


def test_a_dirty_run_is_marked_everywhere(tree, capsys):
    tree.patch.write_text("diff")
    show_status(tree.root.parent, None, False)
    assert "NOT REPRODUCIBLE" in capsys.readouterr().out.splitlines()[0]
    show_status(tree.root.parent, None, True)
    assert json.loads(capsys.readouterr().out)["experiments"][0]["reproducible"] is False


def test_a_run_that_crossed_into_another_class_is_marked_with_its_step(tree, capsys):
    crossed = {"event": Event.RESUMED, "attempt": 2, "time": TIME, "step": 4, "class": ["gpu: A -> B"]}
    append_line(tree.run(1).events, crossed)
    show_status(tree.root.parent, None, False)
    head = capsys.readouterr().out.splitlines()[0]
    assert head.endswith("NOT REPRODUCIBLE: seed 1 went on in another hardware class at step 4 (gpu: A -> B)")
    assert "NOT REPRODUCIBLE: seed 1 went on" in finished(tree, [0, 1]).splitlines()[-1]


def test_a_run_that_is_not_deterministic_is_marked(tree, capsys):
    path = tree.run(0).specification
    fields = json.loads(path.read_text())
    path.write_text(
        json.dumps({**fields, "recipe": {**fields.get("recipe", {}), "numerics": {"deterministic": False}}})
    )
    show_status(tree.root.parent, None, True)
    (found,) = json.loads(capsys.readouterr().out)["experiments"]
    assert (found["reproducible"], found["marks"]) == (False, ["numerics.deterministic is false"])


def test_what_a_users_own_job_says_in_its_own_words_is_passed_over(tree, capsys):
    publish_json(tree.run(0).done, {"step": 20, "val_loss": "low", "accuracy": None, "epoch": True, "mine": [1]})
    assert show_status(tree.root.parent, "tiny", False) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[:3] == ["0", "done", "20"]
    assert finished(tree, [0]).splitlines()[2].split() == ["0", "-", "->", "-", "-", "->", "-"]
    for odd in (0.5, float("nan"), float("inf"), 10**400):
        publish_json(tree.run(1).done, {"val_loss": odd})
        assert "± standard deviation over 2 seeds" in finished(tree, [0, 1])
        assert show_status(tree.root.parent, "tiny", True) == 0
    for odd in (3, "gpu", [1], {"gpu": 1}):
        append_line(tree.run(1).events, {"event": Event.RESUMED, "attempt": 3, "step": 5, "class": odd, "skipped": odd})
        assert show_status(tree.root.parent, "tiny", False) == 0


def test_as_json(tree, capsys):
    show_status(tree.root.parent, "tiny", True)
    (found,) = json.loads(capsys.readouterr().out)["experiments"]
    assert found["seeds"] == [0, 1, 2]
    done, failed, planned = found["runs"]
    assert done["goodput"] == {"useful": 20, "executed": 24, "ratio": 20 / 24}
    assert failed["goodput"] == {"useful": 0, "executed": 5, "ratio": 0.0}
    assert planned["goodput"]["ratio"] is None
    assert (done["state"], done["val_loss"], [each["cause"] for each in done["attempts"]]) == (
        "done",
        0.125,
        ["preempted", "done"],
    )
    assert (failed["state"], failed["val_loss"], failed["active"]) == ("failed", 0.5, False)
    assert (planned["state"], planned["attempts"]) == ("planned", [])


def test_an_empty_folder_says_so(tmp_path, capsys):
    assert show_status(tmp_path, None, False) == 0
    assert "No experiment in" in capsys.readouterr().out
    with pytest.raises(LaunchError, match="No experiment `x`"):
        show_status(tmp_path, "x", False)


@pytest.mark.parametrize(("seeds", "code"), [([0], 0), ([0, 1], 9), ([1], 9)])
def test_waiting_for_what_has_ended_ends(tree, seeds, code):
    said = []
    assert wait(tree, seeds, said.append) == code
    assert said[0].startswith(f"tiny seed {seeds[0]}: ")


def test_waiting_for_a_run_that_can_go_on_is_another_code(tree):
    append_line(
        tree.run(1).events,
        {"event": Event.STARTED, "attempt": 2, "time": TIME, "node": "n1", "job": "7_1", "restart": 1},
    )
    append_line(tree.run(1).events, {"event": Event.ENDED, "attempt": 2, "time": TIME, "exit_code": 75, "step": 9})
    line = {"event": Event.DECIDED, "attempt": 2, "time": TIME, "cause": "interrupted", "action": "stop"}
    append_line(tree.run(1).events, line)
    assert wait(tree, [0, 1], lambda _: None) == 75


def test_logs_of_one_seed_in_order(tree, capsys):
    assert show_logs(tree, 0, None, False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("==")] == [
        f"== seed 0, attempt 1 (n1, job 7_0, {TIME}): preempted ==",
        f"== seed 0, attempt 2 (n1, job 7_0, {TIME}): done ==",
    ]
    assert lines.count("last words") == 2


def test_logs_of_all_seeds_say_whose(tree, capsys):
    show_logs(tree, None, None, False)
    out = capsys.readouterr().out
    assert "seed 1 | hello from 1" in out
    assert "seed 2 | no attempt has started: planned" in out


def test_one_attempt(tree, capsys):
    show_logs(tree, 0, 2, False)
    out = capsys.readouterr().out
    assert "attempt 2" in out
    assert "attempt 1" not in out
    with pytest.raises(LaunchError, match="no attempt 9"):
        show_logs(tree, 0, 9, False)


@pytest.mark.parametrize(("seed", "code"), [(0, 0), (1, 9)])
def test_following_what_has_ended_ends_with_its_code(tree, capsys, seed, code):
    assert show_logs(tree, seed, None, True) == code
    out = capsys.readouterr().out
    assert out.count("last words") == (2 if seed == 0 else 1)


def test_cancel_of_nothing_is_no_error(tree, capsys):
    assert cancel(tree, None) == 0
    out = capsys.readouterr().out
    assert "seed 2: planned, nothing to cancel" in out
    assert "Nothing of tiny is active." in out
    with pytest.raises(LaunchError, match="no seed 9"):
        cancel(tree, 9)


def test_cancel_asks_the_local_runner_to_stop_and_no_stranger(tree, capsys):
    """The runner is a process that began before the record; one that began later has its number by chance."""
    import socket
    from datetime import UTC, datetime, timedelta

    code = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); print(flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        for since, survives in (
            (datetime.now(UTC) - timedelta(hours=9), True),
            (datetime.now(UTC) + timedelta(seconds=1), False),
        ):
            text = since.isoformat()
            Submission(
                "b", "local", "submitted", (2,), None, None, None, socket.gethostname(), process.pid, text
            ).write(tree)
            cancel(tree, 2)
            out = capsys.readouterr().out
            if survives:
                assert "nothing to cancel" in out
                assert process.poll() is None
            else:
                assert f"asked to save and stop, process {process.pid}" in out
                assert process.wait(10) == 75
