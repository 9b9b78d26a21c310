"""The real program, hit by real signals at random moments, then started again until it is done: the bits of a calm run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import miniature
import pytest
from same_bits import assert_same_run

from jobs.contract import Exit
from jobs.determinism import environment
from jobs.files import read_lines
from jobs.rundir import RunDir

WORKERS = {"data": {"workers": 2}, "training": {"precision": "bf16"}, "checkpoints": {"every_steps": 1}}
ROUND = int(os.environ.get("BLOWS_ROUND", "1"))
"""Another number strikes at other moments: `for i in $(seq 50); do BLOWS_ROUND=$i pytest tests/run/test_run_blows.py; done`."""
NUMERICS = {"threads": 1, "cpu_capability": "avx2"}


def launch(path: Path, **environ: str) -> subprocess.Popen[str]:
    """Start the program as the task does: a process group of its own, stop signals blocked until its handlers stand."""
    from jobs.contract import STOP_SIGNALS

    return subprocess.Popen(
        [sys.executable, miniature.__file__, str(path)],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(miniature.__file__).parents[2]),
            "MINIATURE_PAUSE": "0.004",
            **environ,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS),  # noqa: PLW1509 - as the task does it
    )


def strike(process: subprocess.Popen[str], blow: str, draw: random.Random) -> None:
    """Every process of the group gets each signal, as Slurm does it."""
    if blow == "stop while starting":
        time.sleep(draw.uniform(0.0, 0.3))
        os.killpg(process.pid, signal.SIGTERM)
        return
    for line in process.stdout or ():
        if line.startswith(("before training", "tiny seed")):
            break
    time.sleep(draw.uniform(0.0, 0.4))  # the moment is the test's subject: anywhere in training
    for name in blow.split():
        try:
            os.killpg(process.pid, getattr(signal, f"SIG{name}"))
        except ProcessLookupError:
            return
        time.sleep(draw.uniform(0.0, 0.005))


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("blows", "changes"),
    [
        (("KILL", "INT", "stop while starting"), {}),
        (("TERM TERM", "USR2 KILL", "TERM USR2"), WORKERS),
    ],
    ids=["plain", "workers-bf16"],
)
def test_run_blows_change_no_bit(tmp_path: Path, blows: tuple[str, ...], changes: dict[str, Any]) -> None:
    changes = {**changes, "training": {"epochs": 5, **changes.get("training", {})}}
    # By the same program: this process has another environment, and so another numerics class.
    calm_path = miniature.make_tree(tmp_path / "calm", **changes)
    output, _ = (process := launch(calm_path, MINIATURE_PAUSE="0")).communicate(timeout=60)
    assert process.returncode == Exit.DONE, output
    path, draw = miniature.make_tree(tmp_path / "blown", **changes), random.Random(ROUND)
    run, codes = RunDir.of_specification(path), []
    for blow in draw.sample(blows, len(blows)):
        process = launch(path)
        strike(process, blow, draw)
        output, _ = process.communicate(timeout=60)
        codes.append((blow, process.returncode))
        killed = "KILL" in blow and process.returncode == -signal.SIGKILL
        assert killed or process.returncode in {Exit.SAVED, Exit.DONE}, f"{blow}: {process.returncode}\n{output}"
    process = launch(path, MINIATURE_PAUSE="0")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == Exit.DONE, output
    assert_same_run(RunDir.of_specification(calm_path), run)
    # Launch and attempt have the same number. One that was killed may have saved just before.
    saved = {line["attempt"] for line in read_lines(run.events) if line["event"] == "saved"}
    ends = {attempt: code for attempt, (_, code) in enumerate(codes, start=1)}
    assert {attempt for attempt, code in ends.items() if code == Exit.SAVED} <= saved
    assert all(ends[attempt] in {Exit.SAVED, -signal.SIGKILL} for attempt in saved)


def test_run_blows_until_the_very_end_keep_the_exit_code(tmp_path: Path) -> None:
    """Signals rain until the process is gone: it has saved and says so, also when one falls into the interpreter's end."""
    process = launch(miniature.make_tree(tmp_path))
    while True:
        try:
            os.killpg(process.pid, signal.SIGTERM)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=0.001)
        except subprocess.TimeoutExpired:
            continue
        break
    output, _ = process.communicate(timeout=60)
    assert process.returncode == Exit.SAVED, output


def test_run_exec_pins_the_environment_once(tmp_path: Path) -> None:
    """Whatever the environment was, the process that computes has the recipe's; a run within a run too."""
    path = miniature.make_tree(tmp_path, training={"epochs": 1})
    bare = {key: value for key, value in os.environ.items() if key not in environment(NUMERICS)}
    code = (
        "import sys, types, os; m = types.ModuleType('jobs.run'); sys.modules['jobs.run'] = m\n"
        "def run(path, stop, check_origin):\n"
        "    import torch\n"
        "    print(os.environ['OMP_NUM_THREADS'], torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(),\n"
        "        sys.flags.hash_randomization, sys.flags.no_user_site, 'pydantic' in BEFORE)\n"
        "    return 0\n"
        "BEFORE = set(sys.modules)\n"
        "m.run = run\n"
        "import jobs.__main__ as program; BEFORE = set(sys.modules); sys.exit(program.main(sys.argv[1:]))\n"
    )
    script = tmp_path / "program.py"
    script.write_text(code)
    for extra in ({}, {"SAMEBITS_REEXECUTED": "1"}, {"OMP_NUM_THREADS": "7", "ATEN_CPU_CAPABILITY": "default"}):
        done = subprocess.run(
            [sys.executable, str(script), str(path)],
            env={**bare, "PYTHONPATH": str(Path(miniature.__file__).parents[2]), **extra},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout.split()) == (0, ["1", "AVX2", "1", "0", "1", "False"]), done.stderr


def test_run_entry_is_standard_library_until_handlers_stand() -> None:
    code = (
        "import sys, jobs.__main__, jobs.determinism, jobs.preemption\n"
        "jobs.determinism.environment({'threads': 1, 'cpu_capability': 'avx2'})\n"
        "print([m for m in ('torch', 'numpy', 'pydantic', 'yaml') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "told"),
    [("{", "is not a run's specification"), ("{}", "KeyError"), (None, "FileNotFoundError")],
)
def test_run_entry_refuses_what_is_no_specification(tmp_path: Path, text: str | None, told: str) -> None:
    path = miniature.make_tree(tmp_path)
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    done = subprocess.run([sys.executable, "-m", "jobs", path], capture_output=True, text=True, check=False)
    assert done.returncode == Exit.REFUSED
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_run_entry_tells_what_another_machine_may_do(tmp_path: Path) -> None:
    """Exit 79, not 78: an arbiter sends it to another node."""
    path = miniature.make_tree(tmp_path)
    specification = json.loads(path.read_text())
    specification["recipe"]["numerics"]["device"] = "cuda"
    path.write_text(json.dumps(specification))
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    argv = [sys.executable, "-m", "jobs", path]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=hidden)
    assert done.returncode == Exit.UNFIT, done.stderr
    assert "refused here: numerics.device is cuda" in done.stderr


def test_run_crash_has_its_traceback_in_the_log(tmp_path: Path) -> None:
    path = miniature.make_tree(tmp_path)
    (path.parents[2] / "checkpoints").write_text("a file where a folder should be")
    process = launch(path)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == Exit.BROKEN
    assert "Traceback" in output
    assert "FileExistsError" in output or "NotADirectoryError" in output
