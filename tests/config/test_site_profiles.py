"""Site profiles: which is used, what their paths become, and what is said about mistakes."""

from pathlib import Path

import pytest
from config_samples import snapshot, written

from jobs.contract import Cause
from launcher.cli.boundary import guarded
from launcher.errors import ExitCode, LaunchError
from launcher.plan import BUDGETS
from launcher.profile import OURS, PASSED_ON
from launcher.site import load_site

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_site_of_the_user(monkeypatch):
    monkeypatch.delenv("SAMEBITS_SITE", raising=False)


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "slurm" / "sites"
    folder.mkdir(parents=True)
    return tmp_path


def profile(repository, text, name="here"):
    written(repository / "slurm" / "sites", text, f"{name}.yaml")
    return load_site(name, repository)


@pytest.mark.parametrize("name", ["default", "testcluster"])
def test_shipped_profile(name):
    site = load_site(name, ROOT)
    assert site.name == name
    assert site.file == ROOT / "slurm" / "sites" / f"{name}.yaml"


def test_test_cluster_has_its_partitions():
    site = load_site("testcluster", ROOT)
    assert set(site.partitions) == {"gpu", "high"}
    assert site.partition == "gpu"


def test_a_repository_without_profiles_has_the_defaults(tmp_path):
    site = load_site(None, tmp_path)
    assert (site.name, site.file, site.partitions, site.experiments) == ("default", None, None, None)
    assert site.store == Path.home() / ".local/share/samebits"
    assert site.signal_seconds == 120
    assert site.environment == list(PASSED_ON)


def test_flag_before_variable_before_default(repository, monkeypatch):
    for name in ("default", "a", "b"):
        profile(repository, f"description: {name}\n", name)
    assert load_site(None, repository).name == "default"
    monkeypatch.setenv("SAMEBITS_SITE", "a")
    assert load_site(None, repository).name == "a"
    assert load_site("b", repository).description == "b"


def test_all_keys(repository, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    site = profile(
        repository,
        """\
description: ours
partitions: {gpu: {gpus_per_node: 4, max_time: 2-00:00:00}, cpu: {}}
partition: gpu
account: p-123
qos: long
time: 04:00:00
signal_seconds: 300
preemption: {mode: cancel, grace_seconds: 30, user_signal: true}
budgets: {preempted: 7}
environment: [HF_HOME, MY_KEY]
mounts: {$SCRATCH/data: ro, /shared: rw}
store: ${SCRATCH}/store
experiments: ~/experiments
setup: ["module load cuda/13.0", "export A='b c'"]
teardown: [sync]
exclude: n[1-2]
sbatch: {constraint: a100, nice: "100"}
""",
    )
    assert site.partitions["gpu"].gpus_per_node == 4
    assert site.preemption.mode == "cancel"
    assert site.budgets.by_cause() == {**BUDGETS, Cause.PREEMPTED: 7}
    assert site.mounts == {Path("/scratch/me/data"): "ro", Path("/shared"): "rw"}
    assert site.store == Path("/scratch/me/store")
    assert site.experiments == Path.home() / "experiments"
    assert site.setup == ["module load cuda/13.0", "export A='b c'"]
    assert site.sbatch == {"constraint": "a100", "nice": "100"}


MISTAKES = {
    "typo": ("acount: x", [":1: acount: unknown key. Did you mean `account`?"]),
    "section for a name": ("partitions: [gpu]", [":1: partitions: is a list, not a section."]),
    "typo in a partition": (
        "partitions:\n  gpu: {gpus: 4}",
        [":2: partitions.gpu.gpus: unknown key. Did you mean `gpus_per_node`?"],
    ),
    "partition of none": (
        "partitions: {gpu: {}}\npartition: gpuu",
        [":2: partition: gpuu is not among", "Did you mean gpu?"],
    ),
    "option as a name": ("account: --wrap=x", ['account: the text "--wrap=x" is not one plain word']),
    "line break in a name": ('qos: "a\\n#SBATCH -x"', ["qos: ", "is not one plain word"]),
    "odd name of a partition": ("partitions: {a b: {}}", [":1: partitions.a b: ", "is not one plain word"]),
    "line break in setup": ("setup: [a, 'b\n\n  c']", [":1: setup[1]: ", "holds a line break"]),
    "unknown mode": ("preemption: {mode: suspend}", ["preemption.mode: ", "one of requeue, cancel."]),
    "number as time": ("time: 90", [":1: time: is the number 90, not a text. Write `time: 01:30:00`."]),
    "signal after the end": (
        "time: 00:02:00\nsignal_seconds: 120",
        [":2: signal_seconds: is 120, no less than the time"],
    ),
    "negative budget": ("budgets: {preempted: -1}", ["budgets.preempted: is -1; it must be at least 0."]),
    "variable that is not set": (
        "store: $NOT_SET_AT_ALL/x",
        [":1: store: ", "names $NOT_SET_AT_ALL, which is not set"],
    ),
    "relative store": ("store: cache", [":1: store: ", "must be an absolute path"]),
    "number as a path": ("experiments: 3", [":1: experiments: must be the path of a folder"]),
    "relative mount": ("mounts: {data: ro}", [":1: mounts.data: ", "must be an absolute path"]),
    "mode of a mount": ("mounts: {/data: rx}", [":1: mounts./data: ", "one of ro, rw."]),
    "value of a variable": ("environment: [A=b]", ["environment[0]: ", "is not the name of a variable"]),
    "variable of python": ("environment: [PYTHONPATH]", ["environment[0]: ", "may not be passed on"]),
    "parameter of ours": ("sbatch: {mem: 4G}", [":1: sbatch.mem: is not the site's to set. It is cluster.memory"]),
    "parameter of ours, spelt otherwise": ("sbatch: {job-name: x}", ["sbatch.job-name: is not the site's to set."]),
    "number for a parameter": (
        "sbatch: {nice: 100}",
        ['sbatch.nice: is the number 100, not a text. Write "100" in quotes.'],
    ),
    "name inside": ("name: here", [":1: name: unknown key."]),
    "equal keys": ("qos: a\nqos: b", [":2: qos: given twice; first on line 1."]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_in_a_profile(name, repository, monkeypatch, capsys):
    text, fragments = MISTAKES[name]
    monkeypatch.chdir(repository)
    written(repository / "slurm" / "sites", text, "here.yaml")
    before = snapshot(repository)
    assert guarded(lambda: load_site("here", repository), []) == ExitCode.CONFIG
    said = capsys.readouterr().err
    assert said.startswith("slurm/sites/here.yaml:")
    for fragment in fragments:
        assert fragment in said
    assert "Traceback" not in said
    assert snapshot(repository) == before


OFFER = (
    "partitions: {gpu: {gpus_per_node: 1, max_time: 04:00:00}, cpu: {gpus_per_node: 0}, any: {}}\nsignal_seconds: 60\n"
)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("gpu", 1, 240), []),
        (("any", 8, 100_000), []),
        (("cpu", 0, 2), []),
        (("gpuu", 1, 60), ["The site has no partition `gpuu`. Did you mean gpu? There: gpu, cpu, any."]),
        (("cpu", 1, 60), ["Partition cpu has 0 GPUs per node; the config asks for 1."]),
        (("gpu", 2, 241), ["Partition gpu has 1 GPUs per node"]),
        (("gpu", 1, 1), ["The time limit of 1 min leaves nothing before the signal, 60 s ahead of it."]),
        (("zzz", 1, 1), ["leaves nothing before the signal", "The site has no partition `zzz`."]),
    ],
)
def test_what_a_partition_cannot_take_is_refused(asked, said, repository):
    refusals = profile(repository, OFFER).refusals(*asked)
    assert len(refusals) == len(said)
    for problem, fragment in zip(refusals, said, strict=True):
        said_in_one_line = " ".join(str(problem).split())  # the hint has a line of its own where the place is long
        assert fragment in said_in_one_line


def test_how_long_an_attempt_may_be_is_said_where_the_profile_says_it(repository):
    site = profile(repository, OFFER)
    assert [site.longest(name) for name in ("gpu", "cpu", "zzz")] == [240, None, None]


def test_without_partitions_only_the_signal_is_checked(tmp_path):
    site = load_site(None, tmp_path)
    assert site.refusals("whatever", 99, 100_000) == []
    assert "120 s" in str(site.refusals("whatever", 0, 2)[0])


def test_an_empty_profile_is_refused_with_the_reason(repository):
    with pytest.raises(LaunchError, match="the file is empty"):
        profile(repository, "")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hree", "No site `hree`. Did you mean here? There: here."),
        ("zzz", "No site `zzz`. There: here."),
        ("../here", "No site `../here`."),
        ("", None),
    ],
)
def test_unknown_site(name, said, repository):
    profile(repository, "description: x\n")
    if said is None:
        assert load_site(name, repository).name == "default"
        return
    with pytest.raises(LaunchError) as caught:
        load_site(name, repository)
    assert caught.value.code == ExitCode.CLUSTER
    assert said in str(caught.value)


def test_unknown_site_of_the_variable_is_said_to_come_from_it(repository, monkeypatch):
    monkeypatch.setenv("SAMEBITS_SITE", "nowhere")
    with pytest.raises(LaunchError, match=r"No site `nowhere` \(from \$SAMEBITS_SITE\)"):
        load_site(None, repository)


def test_every_parameter_of_ours_is_refused(repository):
    for key in OURS:
        with pytest.raises(LaunchError, match="is not the site's to set"):
            profile(repository, f"sbatch: {{{key}: x}}")
