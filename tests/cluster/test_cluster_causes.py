"""Each cause from a real run: all of them at once on one cluster, then one look at each."""

from dataclasses import dataclass

import pytest
from cluster_ground import GRACE, Cluster, until
from tiny_ground import Tiny, as_root

pytestmark = pytest.mark.cluster

STEPS = 5
STEP = {"seconds": 0.1}


@dataclass(frozen=True)
class Scene:
    cluster: Cluster
    tiny: Tiny
    jobs: dict[str, str]


@pytest.fixture(scope="module")
def scene(_session_cluster):
    """A cluster after this: a sweep preempted twice on n1-n3; meanwhile, on n4, two runs that meet their time limit."""
    cluster = _session_cluster
    cluster.clear()
    tiny = Tiny(cluster, "causes")
    jobs = {}

    def submit(name, recipe=None, seeds=(0,), **slurm):
        node = slurm.pop("node", None)
        slurm = {"gpus_per_node": 0, **({"additional": {"nodelist": node}} if node else {}), **slurm}
        jobs[name] = tiny.submit(name, {"steps": STEPS, **STEP, "finishes_at": 99, **(recipe or {})}, seeds, **slurm)[
            "job"
        ]

    submit("limit-near", {"finishes_at": 2}, node="n4", time_minutes=1)
    submit("limit-hit", {"finishes_at": 2, "only_term": True}, node="n4", time_minutes=1, signal_seconds=1)
    submit("sweep", {"finishes_at": 3}, (0, 1, 2), gpus_per_node=2, exclude="n4", cpus_per_task=2)
    for number in (1, 2):
        for seed in (0, 1, 2):
            until(lambda seed=seed: len(tiny.attempts("sweep", seed)) == number, f"attempt {number} of seed {seed}")  # noqa: B023
            tiny.until_step("sweep", 5 * number, seed)
        cluster.preempt("n[1-3]")
        for seed in (0, 1, 2):
            tiny.until_decided("sweep", number, seed)
        cluster.release()
    for seed in (0, 1, 2):
        tiny.until_done("sweep", seed)

    submit("requeued", {"finishes_at": 2}, node="n1")
    submit("cancelled", node="n1")
    submit("by-hand", node="n2")
    submit("crash", {"crash_at": 3}, node="n2")
    submit("kill", {"kill_at": 3}, node="n2")
    submit("refuse", {"refuse_at": 3}, node="n2")
    gate = tiny.folder / "cancelled"
    submit("cancelled-in-grace", {"saving_until": str(gate)}, node="n3")
    for name in ("requeued", "cancelled", "by-hand", "cancelled-in-grace"):
        tiny.until_step(name, 3)
    cluster.scontrol("requeue", f"{jobs['requeued']}_0")
    cluster.run(["scancel", f"{jobs['cancelled']}_0"])
    cluster.run(["scancel", "--signal=USR2", f"{jobs['by-hand']}_0"])
    taker = cluster.run(
        ["sbatch", "--parsable", "-p", "high", "-w", "n3", "--exclusive", "--wrap", "sleep 1"], cwd=cluster.home
    )
    until(lambda: any(each.signal for each in tiny.attempts("cancelled-in-grace")), "the signal of the preemption")
    cluster.run(["scancel", f"{jobs['cancelled-in-grace']}_0"])
    cluster.write(gate, "")
    for name in ("cancelled", "by-hand", "crash", "kill", "refuse", "cancelled-in-grace"):
        tiny.until_decided(name, 1)
    cluster.wait(taker.stdout.strip(), "COMPLETED")

    as_root(cluster, "scontrol", "update", "PartitionName=gpu", "GraceTime=0")
    try:
        submit("no-grace", {"finishes_at": 2}, node="n3")
        tiny.until_step("no-grace", 3)
        cluster.preempt("n3")
        tiny.until_decided("no-grace", 1)
    finally:
        as_root(cluster, "scontrol", "update", "PartitionName=gpu", f"GraceTime={GRACE}")
    cluster.release()
    for name in ("requeued", "no-grace"):
        tiny.until_done(name)
    for name in ("limit-near", "limit-hit"):
        tiny.until_done(name, seconds=300)
    yield Scene(cluster, tiny, jobs)
    cluster.clear()


def restarts(scene, name):
    return int(scene.cluster.job(f"{scene.jobs[name]}_0")["Restarts"])


def test_three_seeds_are_one_array_on_three_nodes(scene):
    first = [scene.tiny.attempts("sweep", seed)[0] for seed in (0, 1, 2)]
    assert {record.node for record in first} == {"n1", "n2", "n3"}
    assert {record.job for record in first} == {f"{scene.jobs['sweep']}_{task}" for task in (0, 1, 2)}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_preempted_twice_in_a_row_and_done(scene, seed):
    found = scene.tiny.attempts("sweep", seed)
    assert [(r.cause, r.action) for r in found] == [
        ("preempted", "requeue"),
        ("preempted", "requeue"),
        ("done", "none"),
    ]
    assert [r.restart for r in found] == [0, 1, 2]
    assert [r.exit_code for r in found] == [75, 75, 0]
    assert [r.first_step for r in found] == [0, found[0].step, found[1].step]
    assert scene.tiny.step("sweep", seed) == found[1].step + STEPS
    logs = [scene.tiny.run("sweep", seed).attempt_log(number).read_text() for number in (1, 2, 3)]
    assert "goes on from step 0" in logs[0]
    assert f"done at step {found[1].step + STEPS}" in logs[2]


def test_one_end_never_becomes_two_restarts(scene):
    assert restarts(scene, "sweep") == 2
    assert restarts(scene, "requeued") == 1
    assert restarts(scene, "no-grace") == 1


def test_the_evidence_is_kept(scene):
    evidence = scene.tiny.attempts("sweep")[0].evidence
    assert evidence["JobState"] == "RUNNING"
    assert evidence["PreemptTime"] is not None
    assert evidence["Restarts"] == evidence["restart"] == 0


def test_preempted_without_grace_slurm_requeues_by_itself(scene):
    until(lambda: scene.tiny.causes("no-grace")[0][0] != "requeued", "accounting names the end of the first attempt")
    assert scene.tiny.causes("no-grace") == [("preempted", "none"), ("done", "none")]
    assert scene.tiny.attempts("no-grace")[0].evidence["accounting"] == "PREEMPTED"


def test_requeued_by_someone_is_left_to_slurm(scene):
    until(
        lambda: "accounting" in scene.tiny.attempts("requeued")[0].evidence,
        "accounting names the end of the first attempt",
    )
    assert scene.tiny.causes("requeued") == [("requeued", "none"), ("done", "none")]


def test_signalled_before_the_time_limit_goes_on(scene):
    found = scene.tiny.attempts("limit-near")
    assert [(r.cause, r.action) for r in found] == [("time limit", "requeue"), ("done", "none")]
    assert (found[0].signal, found[0].evidence["JobState"]) == ("SIGUSR2", "RUNNING")
    assert scene.tiny.step("limit-near") == found[0].step + STEPS


def test_the_time_limit_itself_goes_on(scene):
    found = scene.tiny.attempts("limit-hit")
    assert [(r.cause, r.action) for r in found] == [("time limit", "requeue"), ("done", "none")]
    assert (found[0].signal, found[0].evidence["Reason"]) == ("SIGUSR2", "TimeLimit")


@pytest.mark.parametrize("name", ["cancelled", "cancelled-in-grace"])
def test_cancelled_is_dead_for_good(scene, name):
    assert scene.tiny.causes(name) == [("cancelled", "stop")]
    job = scene.cluster.job(f"{scene.jobs[name]}_0")
    assert (job["JobState"], job["Restarts"]) == ("CANCELLED", "0")
    assert scene.tiny.status(name)[0]["state"] == "cancelled"


def test_cancelled_within_the_grace_had_been_preempted_first(scene):
    """Without the scancel it would have been requeued: PreemptTime was set."""
    (record,) = scene.tiny.attempts("cancelled-in-grace")
    assert record.evidence["PreemptTime"] is not None


@pytest.mark.parametrize(
    ("name", "cause", "code"),
    [("crash", "crashed", 1), ("kill", "crashed", -9), ("refuse", "refused", 78), ("by-hand", "interrupted", 75)],
)
def test_what_ends_by_itself_is_not_requeued(scene, name, cause, code):
    (record,) = scene.tiny.attempts(name)
    assert (record.cause, record.action, record.exit_code) == (cause, "stop", code)
    assert restarts(scene, name) == 0
    assert scene.cluster.job(f"{scene.jobs[name]}_0")["JobState"] == "FAILED"


def test_slurms_own_state_tells_the_truth(scene):
    assert scene.cluster.job(f"{scene.jobs['sweep']}_0")["JobState"] == "COMPLETED"


def test_the_jobs_log_says_it_in_a_line_for_each_attempt(scene):
    job = f"{scene.jobs['sweep']}_1"
    (folder,) = scene.tiny.tree("sweep").submissions.glob("2*")
    lines = [line for line in (folder / f"{job}.log").read_text().splitlines() if line.startswith("samebits: ")]
    assert [line.split(": ")[2] for line in lines] == ["preempted", "preempted", "done"]


def test_status_counts_attempts_and_names_the_seeds_of_a_number(scene):
    text = scene.tiny.launch("status", "sweep").stdout
    assert "3: preempted, preempted, done" in text
    assert "3 seeds: 3 done" in text
    assert "mean of 3 done of 3 seeds (0, 1, 2)" in text
    assert "preempted 6 times" in text


def test_a_failure_is_shown_with_the_last_line_of_its_log(scene):
    text = scene.tiny.launch("status", "crash").stdout
    assert "crashed (exit code 1)" in text
    assert "RuntimeError: crashed as it was told to" in text
    assert "attempt-1.log" in text


def test_logs_show_all_attempts_in_order(scene):
    text = scene.tiny.launch("logs", "sweep", "--seed", "0").stdout
    heads = [line for line in text.splitlines() if line.startswith("==")]
    assert [head.split("attempt ")[1][0] for head in heads] == ["1", "2", "3"]
    assert text.index("saved at step") < text.index("done at step")


def test_cancel_of_what_has_ended_says_so(scene):
    done = scene.tiny.launch("cancel", "sweep")
    assert done.returncode == 0
    assert "Nothing of sweep is active." in done.stdout
