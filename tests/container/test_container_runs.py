"""A run in each container engine, on a real Slurm: signals, exit codes, limits, and that nothing of it outlives its job."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from cluster_ground import REPOSITORY, SUDO, until
from tiny_ground import Tiny

from jobs.contract import ImagePin

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
ENGINES = ("docker", "apptainer")
STEP = {"steps": 5, "seconds": 0.1}


def small_lock() -> str:
    """click as this repository's lock pins it, with its hashes."""
    return re.search(r"^click==.*?(?=^\S)", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE | re.DOTALL)[0]


@pytest.fixture(scope="module", params=ENGINES)
def tiny(request, _session_containers):
    cluster = _session_containers
    cluster.clear()
    recipes = {f"images/{name}": (REPOSITORY / "images" / name).read_text() for name in ("Dockerfile", "apptainer.def")}
    image = {"engine": request.param, "base": cluster.base}
    yield Tiny(cluster, f"runs-{request.param}", image, {**recipes, "requirements.lock": small_lock()})
    cluster.clear()


def pin(tiny, name, seed=0):
    return ImagePin(**json.loads(tiny.run(name, seed).specification.read_text())["image"])


def test_container_runs_end_with_their_own_code(tiny):
    for name, recipe in {
        "done": {},
        "crash": {"crash_at": 2},
        "kill": {"kill_at": 2},
        "refuse": {"refuse_at": 2},
    }.items():
        tiny.submit(name, {**STEP, **recipe}, gpus_per_node=0)
    for name in ("done", "crash", "kill", "refuse"):
        tiny.until_decided(name, 1)
    found = {name: [each.exit_code for each in tiny.attempts(name)] for name in ("done", "crash", "kill", "refuse")}
    assert found == {"done": [0], "crash": [1], "kill": [-9], "refuse": [78]}
    assert tiny.causes("kill") == [("crashed", "stop")]
    assert pin(tiny, "done").layer.startswith("sha256:")
    assert pin(tiny, "done").base == tiny.cluster.base
    assert tiny.cluster.leftovers(*(tiny.run(name).id for name in found)) == []


def test_container_runs_are_preempted_and_go_on(tiny):
    tiny.submit("preempted", {**STEP, "finishes_at": 2}, gpus_per_node=0, additional={"nodelist": "n2"})
    tiny.until_step("preempted", 5)
    tiny.cluster.preempt("n2")
    tiny.until_decided("preempted", 1)
    tiny.cluster.release()
    tiny.until_done("preempted")
    first, second = tiny.attempts("preempted")
    assert (first.cause, first.action, first.exit_code) == ("preempted", "requeue", 75)
    assert second.first_step == first.step


def test_container_runs_get_usr2_as_well(tiny):
    job = tiny.submit("by-hand", {**STEP, "finishes_at": 9}, gpus_per_node=0)["job"]
    tiny.until_step("by-hand", 3)
    tiny.cluster.run(["scancel", "--signal=USR2", f"{job}_0"])
    tiny.until_decided("by-hand", 1)
    assert [each.exit_code for each in tiny.attempts("by-hand")] == [75]
    assert tiny.causes("by-hand") == [("interrupted", "stop")]


def test_container_runs_lose_no_signal_that_comes_before_they_listen(tiny):
    """It falls while the container starts, or while Python does: the run saves at once and says so, or never began."""
    for number in range(3):
        name = f"early-{number}"
        job = tiny.submit(name, {**STEP, "finishes_at": 9}, gpus_per_node=0)["job"]
        until(lambda name=name: tiny.attempts(name), "the attempt is taken")
        tiny.cluster.run(["scancel", "--signal=TERM", f"{job}_0"])
        tiny.until_decided(name, 1)
        (only,) = tiny.attempts(name)
        assert only.exit_code in {75, -15}, f"{name}: {only}"


@pytest.mark.parametrize("victim", ["import hashlib, runpy", "keeper"], ids=["task", "client"])
def test_container_runs_die_with_their_task(tiny, victim):
    """SIGKILL of the task, or of the engine's client: ten seconds later nothing of the run is left on the node."""
    name = f"die-{victim.split()[-1]}"
    tiny.submit(name, {**STEP, "finishes_at": 9}, gpus_per_node=0)
    tiny.until_step(name, 3)
    marks = [tiny.run(name).id, f"seed-0/run.json {tiny.folder}", str(tiny.run(name).specification)]
    assert tiny.cluster.leftovers(*marks)
    listed = subprocess.run(["pgrep", "--full", tiny.tree(name).root.name], capture_output=True, text=True, check=False)
    shown = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in listed.stdout.split()}
    hit = [pid for pid, text in shown.items() if victim in text and "docker-init" not in text and "inner" not in text]
    assert hit, shown
    subprocess.run([*SUDO, "kill", "-KILL", *hit], check=True)
    until(lambda: tiny.cluster.leftovers(*marks) == [], f"nothing of {name} is left", 10)


def test_container_runs_have_the_memory_of_their_job_and_no_more(tiny):
    if tiny.image["engine"] == "apptainer":
        pytest.skip(
            "an Apptainer container is in its job's cgroup: Slurm's own limit acts, which this cluster does not enforce"
        )
    hog = "x = bytearray(300 << 20)\nx[::4096] = b'a' * len(x[::4096])\n"
    tiny.submit("hog", {**STEP, "code": hog}, gpus_per_node=0, memory="100M")
    tiny.until_decided("hog", 1)
    assert [each.exit_code for each in tiny.attempts("hog")] == [-9]


def test_container_runs_see_what_is_theirs(tiny):
    """GPUs of the job alone, no network, no home, no variables of the user's, a file system that cannot be written."""
    look = (
        "import os, json, socket, glob\n"
        "found = {'gpus': sorted(glob.glob(%r)), 'env': dict(os.environ),\n"
        "    'cwd': os.getcwd(), 'uid': os.getuid(), 'home': os.path.exists(%r)}\n"
        "try:\n    open('/samebits/code/x', 'w'); found['writes'] = True\nexcept OSError: found['writes'] = False\n"
        "try:\n    socket.create_connection(('127.0.0.1', %d), 2); found['network'] = True\n"
        "except OSError: found['network'] = False\n"
        "(folder['artifacts'] / 'seen.json').write_text(json.dumps(found))\n"
    )
    port = int(tiny.cluster.registry.rpartition(":")[2])
    code = look % (f"{tiny.cluster.root}/dev/nvidia*", str(tiny.cluster.home / "project"), port)
    tiny.submit("look", {**STEP, "code": code}, gpus_per_node=1, env={"MY_SECRET": "s3cret", "PYTHONPATH": "/nowhere"})
    tiny.until_done("look")
    seen = json.loads((tiny.run("look").artifacts / "seen.json").read_text())
    assert seen["cwd"] == "/samebits/code"
    assert seen["uid"] == int(tiny.cluster.run(["id", "-u"]).stdout)
    assert "MY_SECRET" not in seen["env"]
    assert seen["env"]["PYTHONPATH"] == "/samebits/code"
    assert seen["writes"] is False
    assert seen["home"] is False
    if tiny.image["engine"] == "docker":
        assert seen["network"] is False
        assert len(seen["gpus"]) == 1
