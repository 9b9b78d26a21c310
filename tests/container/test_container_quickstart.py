"""The main job in each engine, on a real Slurm, preempted once: to the bits of a calm run of the host engine."""

import json
import re

import pytest
from cluster_ground import until
from container_ground import Containers
from same_bits import assert_same_run

from jobs.contract import ImagePin
from jobs.files import read_lines
from jobs.provenance import digests
from jobs.rundir import RunDir, Tree

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

SEEDS = (0, 1, 2)
ENGINES = ("docker", "apptainer")


def steps(run: RunDir) -> int:
    return len(run.ledger.read_text().splitlines()) if run.ledger.exists() else 0


def events(run: RunDir, name: str) -> list[dict]:
    return [line for line in read_lines(run.events) if line["event"] == name]


@pytest.fixture(scope="module")
def project(_session_containers: Containers):
    """The user's clone with the quickstart once per engine: the same in all but the image."""
    cluster = _session_containers
    base = (cluster.root / "base").read_text().strip()
    text = (cluster.repository / "configs" / "quickstart.yaml").read_text()
    for engine in ENGINES:
        image = f"image:\n  engine: {engine}\n  base: {base}\n  lock: requirements.lock\n"
        made, count = re.subn(r"^image:\n(?:  .*\n)+", image, text, flags=re.MULTILINE)
        assert count == 1
        made = made.replace("name: quickstart", f"name: quickstart-{engine}", 1)
        cluster.write(cluster.repository / "configs" / f"quickstart-{engine}.yaml", made)
    cluster.commit(cluster.repository, "The quickstart in containers")
    return cluster


@pytest.fixture(scope="module")
def calm(project: Containers) -> Tree:
    folder = project.home / "calm-containers"
    project.run(["launch", "configs/quickstart.yaml", "--local", "--experiments", folder], timeout=600)
    return Tree(folder / "quickstart")


@pytest.mark.parametrize("engine", ENGINES)
def test_preempted_once_it_has_the_bits_of_the_host_engine(project: Containers, calm: Tree, engine: str) -> None:
    project.clear()
    name = f"quickstart-{engine}"
    said = project.run(["launch", f"configs/{name}.yaml", "--partition", "gpu"], timeout=1000).stdout
    tree = Tree(project.repository / "experiments" / name)
    runs = [tree.run(seed) for seed in SEEDS]
    assert "seeds 0, 1, 2" in said

    until(lambda: all(steps(run) > 20 for run in runs), "all three seeds train", 240)
    project.preempt("all")
    until(lambda: all(len(events(run, "saved")) == 1 for run in runs), "all have saved", 90)
    reached = [events(run, "saved")[-1]["step"] for run in runs]
    project.release()
    until(lambda: all(len(events(run, "resumed")) == 2 for run in runs), "all are back", 180)
    assert [events(run, "resumed")[-1]["step"] for run in runs] == reached
    assert [events(run, "resumed")[-1]["lost_steps"] for run in runs] == [0, 0, 0]
    until(lambda: all(run.done.exists() for run in runs), "all are done", 300)

    for run in runs:
        assert [line["exit_code"] for line in events(run, "ended")][:1] == [75]
        assert_same_run(calm.run(run.seed), run)
        pin = json.loads(run.specification.read_text())["image"]
        assert pin["engine"] == engine
        assert pin["base"] == (project.root / "base").read_text().strip()
        provenance = json.loads(run.provenance.read_text())
        assert provenance["image"] == digests(ImagePin(**pin))
