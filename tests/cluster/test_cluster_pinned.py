"""What decides about a run is pinned as well: the launcher is edited, or damaged in the store, while jobs wait."""

import pytest
from tiny_ground import Tiny

from launcher.placement import Placement

pytestmark = pytest.mark.cluster

SHORT = {"steps": 3, "seconds": 0.05}
EDITED = ("launcher/task.py", "launcher/arbiter.py", "jobs/contract.py")


@pytest.fixture(scope="module")
def module_tiny(_session_cluster):
    return Tiny(_session_cluster, "pinned")


@pytest.fixture
def tiny(module_tiny, cluster):
    return module_tiny


def waiting(tiny, name):
    """A submission that waits for a node. Returns its job and its launcher's bundle."""
    tiny.cluster.preempt("n1")
    job = tiny.submit(name, SHORT, additional={"nodelist": "n1"})["job"]
    (placement,) = tiny.tree(name).submissions.glob("*/placement.json")
    digest = Placement.read(placement).launcher
    return job, tiny.repository.parent / "store" / "launcher" / f"{digest.removeprefix('sha256:')}.zip"


def test_an_edited_launcher_does_not_reach_a_job_that_waits(tiny):
    cluster = tiny.cluster
    texts = {path: (cluster.repository / path).read_text() for path in EDITED}
    _, bundle = waiting(tiny, "edited")
    try:
        for path in EDITED:
            cluster.write(cluster.repository / path, "raise SystemExit('edited while the job waited')\n")
        broken = cluster.run(["python", "-I", "-c", "import launcher.task"], cwd=cluster.home, check=False)
        assert "edited while the job waited" in broken.stderr
        cluster.release()
        tiny.until_done("edited")
        tiny.until_decided("edited", 1)
    finally:
        for path, text in texts.items():
            cluster.write(cluster.repository / path, text)
    assert tiny.causes("edited") == [("done", "none")]
    assert bundle.stat().st_mode & 0o777 == 0o444


def test_a_damaged_launcher_in_the_store_is_refused_before_the_run_starts(tiny):
    job, bundle = waiting(tiny, "damaged")
    code = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.chmod(0o644); d = bytearray(p.read_bytes()); d[9000] ^= 1"
    tiny.cluster.run(["python", "-c", f"{code}; p.write_bytes(d)", bundle])
    tiny.cluster.release()
    assert tiny.cluster.wait(f"{job}_0", "FAILED")["ExitCode"] == "78:0"
    assert tiny.attempts("damaged") == []
    found = tiny.until_state("damaged", "failed")
    assert "it never started" in found["detail"]
    (log,) = tiny.tree("damaged").submissions.glob("*/*_0.log")
    assert f"refused: {bundle}: " in log.read_text()
    assert str(log) in tiny.launch("logs", "damaged").stdout
    tiny.submit("damaged", SHORT)
    tiny.until_done("damaged")
