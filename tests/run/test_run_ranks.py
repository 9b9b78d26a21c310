"""Several ranks, as real processes: hit at random moments, gone on with by other numbers of them, to the same bits."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import miniature
import pytest
from same_bits import assert_same_run
from test_run_blows import ROUND, launch

from jobs.contract import Exit
from jobs.files import read_lines
from jobs.rundir import RunDir

PAUSE = "0.004"
ELASTIC = {"training": {"parallel": {"ranks": 2, "elastic": True}, "epochs": 2}, "checkpoints": {"every_steps": 1}}
REDUCED = {"training": {"parallel": {"ranks": 2}, "epochs": 2}, "checkpoints": {"every_steps": 1}}
pytestmark = pytest.mark.timeout(240)


def ended(process: subprocess.Popen[str], *codes: int) -> str:
    """What it said, once it has ended, with one of these codes."""
    output, _ = process.communicate(timeout=120)
    assert process.returncode in codes, f"{process.returncode}\n{output}"
    return output


def calm(root: Path, ranks: int, changes: dict[str, Any]) -> RunDir:
    path = miniature.make_tree(root / "calm", **changes)
    ended(launch(path, SAMEBITS_RANKS=str(ranks), MINIATURE_PAUSE="0"), Exit.DONE)
    return RunDir.of_specification(path)


def children(process: subprocess.Popen[str]) -> list[int]:
    """Its ranks."""
    try:
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def strike(process: subprocess.Popen[str], blow: str, draw: random.Random) -> None:
    """One blow, anywhere in the start, the training or an evaluation."""
    if not blow.endswith("early"):
        for line in process.stdout or ():
            if line.startswith(("before training", "tiny seed")):
                break
    time.sleep(draw.uniform(0.0, 2.0 if blow.endswith("early") else 0.5))
    name, whom = blow.split()[:2]
    number = getattr(signal, f"SIG{name}")
    ranks = children(process)
    struck = {"all": [process.pid, *ranks], "parent": [process.pid], "one": draw.sample(ranks, 1) if ranks else []}
    for pid in struck[whom]:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


BLOWS = (
    "TERM all",
    "USR2 parent",
    "TERM one",
    "KILL one",
    "KILL parent",
    "KILL all",
    "TERM all early",
    "KILL one early",
)


@pytest.mark.parametrize(
    ("changes", "sizes", "blows"),
    [(ELASTIC, (1, 2, 3), 3), (REDUCED, (2,), 2)],
    ids=["elastic", "reduced"],
)
def test_run_ranks_blows_change_no_bit(
    tmp_path: Path, changes: dict[str, Any], sizes: tuple[int, ...], blows: int
) -> None:
    expected = calm(tmp_path, sizes[0], changes)
    path, draw = miniature.make_tree(tmp_path / "blown", **changes), random.Random(ROUND)
    run, told = RunDir.of_specification(path), []
    for blow in draw.sample(BLOWS, blows):
        size = draw.choice(sizes)
        process = launch(path, SAMEBITS_RANKS=str(size), MINIATURE_PAUSE=PAUSE)
        strike(process, blow, draw)
        # A rank of a run that is one by itself cannot be struck alone
        killed = blow.startswith("KILL") and (size > 1 or "one" not in blow)
        ended(process, *((-signal.SIGKILL,) if killed else ()), Exit.SAVED, Exit.DONE)
        assert children(process) == []
        told.append((blow, size, process.returncode))
    print(f"round {ROUND}: {told}")
    ended(launch(path, SAMEBITS_RANKS=str(draw.choice(sizes)), MINIATURE_PAUSE="0"), Exit.DONE)
    assert_same_run(expected, run)
    assert not list(run.logs.glob("rendezvous-*"))


def test_run_ranks_four_then_one_then_two_are_one_rank(tmp_path: Path) -> None:
    """Elastic: preempted on four ranks, gone on with on one, preempted, and finished on two."""
    changes = {**ELASTIC, "training": {"parallel": {"ranks": 4, "elastic": True}, "epochs": 3, "accumulation": 4}}
    expected = calm(tmp_path, 1, changes)
    path = miniature.make_tree(tmp_path / "moved", **changes)
    for size, blow in ((4, "TERM one"), (1, "TERM parent"), (2, "")):
        process = launch(path, SAMEBITS_RANKS=str(size), MINIATURE_PAUSE=PAUSE if blow else "0")
        if blow:
            strike(process, blow, random.Random(ROUND))
        ended(process, Exit.SAVED if blow else Exit.DONE)
    assert_same_run(expected, RunDir.of_specification(path))


def test_run_ranks_a_dead_rank_takes_the_others_with_it(tmp_path: Path) -> None:
    """The end is that of the one that was killed, and comes within seconds."""
    process = launch(miniature.make_tree(tmp_path, **{**REDUCED, "training": {"parallel": {"ranks": 3}, "epochs": 40}}))
    for line in process.stdout or ():
        if line.startswith("step "):
            break
    ranks = children(process)
    os.kill(ranks[1], signal.SIGKILL)
    output = ended(process, -signal.SIGKILL)
    assert output.count("lost: another rank is gone") == 2
    assert not [pid for pid in ranks if Path(f"/proc/{pid}").exists()]


def test_run_ranks_that_are_frozen_do_not_outlive_the_failed(tmp_path: Path) -> None:
    """One rank is killed while another one hears nothing: it is ended as well."""
    process = launch(miniature.make_tree(tmp_path, **REDUCED))
    for line in process.stdout or ():
        if line.startswith("before training"):
            break
    first, second = children(process)
    os.kill(second, signal.SIGSTOP)
    os.kill(first, signal.SIGKILL)
    ended(process, -signal.SIGKILL)
    assert not Path(f"/proc/{second}").exists()


def test_run_ranks_on_two_nodes(tmp_path: Path) -> None:
    """Two processes that start one rank each, as on two nodes: the bits of two ranks on one. Only the first node's writes."""
    expected = calm(tmp_path, 2, REDUCED)
    path = miniature.make_tree(tmp_path / "nodes", **REDUCED)
    run = RunDir.of_specification(path)
    for stopped in (True, False):
        attempt = run.take_attempt()
        nodes = [
            launch(
                path,
                SAMEBITS_NODES="2",
                SAMEBITS_NODE=str(node),
                SAMEBITS_ADDRESS="localhost",
                SAMEBITS_ATTEMPT=str(attempt),
                MINIATURE_PAUSE=PAUSE if stopped else "0",
            )
            for node in range(2)
        ]
        if stopped:  # the second node alone is told
            for line in nodes[0].stdout or ():
                if line.startswith("step "):
                    break
            os.kill(nodes[1].pid, signal.SIGTERM)
        outputs = [ended(node, Exit.SAVED if stopped else Exit.DONE) for node in nodes]
        assert "tiny seed 5" not in outputs[1]
    assert_same_run(expected, run)
    (saved,) = [line for line in read_lines(run.events) if line["event"] == "saved"]
    assert saved["attempt"] == 1


def test_run_ranks_a_stop_while_they_gather_ends_all(tmp_path: Path) -> None:
    """Of two nodes one never comes: the other leaves when asked to, and nothing is lost."""
    path = miniature.make_tree(tmp_path, **REDUCED)
    run = RunDir.of_specification(path)
    process = launch(path, SAMEBITS_NODES="2", SAMEBITS_NODE="0", SAMEBITS_ATTEMPT=str(run.take_attempt()))
    miniature.until(lambda: bool(list(run.logs.glob("rendezvous-*"))))
    os.kill(process.pid, signal.SIGTERM)
    ended(process, Exit.SAVED)
    assert not list(run.logs.glob("rendezvous-*"))


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"SAMEBITS_RANKS": "3"}, "training.parallel.ranks is 2"),
        ({"SAMEBITS_NODES": "3", "SAMEBITS_ATTEMPT": "1"}, "2 ranks cannot be shared out evenly over 3 nodes"),
        ({"SAMEBITS_NODES": "2", "SAMEBITS_NODE": "2"}, "numbered from 0"),
        ({"SAMEBITS_NODES": "2"}, "SAMEBITS_ATTEMPT is not set"),
        ({"SAMEBITS_RANKS": "two"}, "'two', not a number"),
    ],
)
def test_run_ranks_that_do_not_fit_are_refused(tmp_path: Path, environ: dict[str, str], said: str) -> None:
    assert said in ended(launch(miniature.make_tree(tmp_path, **REDUCED), **environ), Exit.REFUSED)


def test_run_ranks_elastic_refuses_a_model_that_changes_its_buffers(tmp_path: Path) -> None:
    """The breach: with more ranks each would see only its own micro-batches."""
    path = miniature.make_tree(tmp_path, **ELASTIC)
    output = ended(launch(path, SAMEBITS_RANKS="2", MINIATURE_COUNTS="1"), Exit.REFUSED)
    assert "changes seen in its forward pass" in output
    assert not RunDir.of_specification(path).done.exists()


def test_run_ranks_a_rank_that_errs_is_found_at_its_step(tmp_path: Path) -> None:
    """The breach: one rank's weights are changed by a bit. Nothing of the step is written."""
    path = miniature.make_tree(tmp_path, **REDUCED)
    output = ended(launch(path, MINIATURE_ERRS="1"), Exit.BROKEN)
    assert "after step 3 rank 1 has other weights than rank 0" in output
    run = RunDir.of_specification(path)
    assert [json.loads(line)["step"] for line in run.ledger.read_text().splitlines()] == [1, 2]


def test_run_ranks_the_machine_class_is_one(tmp_path: Path) -> None:
    """A rank under other numerics is refused there, and its peers say who it was."""
    path = miniature.make_tree(tmp_path, **REDUCED)
    output = ended(launch(path, MINIATURE_CLASS="of rank"), Exit.UNFIT)
    assert "refused here: rank 1" in output
    assert "lost: rank 1" in output
    assert "class: 0 -> 1" in output
