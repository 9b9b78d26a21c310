"""The batch script as it would be submitted, and what reaches sbatch beside it."""

import shlex
import subprocess

import pytest

from launcher import bundle, request, walltime
from launcher.errors import LaunchError
from launcher.record import Submission, submissions
from launcher.submit import ArrayExecutor, parameters, placement, script


def options(text):
    """The #SBATCH lines, as sbatch reads them."""
    lines = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]
    pairs = (shlex.split(line)[0].removeprefix("--").partition("=") for line in lines)
    return {name: value for name, _, value in pairs}


def srun(text):
    return shlex.split(next(line for line in text.splitlines() if line.startswith("srun ")))


def test_nothing_is_left_to_submitits_defaults(make_plan):
    found = options(script(make_plan()))
    folder = str(make_plan().tree / "logs" / "submissions" / "SUBMISSION")
    assert found == {
        "array": "0-2%2",
        "begin": "now+365days",
        "chdir": folder,
        "comment": "samebits:SUBMISSION",
        "cpus-per-task": "2",
        "export": "ALL",
        "job-name": "tiny",
        "mem": "1G",
        "nodes": "1",
        "ntasks-per-node": "1",
        "open-mode": "append",
        "output": f"{folder}/%A_%a.log",
        "partition": "gpu",
        "requeue": "",
        "signal": "USR2@60",
        "time": "90",
    }


def test_the_site_and_the_flags_are_in_it(make_plan):
    plan = make_plan(
        account="a", qos="q", gpus_per_node=1, exclude="n[1-2]", additional={"constraint": "a100", "exclusive": ""}
    )
    found = options(script(plan))
    assert {
        "account": "a",
        "qos": "q",
        "gpus-per-node": "1",
        "exclude": "n[1-2]",
        "constraint": "a100",
    }.items() <= found.items()
    assert found["exclusive"] == ""


def test_one_seed_is_an_array_too(make_plan):
    assert options(script(make_plan(seeds=(7,))))["array"] == "0-0%1"


def test_the_step_appends_and_gets_its_cpus(make_plan):
    step = srun(script(make_plan()))
    assert {"--open-mode=append", "--cpus-per-task=2"} <= set(step)
    assert [word for word in step if "output" in word][-1].endswith("/%A_%a.log")


@pytest.mark.parametrize("name", ["a b", "it's", 'say "x"', "$HOME", "`id`", "ü", "a;b", "-x"])
def test_a_nasty_folder_is_one_word_everywhere(make_plan, tmp_path, name):
    text = script(make_plan(root=tmp_path / name))
    assert options(text)["chdir"].startswith(str(tmp_path / name))
    assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False).stderr == ""
    arbiter = shlex.split(next(line for line in text.splitlines() if "launcher.arbiter" in line))
    assert str(tmp_path / name) in arbiter[arbiter.index("--placement") + 1]


def test_showing_it_touches_no_file(make_plan, tmp_path):
    script(make_plan())
    assert list(tmp_path.iterdir()) == []


def test_what_is_shown_is_what_is_submitted(make_plan):
    """Same executor, same parameters; only the submission's id differs."""
    plan = make_plan()
    folder = plan.tree / "logs" / "submissions" / "20260131-120000-1a2b"
    real = ArrayExecutor(folder, plan.slurm, 3, bundle.planned(plan.store), print).script()
    assert real == script(plan).replace("SUBMISSION", "20260131-120000-1a2b")


def test_the_users_shell_does_not_override_the_plan(make_plan):
    plan = make_plan(account="a")
    environment = dict.fromkeys(
        ("SBATCH_PARTITION", "SBATCH_ACCOUNT", "SBATCH_QOS", "SLURM_CONF", "SLURM_MEM_PER_CPU", "HOME"), "x"
    )
    own = bundle.planned(plan.store)
    given = parameters(plan.tree, plan.slurm, own)
    assert request.unset(environment, given) == [
        "-u",
        "SBATCH_ACCOUNT",
        "-u",
        "SBATCH_PARTITION",
        "-u",
        "SLURM_MEM_PER_CPU",
    ]
    assert "SBATCH_ACCOUNT" not in request.unset(environment, parameters(plan.tree, make_plan().slurm, own))


def test_slurm_is_handed_what_a_job_needs_and_no_other_variable(make_plan):
    """It writes the environment of sbatch down."""
    plan = make_plan()
    given = parameters(plan.tree, plan.slurm, bundle.planned(plan.store))
    needed = ("PATH", "HOME", "MODULEPATH", "LMOD_DIR", "BASH_FUNC_module%%", "LC_ALL", "SLURM_CONF", "DOCKER_HOST")
    keys = ("AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "HF_TOKEN", "SLURM_JWT", "APPTAINER_DOCKER_PASSWORD", "PROJECT")
    environment = dict.fromkeys((*needed, *keys), "x")
    assert set(request.unset(environment, given)) - {"-u"} == set(keys)
    assert set(request.unset(environment, given, ("HF_TOKEN",))) - {"-u"} == set(keys) - {"HF_TOKEN"}
    site = {**given, "setup": [*given["setup"], "module load $PROJECT/cuda"], "teardown": ["rm -r ${WANDB_API_KEY}"]}
    assert set(request.unset(environment, site)) - {"-u"} == set(keys) - {"PROJECT", "WANDB_API_KEY"}


def test_a_plan_with_nothing_to_do_has_no_script(make_plan):
    assert script(make_plan(seeds=())) == ""


@pytest.mark.parametrize("name", ["a%A", "a\\b", "a\nb"])
def test_a_path_that_slurm_would_rewrite_is_refused(make_plan, tmp_path, name):
    plan = make_plan(root=tmp_path / name)
    with pytest.raises(LaunchError, match="cannot write a log"):
        request.check(plan.slurm, plan.tree)


@pytest.fixture
def sinfo(tmp_path, monkeypatch):
    """Two partitions: one gives a day, the other two hours."""
    program = tmp_path / "bin" / "sinfo"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'gpu|up|1-00:00:00|4|8|gpu:2'; echo 'short|up|2:00:00|4|8|gpu:2'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))


def test_more_time_than_a_partition_gives_is_a_chain_of_attempts(make_plan, sinfo):
    asked = make_plan(time_minutes=3 * 24 * 60).slurm
    found, notes = request.check(asked, make_plan().tree)
    assert (found.time_minutes, found.total_minutes) == (24 * 60, 3 * 24 * 60)
    assert notes == ["Partition gpu gives at most 1-00:00:00 at a time: a chain of attempts, 3-00:00:00 together."]
    own = bundle.planned(make_plan().store)
    made = placement(make_plan(), found, "id", own)
    assert (made.time_minutes, made.total_minutes) == (24 * 60, 3 * 24 * 60)
    assert parameters(make_plan().tree, found, own)["time"] == 24 * 60


def test_the_shortest_of_several_partitions_counts_and_the_total_stays(make_plan, sinfo):
    shortened = make_plan(partition="gpu,short", time_minutes=1000).slurm.within(600)
    found, _ = request.check(shortened, make_plan().tree)
    assert (found.time_minutes, found.total_minutes) == (120, 1000)


def test_what_a_partition_gives_is_no_chain(make_plan, sinfo):
    asked = make_plan(time_minutes=24 * 60).slurm
    assert request.check(asked, make_plan().tree) == (asked, [])


def test_a_partition_with_no_time_before_the_signal_is_refused(make_plan, sinfo):
    asked = make_plan(partition="short", time_minutes=600, signal_seconds=7200).slurm
    with pytest.raises(LaunchError, match="the signal to save comes 7200 s ahead"):
        request.check(asked, make_plan().tree)


def test_without_slurm_the_next_command_is_named(make_plan, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    plan = make_plan()
    with pytest.raises(LaunchError) as caught:
        request.check(plan.slurm, plan.tree)
    assert "`sinfo` is not on PATH" in str(caught.value)
    assert "without --partition" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (
            "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
            "sacctmgr",
        ),
        (
            "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Job violates accounting/QOS policy",
            "squeue",
        ),
        (
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
            "scontrol ping",
        ),
        ("sbatch: error: something new", "sinfo -s"),
        ("", "sinfo -s"),
    ],
)
def test_a_refusal_keeps_slurms_words_and_names_the_next_command(make_plan, words, hint):
    problem = request.refusal(words, make_plan().slurm)
    assert hint in problem.hint
    assert "sbatch:" not in problem.what
    if words:
        assert (
            words.splitlines()[-1].removeprefix("sbatch: error: ").removeprefix("Batch job submission failed: ")
            in problem.what
        )


def test_a_minute_count_reads_as_time():
    assert [walltime.spelled(minutes) for minutes in (1, 90, 1440 * 2 + 61)] == ["00:01:00", "01:30:00", "2-01:01:00"]


def test_an_older_submission_does_not_take_a_seed_back(make_plan):
    from jobs.rundir import Tree
    from launcher.runstate import Record

    tree = Tree(make_plan().tree)
    new, old = (
        Submission(name, "slurm", "intent", (0, 1), None, None, "gpu", "here", 1, "2026-01-31T12:00:00Z")
        for name in ("b", "a")
    )
    new.write(tree)
    old.with_state("failed").write(tree)
    assert Record.read(tree.run(1)).id == "b"
    assert [(each.id, each.state) for each in submissions(tree)] == [("a", "failed"), ("b", "intent")]
