"""The shell around the step, run by a real bash."""

import os
import signal
import subprocess
import sys

import pytest

from launcher import batch

NASTY = ["a b", "it's", 'say "x"', "$HOME", "`id`", "a\nb", "-n", "*", "ü", "a;b", "\\"]


@pytest.mark.parametrize("word", NASTY)
def test_words_reach_a_program_as_they_are(word):
    script = batch.words(sys.executable, "-c", "import sys; sys.stdout.write(sys.argv[1])", word)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == word


def fake_launcher(tmp_path, body):
    """An interpreter that is asked for `-m launcher.arbiter`: the shell around it is what is tested."""
    program = tmp_path / "py'thon x"
    program.write_text(f"#!/bin/bash\n{body}\n")
    program.chmod(0o755)
    return program


def script(tmp_path, command, body, site=()):
    program = fake_launcher(tmp_path, body)
    lines = [*batch.setup(site), command, *batch.teardown((), str(program), tmp_path / "p l.json")]
    path = tmp_path / "job.sh"
    path.write_text("#!/bin/bash\n" + "\n".join(lines))
    return path


def test_the_arbiter_gets_the_steps_code_and_gives_the_jobs(tmp_path):
    path = script(tmp_path, "(exit 75)", 'printf "%s\\n" "$@"; exit 7')
    done = subprocess.run(["bash", path], capture_output=True, text=True, check=False)
    assert done.returncode == 7
    arguments = ["-I", "-m", "launcher.arbiter", "--placement", str(tmp_path / "p l.json"), "--code", "75"]
    assert done.stdout.splitlines() == arguments


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_the_script_lives_to_ask_and_the_arbiter_is_out_of_the_signals_reach(tmp_path, number):
    step = "echo step; sleep 0.3; (exit 75)"
    path = script(tmp_path, step, 'echo arbiter; kill -TERM $$; kill -USR2 $$; sleep 0.1; echo "alive $7"; exit 75')
    with subprocess.Popen(["bash", path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "step\n"
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait() == 75
    assert rest.splitlines() == ["arbiter", "alive 75"]


def test_without_the_trap_the_script_dies_and_nobody_asks(tmp_path):
    path = script(tmp_path, "echo step; sleep 0.3", "echo arbiter")
    path.write_text(path.read_text().replace("trap ':'", "true"))
    with subprocess.Popen(["bash", path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "step\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
        assert "arbiter" not in process.stdout.read()


def test_the_umask_is_that_of_the_submission(tmp_path):
    path = script(tmp_path, "umask", "exit 0")
    done = subprocess.run(
        ["bash", path], capture_output=True, text=True, check=True, env={**os.environ, "SLURM_UMASK": "0027"}
    )
    assert done.stdout == "0027\n"


def test_the_sites_lines_come_before_the_step(tmp_path):
    path = script(tmp_path, 'echo "$LOADED"', "exit 0", site=["export LOADED=yes"])
    done = subprocess.run(["bash", path], capture_output=True, text=True, check=True)
    assert done.stdout == "yes\n"


def test_nothing_of_the_users_shell_brings_another_launcher(tmp_path):
    other = tmp_path / "launcher"
    other.mkdir()
    (other / "__init__.py").write_text("raise SystemExit('the wrong launcher')")
    argv = [*batch.python(sys.executable), "-m", "launcher.arbiter", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "wrong launcher" not in done.stdout + done.stderr
    assert done.returncode == 0
    wrong = subprocess.run(
        [sys.executable, *argv[2:]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "the wrong launcher" in wrong.stderr


def test_the_node_loads_nothing_heavy_to_decide():
    heavy = "('submitit', 'pydantic', 'yaml', 'torch', 'numpy', 'filelock')"
    code = f"import launcher.arbiter, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([*batch.python(sys.executable), "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
