"""Several nodes and ranks on a real Slurm: two nodes with two ranks each, preempted, to the same bits; and every other end."""

import hashlib
import json
import os
import random
import re

import pytest
from cluster_ground import until
from project import CONFIG, ROWS
from same_bits import assert_same_run

from jobs.rundir import Tree

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

SITE = "slurm/sites/testcluster.yaml"
QUICKSTART = "configs/quickstart.yaml"
TIMES = int(os.environ.get("RANKS_PREEMPTIONS", "1"))
SEED = int(os.environ.get("RANKS_SEED", "1"))
"""`RANKS_PREEMPTIONS=3 RANKS_SEED=7 pytest tests/cluster/test_cluster_ranks.py -k bits` strikes three times, at other steps."""
JOB = """
import json, os, pathlib, signal, sys, time

path = pathlib.Path(sys.argv[1]).absolute()
root, seed = path.parents[2], path.parent.name
node, nodes = int(os.environ.get("SAMEBITS_NODE", "0")), int(os.environ.get("SAMEBITS_NODES", "1"))
artifacts = root / "artifacts" / seed
attempt = os.environ["SAMEBITS_ATTEMPT"]
got = []
for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
    signal.signal(number, lambda number, frame: got.append(number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
said = {"attempt": attempt, "node": node, "nodes": nodes, "address": os.environ.get("SAMEBITS_ADDRESS"), "pid": os.getpid()}
said["name"] = os.environ.get("SLURMD_NODENAME")
(artifacts / f"here-{attempt}-{node}.json").write_text(json.dumps(said))
print(f"node {node} of {nodes}", flush=True)
orders = json.loads((root.parent.parent / "orders.json").read_text())
if orders.get("unfit") and (node, attempt) == (1, "1"):
    sys.exit(79)
while not got and not (artifacts / "go").exists():
    time.sleep(0.05)
if got:
    sys.exit(75)
if node == 0:
    (artifacts / "done.json").write_text("{}")
"""


def events(run, name):
    if not run.events.exists():
        return []
    return [line for line in map(json.loads, run.events.read_text().splitlines()) if line["event"] == name]


@pytest.fixture
def two(cluster, request):
    """A user's project whose job runs on two nodes; its one run, and how to launch it."""
    config = CONFIG.replace("HASH", hashlib.sha256(ROWS.encode()).hexdigest()).replace("[0, 1]", "[0]")
    config = config.replace("training:\n", "training:\n  accumulation: 2\n  parallel: {ranks: 2}\n")
    name = f"two-{re.sub('[^a-z]', '-', request.node.name)}"
    folder = cluster.project(
        name,
        {
            "configs/x.yaml": config + "cluster: {nodes: 2}\n",
            "data/rows.jsonl": ROWS,
            **{path: (cluster.repository / path).read_text() for path in ("requirements.lock", SITE)},
            "jobs/__init__.py": "",
            "jobs/__main__.py": JOB,
            "orders.json": "{}",
            ".gitignore": "/experiments/\n",
        },
    )
    return cluster, folder, Tree(folder / "experiments" / "tiny").run(0)


def launch(two):
    cluster, folder, run = two
    cluster.run(["launch", "configs/x.yaml", "--partition", "gpu"], cwd=folder)
    return json.loads(run.submission.read_text())["job"]


def there(run, attempt):
    """What the job says on both nodes, once it runs on them."""
    paths = [run.artifacts / f"here-{attempt}-{node}.json" for node in range(2)]
    until(lambda: all(path.exists() and path.read_text() for path in paths), f"attempt {attempt} runs on both nodes")
    return [json.loads(path.read_text()) for path in paths]


def test_two_nodes_are_one_attempt(two):
    """Each knows who it is; one takes the attempt; preempted and back, then done: one word of each kind."""
    cluster, _, run = two
    job = launch(two)
    first, second = there(run, 1)
    assert (first["node"], second["node"], first["nodes"], second["nodes"]) == (0, 1, 2, 2)
    assert first["name"] != second["name"]
    assert first["address"] == second["address"] == "127.0.0.1"
    status = cluster.run(["launch", "status", "tiny"], cwd=two[1]).stdout
    assert re.search(r"1: running +n\[\d[-,]\d\] ", status), status
    cluster.preempt("all")
    until(lambda: events(run, "decided"), "the preemption is decided")
    cluster.release()
    there(run, 2)
    cluster.write(run.artifacts / "go", "")
    cluster.wait(job, "COMPLETED")
    assert run.attempts() == [1, 2]
    assert [line["exit_code"] for line in events(run, "ended")] == [75, 0]
    assert [set(line["nodes"].values()) for line in events(run, "ended")] == [{75}, {0}]
    assert [(line["cause"], line["attempt"]) for line in events(run, "decided")] == [("preempted", 1), ("done", 2)]
    assert "node 1 of 2" in (run.logs / "attempt-1.node-1.log").read_text()
    assert "node 1" not in run.attempt_log(1).read_text()


def test_a_run_that_dies_on_one_node_ends_on_the_other(two):
    """Its process is killed there: the first node's is asked to stop, and the attempt ends as the one that was killed."""
    cluster, _, run = two
    job = launch(two)
    cluster.run(["kill", "-KILL", str(there(run, 1)[1]["pid"])])
    cluster.wait(job, "FAILED")
    (ended,), (decided,) = events(run, "ended"), events(run, "decided")
    assert ended["exit_code"] == -9
    assert sorted(ended["nodes"].values()) == [-9, 75]
    assert (decided["cause"], decided["action"]) == ("crashed", "stop")


def test_a_task_that_dies_on_one_node_ends_the_job(two):
    """The launcher's own task is killed on the second node, and can say nothing: Slurm ends the step."""
    cluster, _, run = two
    job = launch(two)
    pid = there(run, 1)[1]["pid"]
    parent = cluster.run(["ps", "-o", "ppid=", "-p", str(pid)]).stdout.strip()
    cluster.run(["kill", "-KILL", parent])
    cluster.wait(job, "FAILED")
    (decided,) = events(run, "decided")
    assert (decided["cause"], decided["action"]) == ("crashed", "stop")
    until(lambda: not cluster.run(["ps", "-o", "pid=", "-p", str(pid)], check=False).stdout.strip(), "nothing is left")


def test_the_node_that_a_run_does_not_suit_is_left_out(two):
    """It is the second one that refuses: not the first, on which the arbiter decides."""
    cluster, folder, run = two
    cluster.write(folder / "orders.json", json.dumps({"unfit": True}))
    cluster.commit(folder, "its second node does not suit it")
    job = launch(two)
    refused = there(run, 1)[1]["name"]
    assert refused not in {each["name"] for each in there(run, 2)}
    cluster.write(run.artifacts / "go", "")
    cluster.wait(job, "COMPLETED")
    decided = events(run, "decided")
    assert [line["cause"] for line in decided] == ["unfit node", "done"]
    assert decided[0]["evidence"]["exclude"] == [refused]


def test_cancelled_on_both_nodes_stays_dead(two):
    cluster, folder, run = two
    job = launch(two)
    pids = [each["pid"] for each in there(run, 1)]
    cluster.run(["launch", "cancel", "tiny"], cwd=folder)
    until(lambda: not cluster.squeue("-h", "-j", job).strip(), "the job is gone")
    assert [line["cause"] for line in events(run, "decided")] == ["cancelled"]
    assert not [pid for pid in pids if cluster.run(["ps", "-o", "pid=", "-p", str(pid)], check=False).stdout.strip()]


def test_two_nodes_with_two_ranks_each_keep_their_bits(cluster):
    """The real job, preempted at a random step: weights, optimizer, ledger and metrics of a run that was not."""
    text = (cluster.repository / QUICKSTART).read_text()
    text = (
        text.replace("[0, 1, 2]", "[0]")
        .replace("epochs: 5", "epochs: 1")
        .replace("every_steps: 100", "every_steps: 20")
    )
    text = text.replace("batch_size: 32\n", "batch_size: 8\n  accumulation: 4\n  parallel: {ranks: 4}\n")
    text = text.replace("nodes: 1", "nodes: 2").replace("cpus: 1", "cpus: 2")
    for name in ("calm", "struck"):
        path = cluster.repository / "configs" / f"ranks-{name}.yaml"
        cluster.write(path, text.replace("name: quickstart", "name: ranks", 1))
    cluster.commit(cluster.repository, "ranks")
    calm = cluster.home / "calm-ranks"
    cluster.run(["launch", "configs/ranks-calm.yaml", "--local", "--experiments", calm], timeout=600)
    cluster.run(["launch", "configs/ranks-struck.yaml", "--partition", "gpu"])
    run, draw = Tree(cluster.repository / "experiments" / "ranks").run(0), random.Random(SEED)
    steps = len(Tree(calm / "ranks").run(0).ledger.read_text().splitlines())
    struck = sorted(draw.sample(range(2, steps - 20), TIMES))
    print(f"seed {SEED}: of {steps} steps, preempted from step {struck} on")
    for number, at in enumerate(struck, start=1):
        until(lambda at=at: run.ledger.exists() and len(run.ledger.read_text().splitlines()) >= at, f"step {at}", 300)
        cluster.preempt("all")
        until(lambda n=number: len(events(run, "decided")) == n, "it is decided")
        cluster.release()
    until(run.done.exists, "it is done", 600)
    assert [line["lost_steps"] for line in events(run, "resumed")] == [0] * (TIMES + 1)
    assert_same_run(Tree(calm / "ranks").run(0), run)
    attempts = json.loads(run.provenance.read_text())["attempts"]
    assert all(len({each["node"] for each in attempt["ranks"]}) == 2 for attempt in attempts)
