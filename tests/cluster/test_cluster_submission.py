"""Submission: intent and orphans, no seed twice, refusals in Slurm's own words."""

import json

import pytest
from cluster_ground import until
from tiny_ground import Tiny, as_root

pytestmark = pytest.mark.cluster

LONG = {"steps": 100_000, "seconds": 0.1}
SHORT = {"steps": 3, "seconds": 0.05}


@pytest.fixture(scope="module")
def module_tiny(_session_cluster):
    return Tiny(_session_cluster, "submission")


@pytest.fixture
def tiny(module_tiny, cluster):
    return module_tiny


def records(tiny, name):
    return [json.loads(path.read_text()) for path in sorted(tiny.tree(name).submissions.glob("*/submission.json"))]


def in_queue(tiny, name):
    return tiny.cluster.squeue("-h", "-r", "-n", name, "-o", "%i").split()


def test_a_second_launch_leaves_alone_what_is_under_way_and_takes_the_rest(tiny):
    first = tiny.submit("twice", LONG, (0, 1), gpus_per_node=0)
    tiny.until_step("twice", 1, 0)
    again = tiny.submit("twice", LONG, (0, 1), gpus_per_node=0)
    assert (again["job"], again["already"]) == (None, [0, 1])
    tiny.cluster.run(["scancel", f"{first['job']}_1"])
    tiny.until_state("twice", "cancelled", 1)
    third = tiny.submit("twice", LONG, (0, 1), gpus_per_node=0)
    assert third["already"] == [0]
    assert records(tiny, "twice")[-1]["seeds"] == [1]
    tiny.until_step("twice", 5, 1)
    assert sorted(in_queue(tiny, "twice")) == sorted([f"{first['job']}_0", f"{third['job']}_0"])


def test_a_pending_seed_is_not_submitted_again(tiny):
    tiny.cluster.preempt("n1")
    first = tiny.submit("waits", SHORT, (0, 1), additional={"nodelist": "n1"})
    again = tiny.submit("waits", SHORT, (0, 1))
    assert again["already"] == [0, 1]
    assert sorted(in_queue(tiny, "waits")) == [f"{first['job']}_0", f"{first['job']}_1"]
    assert tiny.status("waits")[0]["state"] == "pending"


def test_a_done_seed_is_not_submitted_again(tiny):
    tiny.submit("done", SHORT)
    tiny.until_done("done")
    assert tiny.submit("done", SHORT) == {"job": None, "already": [], "said": []}
    assert len(records(tiny, "done")) == 1


def test_a_folder_that_git_cannot_read_is_refused(tiny):
    refused = Tiny(tiny.cluster, "$HOME").submit("x", SHORT)
    assert refused["error"] == 4
    assert "`$` in its path" in refused["text"]


def test_killed_before_sbatch_is_written_off(tiny):
    assert tiny.submit("before", SHORT, die="before sbatch") == {}
    assert [each["state"] for each in records(tiny, "before")] == ["intent"]
    again = tiny.submit("before", SHORT)
    assert "never reached Slurm" in again["said"][0]
    tiny.until_done("before")
    assert [each["state"] for each in records(tiny, "before")] == ["failed", "submitted"]


@pytest.mark.parametrize("where", ["before the record", "before the calls", "before the release"])
def test_killed_after_sbatch_is_found_again_and_runs(tiny, where):
    name = where.replace(" ", "-")
    assert tiny.submit(name, SHORT, (0, 1), die=where) == {}
    (job,) = {each.partition("_")[0] for each in in_queue(tiny, name)}
    state = tiny.cluster.job(f"{job}_0")
    assert state["JobState"] == "PENDING"
    assert int(state["EligibleTime"][:4]) > int(state["SubmitTime"][:4])
    again = tiny.submit(name, SHORT, (0, 1))
    assert again["job"] is None
    assert again["already"] == [0, 1]
    assert f"found again in Slurm as job {job}" in again["said"][0]
    for seed in (0, 1):
        tiny.until_done(name, seed)
    assert [(each["state"], each["job"]) for each in records(tiny, name)] == [("submitted", job)]


def test_status_finds_an_orphan_too(tiny):
    assert tiny.submit("orphan", SHORT, die="before the record") == {}
    assert "found again" in tiny.launch("status", "orphan").stdout
    tiny.until_done("orphan")


def test_an_unknown_partition_lists_those_that_exist(tiny):
    refused = tiny.submit("nowhere", SHORT, partition="gpus")
    assert refused["error"] == 7
    assert "No partition `gpus`. Did you mean gpu? There: gpu, high." in refused["text"]
    assert records(tiny, "nowhere") == []


def test_more_time_than_the_partition_gives(tiny):
    done = tiny.submit("long", SHORT, time_minutes=60 * 48)
    assert "Partition gpu gives at most 1-00:00:00 at a time: a chain of attempts, 2-00:00:00 together." in done["said"]
    assert tiny.cluster.job(f"{done['job']}_0")["TimeLimit"] == "1-00:00:00"
    tiny.until_done("long")


def test_what_can_never_start_is_said_and_what_sbatch_refuses_too(tiny):
    refused = tiny.submit("many-gpus", SHORT, gpus_per_node=9)
    assert "at most 2 GPUs a node; 9 are asked for" in refused["said"][0]
    assert refused["error"] == 7
    assert "Requested node configuration is not available" in refused["text"]
    assert [each["state"] for each in records(tiny, "many-gpus")] == ["failed"]
    assert tiny.status("many-gpus")[0]["state"] == "planned"


def test_after_a_refusal_the_same_launch_starts_clean(tiny):
    refused = tiny.submit("mended", SHORT, additional={"licenses": "none_such:1"})
    assert "Invalid license specification" in refused["text"]
    assert "sbatch: error" in refused["evidence"]
    tiny.submit("mended", SHORT)
    tiny.until_done("mended")


def test_a_partition_that_takes_no_jobs(tiny):
    as_root(tiny.cluster, "scontrol", "update", "PartitionName=high", "State=DRAIN")
    try:
        refused = tiny.submit("drained", SHORT, partition="high")
    finally:
        as_root(tiny.cluster, "scontrol", "update", "PartitionName=high", "State=UP")
    assert refused["error"] == 7
    assert "sinfo -s" in refused["text"]


def test_no_controller_is_an_error_and_leaves_nothing(tiny):
    conf = tiny.folder / "nobody-there.conf"
    text = (tiny.cluster.root / "etc" / "slurm.conf").read_text().splitlines()
    text = ["SlurmctldPort=9" if line.startswith("SlurmctldPort=") else line for line in text]
    tiny.cluster.write(conf, "\n".join([*text, "MessageTimeout=2"]).replace("MessageTimeout=30\n", ""))
    refused = tiny.submit("mute", SHORT, env={"SLURM_CONF": str(conf)})
    assert refused["error"] == 7
    assert "gives no answer" in refused["text"]
    assert records(tiny, "mute") == []


def test_the_shells_own_settings_do_not_override_the_plan(tiny):
    odd = {"SBATCH_PARTITION": "high", "SBATCH_ARRAY_INX": "0-9", "SBATCH_TIMELIMIT": "1", "SLURM_MEM_PER_CPU": "1"}
    job = tiny.submit("shell", LONG, (0, 1), env=odd, gpus_per_node=0)["job"]
    tiny.until_step("shell", 1)
    fields = tiny.cluster.job(f"{job}_0")
    assert (fields["Partition"], fields["TimeLimit"], fields["Requeue"]) == ("gpu", "00:10:00", "1")
    assert len(in_queue(tiny, "shell")) == 2


def test_an_odd_folder_reaches_the_node(tiny):
    odd = Tiny(tiny.cluster, 'it\'s an "odd" földer; & (more) #1 *?!')
    odd.submit("x", SHORT)
    odd.until_done("x")
    odd.until_decided("x", 1)
    assert odd.causes("x") == [("done", "none")]


def test_one_seed_after_the_other_where_the_throttle_says_so(tiny):
    tiny.submit("throttle", {"steps": 8, "seconds": 0.1}, (0, 1), gpus_per_node=0, array_parallelism=1)
    for seed in (0, 1):
        tiny.until_done("throttle", seed)
    first, second = (tiny.attempts("throttle", seed)[0] for seed in (0, 1))
    assert second.started > first.ended


def test_the_batch_script_fails_before_the_step(tiny):
    """The site's own lines may end it: no attempt, and status says so."""
    tiny.submit("broken-site", SHORT, setup=["exit 3"])
    found = tiny.until_state("broken-site", "failed")
    assert "never started" in found["detail"]
    until(lambda: "batch script" in tiny.launch("logs", "broken-site").stdout, "the logs name the batch script's log")
