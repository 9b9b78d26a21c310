"""The shell around the step, run by a real bash."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.contract import Exit
from launcher import batch, bundle

ROOT = Path(__file__).parents[2]
ENGINES = sorted(f"launcher.engines.{path.stem}" for path in (ROOT / "launcher" / "engines").glob("[a-z]*.py"))
NASTY = ["a b", "it's", 'say "x"', "$HOME", "`id`", "a\nb", "-n", "*", "ü", "a;b", "\\"]


@pytest.mark.parametrize("word", NASTY)
def test_words_reach_a_program_as_they_are(word):
    script = batch.words(sys.executable, "-c", "import sys; sys.stdout.write(sys.argv[1])", word)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == word


def fake_launcher(tmp_path, body):
    """An interpreter that is asked for the arbiter: the shell around it is what is tested."""
    program = tmp_path / "py'thon x"
    program.write_text(f"#!/bin/bash\n{body}\n")
    program.chmod(0o755)
    return program


def script(tmp_path, command, body, site=()):
    program = fake_launcher(tmp_path, body)
    lines = [*batch.setup(site, (str(program), "a b", "")), command, *batch.teardown((), tmp_path / "p l.json")]
    path = tmp_path / "job.sh"
    path.write_text("#!/bin/bash\n" + "\n".join(lines))
    return path


def test_the_arbiter_gets_the_steps_code_and_gives_the_jobs(tmp_path):
    path = script(tmp_path, "(exit 75)", 'printf "%s\\n" "$@"; exit 75')
    done = subprocess.run(["bash", path], capture_output=True, text=True, check=False)
    assert done.returncode == 75
    arguments = ["a b", "", "launcher.arbiter", "--placement", str(tmp_path / "p l.json"), "--code", "75"]
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


SCONTROL = """#!/bin/bash
echo "$*" >> "$CALLS"
[ "$1" = show ] && echo "JobId=8 JobState=RUNNING ExcNodeList=$OLD NodeList=n1"
true
"""


@pytest.mark.parametrize(
    ("code", "before", "old", "told"),
    [
        (127, 0, "(null)", ["requeue incomplete 7_1", "update JobId=7_1 ExcNodeList=n1"]),
        (79, 2, "n[3-4]", ["requeue incomplete 7_1", "update JobId=7_1 ExcNodeList=n[3-4],n1"]),
        (79, 3, "(null)", []),
        (78, 0, "(null)", []),
        (0, 0, "(null)", []),
        (1, 0, "(null)", []),
        (75, 0, "(null)", []),
    ],
)
def test_where_the_arbiter_cannot_start_the_job_goes_elsewhere_a_few_times(tmp_path, code, before, old, told):
    (tmp_path / "scontrol").write_text(SCONTROL)
    (tmp_path / "scontrol").chmod(0o755)
    path = script(tmp_path, "(exit 127)", f"exit {code}")
    log = tmp_path / "7_1.log"
    log.write_text(f"{batch.UNABLE} (exit code 127 on n9)\n" * before)
    names = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURMD_NODENAME": "n1"}
    env = {**os.environ, **names, "CALLS": f"{tmp_path}/calls", "OLD": old, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    with log.open("a") as output:
        done = subprocess.run(["bash", path], stdout=output, stderr=output, check=False, env=env)
    assert done.returncode == code
    calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
    assert [call for call in calls if not call.startswith("show")] == told
    assert (f"{batch.UNABLE} (exit code {code} on n1)" in log.read_text()) == (code not in {0, 1, 75, 78})


def test_without_a_log_that_counts_it_is_not_tried(tmp_path):
    (tmp_path / "scontrol").write_text(SCONTROL)
    (tmp_path / "scontrol").chmod(0o755)
    path = script(tmp_path, "true", "exit 127")
    env = {**os.environ, "CALLS": f"{tmp_path}/calls", "PATH": f"{tmp_path}:/usr/bin:/bin"}
    assert subprocess.run(["bash", path], capture_output=True, check=False, env=env).returncode == 127
    assert not (tmp_path / "calls").exists()


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


def start(tmp_path, *arguments, digest=None, **how):
    """The launcher of this work tree as a node starts it."""
    own = bundle.ensure(tmp_path / "store")
    argv = [*batch.launcher(sys.executable, own.path, digest or own.digest), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, **how)


def test_nothing_of_the_users_shell_brings_another_launcher(tmp_path):
    other = tmp_path / "launcher"
    other.mkdir()
    (other / "__init__.py").write_text("raise SystemExit('the wrong launcher')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "", "PYTHONHOME": "/nowhere"}
    done = start(tmp_path, "launcher.arbiter", "--help", cwd=tmp_path, env=environment)
    assert "wrong launcher" not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    del environment["PYTHONHOME"]
    argv = [sys.executable, "-m", "launcher.arbiter"]
    wrong = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "the wrong launcher" in wrong.stderr


WHERE = """
import importlib, os, sys
names = [name for name in ["jobs.contract", "launcher.task", "launcher.arbiter", *ENGINES]]
print({importlib.import_module(name).__file__.partition(".zip")[0] for name in names}, file=sys.stderr)
print(*(name for name in os.environ if name.startswith("PYTHON")), file=sys.stderr)
"""


def test_all_that_a_node_imports_comes_from_the_bundle(tmp_path):
    """With the editable install of this work tree in the same environment, and its finder at work."""
    (tmp_path / "where.py").write_text(WHERE.replace("ENGINES", repr(ENGINES)))
    own = bundle.ensure(tmp_path / "store")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv[1:] = sys.argv[1:]\n{batch.PROGRAM}"
    argv = [sys.executable, "-I", "-c", program, str(own.path), own.digest, "where"]
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=bare)
    assert done.stderr.splitlines() == [str({str(own.path.with_suffix(""))}), ""]


def test_submitit_finds_its_call_in_the_bundle(tmp_path):
    done = start(tmp_path, "submitit.core._submit", "--help")
    assert "Run a job" in done.stdout
    assert done.returncode == 0


def test_a_bundle_with_another_byte_is_refused_before_it_is_imported(tmp_path):
    own = bundle.ensure(tmp_path / "store")
    data = bytearray(own.path.read_bytes())
    data[len(data) // 2] ^= 1
    own.path.chmod(0o644)
    own.path.write_bytes(data)
    argv = [*batch.launcher(sys.executable, own.path, own.digest), "launcher.arbiter", "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (Exit.REFUSED, "")
    assert done.stderr.startswith(f"refused: {own.path}: ")
    assert own.digest in done.stderr
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" in done.stderr
    assert bundle.ensure(tmp_path / "store") == own
    assert bundle.is_whole(own)
    assert own.path.stat().st_mode & 0o777 == 0o444


def test_a_bundle_that_is_gone_is_named(tmp_path):
    argv = [*batch.launcher(sys.executable, tmp_path / "x.zip", "sha256:0"), "launcher.arbiter"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == Exit.UNFIT
    assert "No such file" in done.stderr


def test_the_same_code_is_the_same_bundle_and_other_code_another(tmp_path, monkeypatch):
    here = bundle.planned(tmp_path)
    for package in ("launcher", "jobs"):
        shutil.copytree(ROOT / package, tmp_path / "copy" / package)
    (tmp_path / "copy" / "launcher" / "__pycache__").mkdir(exist_ok=True)
    (tmp_path / "copy" / "launcher" / "__pycache__" / "x.pyc").touch()
    (tmp_path / "copy" / "launcher" / ".#edited").touch()
    code = (
        f"from launcher import bundle; from pathlib import Path; print(bundle.planned(Path({str(tmp_path)!r})).digest)"
    )
    argv = [sys.executable, "-P", "-c", code]
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "copy")}

    def there():
        return subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    assert there() == here.digest
    with (tmp_path / "copy" / "launcher" / "task.py").open("a") as file:
        file.write("\n")
    assert there() != here.digest


def test_the_node_loads_nothing_heavy_to_decide():
    heavy = "('submitit', 'pydantic', 'yaml', 'torch', 'numpy', 'filelock')"
    code = f"import launcher.arbiter, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([*batch.python(sys.executable), "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
