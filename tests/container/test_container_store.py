"""Images under attack: many launchers at once, a builder that is killed, bytes that flip, tags that move."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from cluster_ground import REPOSITORY, SUDO, until
from test_container_runs import ENGINES, STEP, small_lock
from tiny_ground import Tiny

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def project(cluster, name, engine, text=""):
    """A project whose environment nobody has made before: its recipe says so."""
    recipes = {f"images/{each}": (REPOSITORY / "images" / each).read_text() for each in ("Dockerfile", "apptainer.def")}
    recipes = {path: f"# {name} {text}\n{recipe}" for path, recipe in recipes.items()}
    return Tiny(cluster, name, {"engine": engine, "base": cluster.base}, {**recipes, "requirements.lock": small_lock()})


def start(tiny, name, seeds=(0,)):
    """A launch of the tiny project, not waited for."""
    request = {
        "repository": str(tiny.repository),
        "name": name,
        "seeds": list(seeds),
        "recipe": STEP,
        "image": tiny.image,
        "slurm": {"gpus_per_node": 0},
    }
    file = tiny.folder / f"{name}.json"
    tiny.cluster.write(file, json.dumps(request))
    argv = [tiny.cluster.bin / "python", "-P", tiny.driver, file]
    return tiny.cluster.popen(argv, cwd=tiny.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def builds(said):
    return sum(text.count("building environment") for text in said)


@pytest.mark.parametrize("engine", ENGINES)
def test_container_store_eight_launches_build_once(cluster, engine):
    tiny = project(cluster, f"eight-{engine}", engine)
    launches = [start(tiny, f"e{number}") for number in range(8)]
    said = [launch.communicate(timeout=600) for launch in launches]
    assert [launch.returncode for launch in launches] == [0] * 8, said
    assert not [out for out, _ in said if "error" in json.loads(out)]
    assert builds(text for _, text in said) == 1
    pins = [json.loads(tiny.run(f"e{number}").specification.read_text())["image"] for number in range(8)]
    assert all(pin == pins[0] for pin in pins)
    assert len({json.loads(out)["job"] for out, _ in said}) == 8
    for number in range(8):
        tiny.until_done(f"e{number}", seconds=240)
    assert list((tiny.folder / "store").rglob("*.tmp")) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_container_store_trusts_nothing_of_a_builder_that_was_killed(cluster, engine):
    """Killed at three moments of one build, with all that it had started; the fourth makes it whole."""
    tiny = project(cluster, f"killed-{engine}", engine)
    store = tiny.folder / "store"
    for number, moment in enumerate(("building environment", r"\[\d/\d\] RUN|pip|Creating SIF|INFO", "")):
        launch = start(tiny, f"k{number}")
        if moment:
            for line in launch.stderr:
                if re.search(moment, line):
                    break
        subprocess.run([*SUDO, "pkill", "-KILL", "-f", str(tiny.folder / f"k{number}.json")], check=False)
        launch.communicate(timeout=60)
        assert not list(store.glob("images/*.json")), f"a record stands after {moment!r}"
    again = start(tiny, "whole")
    out, said = again.communicate(timeout=600)
    assert again.returncode == 0, said
    assert json.loads(out)["job"]
    tiny.until_done("whole", seconds=240)


def flipped(path: Path) -> None:
    """One bit in the middle, and the file as old as before."""
    script = (
        "import os, sys\np = sys.argv[1]; s = os.stat(p); os.chmod(p, 0o644)\n"
        "f = open(p, 'r+b'); f.seek(s.st_size // 2); b = f.read(1); f.seek(-1, 1); f.write(bytes([b[0] ^ 1])); f.close()\n"
        "os.chmod(p, s.st_mode); os.utime(p, ns=(s.st_atime_ns, s.st_mtime_ns))\n"
    )
    subprocess.run([*SUDO, "python3", "-c", script, str(path)], check=True)


@pytest.mark.parametrize("part", ["environment", "layer"])
def test_container_store_a_flipped_bit_is_refused_on_the_node(cluster, part):
    tiny = project(cluster, f"flip-{part}", "apptainer", "flip")
    tiny.submit("before", STEP, gpus_per_node=0)
    tiny.until_done("before")
    digest = json.loads(tiny.run("before").specification.read_text())["image"][part]
    (file,) = (tiny.folder / "store" / "blobs").glob(f"{digest.replace(':', '-')}.*")
    gate = cluster.submit("exec sleep 100000")
    tiny.submit("after", STEP, gpus_per_node=0, additional={"dependency": f"afterany:{gate}"})
    flipped(file)
    cluster.run(["scancel", gate])
    tiny.until_decided("after", 1)
    log = tiny.run("after").attempt_log(1).read_text()
    assert tiny.causes("after") == [("refused", "stop")]
    assert digest in log
    assert str(file) in log
    assert len(set(re.findall(r"sha256:[0-9a-f]{64}", log))) == 2


def test_container_store_a_registry_that_changed_is_refused_on_the_node(cluster):
    """A tag that was pushed anew changes nothing; a blob that was flipped is named."""
    tiny = project(cluster, "registry-docker", "docker", "registry")
    tiny.submit("before", STEP, gpus_per_node=0)
    tiny.until_done("before")
    pin = json.loads(tiny.run("before").specification.read_text())["image"]
    listed = json.loads(cluster.docker("inspect", pin["layer"]).stdout)[0]
    repository = pin["manifest"].partition("@")[0]
    cluster.docker("pull", "--quiet", cluster.base)
    for tag in [each for each in listed["RepoTags"] if each.startswith(f"{repository}:")]:
        cluster.docker("tag", cluster.base, tag)
        cluster.docker("push", "--quiet", tag)
    tiny.submit("moved", STEP, gpus_per_node=0)
    tiny.until_done("moved")

    manifest = next(cluster.images.glob(f"blobs/sha256/*/{pin['manifest'].rpartition(':')[2]}/data"))
    layers = json.loads(subprocess.run([*SUDO, "cat", manifest], capture_output=True, check=True).stdout)["layers"]
    code = layers[-1]["digest"].removeprefix("sha256:")
    gate = cluster.submit("exec sleep 100000")
    tiny.submit("flipped", STEP, gpus_per_node=0, additional={"dependency": f"afterany:{gate}"})
    flipped(next(cluster.images.glob(f"blobs/sha256/*/{code}/data")))
    names = json.loads(cluster.docker("inspect", pin["layer"]).stdout)[0]
    cluster.docker("rmi", "--force", *names["RepoTags"], *names["RepoDigests"], check=False)
    cluster.docker("rmi", "--force", pin["layer"], check=False)
    until(
        lambda: cluster.docker("inspect", pin["layer"], check=False).returncode != 0, "the node has no such image", 30
    )
    cluster.run(["scancel", gate])
    tiny.until_decided("flipped", 1)
    log = tiny.run("flipped").attempt_log(1).read_text()
    assert [cause for cause, _ in tiny.causes("flipped")] == ["refused"]
    assert pin["layer"] in log
    assert pin["manifest"] in log
