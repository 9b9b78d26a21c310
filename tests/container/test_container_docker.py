"""The images of the docker engine: two layers, made once, pinned by content, refused where they are another."""

import hashlib
import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster_ground import REPOSITORY, SUDO, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
DRIVER = Path(__file__).with_name("docker_drive.py")


class Ground:
    """A user's repository, and stores that know nothing of each other."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.driver = cluster.home / "docker-drive" / "drive.py"
        cluster.write(self.driver, DRIVER.read_text())
        lock = re.search(
            r"^click==.*?(?=^\S)", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE | re.DOTALL
        )
        files = {
            "images/Dockerfile": (REPOSITORY / "images" / "Dockerfile").read_text(),
            "requirements.lock": lock[0],
            "jobs/__init__.py": "",
            "jobs/__main__.py": "print('first')\n",
        }
        self.repository = cluster.project("docker-images", files)

    def ask(self, request, *, check=True, **env):
        argv = [self.cluster.bin / "python", "-P", self.driver, json.dumps(request)]
        done = self.cluster.run(argv, check=check, env=env or None, timeout=300, cwd=self.cluster.home)
        return json.loads(done.stdout) if done.returncode == 0 else {"killed": done.returncode}

    def ensure(self, store, **more):
        request = {"repository": str(self.repository), "store": str(self.store(store)), "base": self.cluster.base}
        return self.ask({**request, **more}, check="die_at" not in more)

    def verify(self, pin, **env):
        return self.ask({"pin": pin}, **env)

    def store(self, name):
        return self.cluster.home / "docker-stores" / name

    def change(self, path, text):
        """A commit that changes one file."""
        self.cluster.write(self.repository / path, text)
        return self.cluster.commit(self.repository, path)

    def inspect(self, image):
        done = self.cluster.docker("image", "inspect", image, check=False)
        return json.loads(done.stdout)[0] if done.returncode == 0 else None

    def forget(self, *images):
        """What another node does not have."""
        self.cluster.docker("rmi", "--force", *images, check=False)
        assert not any(self.inspect(image) for image in images)

    def blob(self, digest):
        name = digest.removeprefix("sha256:")
        return self.cluster.images / "blobs" / "sha256" / name[:2] / name / "data"

    def flip(self, path):
        """Change one byte in the middle of a file of the registry's. Returns how to change it back."""
        code = "import sys; d = bytearray(open(sys.argv[1], 'rb').read()); d[len(d) // 2] ^= 1; open(sys.argv[1], 'wb').write(d)"
        argv = [*SUDO, "python3", "-c", code, str(path)]
        subprocess.run(argv, check=True)
        return lambda: subprocess.run(argv, check=True)


@pytest.fixture(scope="module")
def ground(_session_containers):
    return Ground(_session_containers)


@pytest.fixture(scope="module")
def first(ground):
    return ground.ensure("one")


def test_docker_makes_an_environment_and_a_layer_of_code(ground, first):
    pin, cluster = first["pin"], ground.cluster
    assert first["known"]
    assert any("building environment" in line for line in first["said"])
    assert any(re.search(r"RUN .*pip install", line) for line in first["said"])
    environment, whole = ground.inspect(pin["environment"]), ground.inspect(pin["layer"])
    assert pin["layer"] == whole["Id"]
    assert whole["RootFS"]["Layers"][:-1] == environment["RootFS"]["Layers"]
    commit = cluster.run(["git", "rev-parse", "HEAD"], cwd=ground.repository).stdout.strip()
    tree = cluster.run(["git", "rev-parse", "HEAD^{tree}"], cwd=ground.repository).stdout.strip()
    lock = (ground.repository / "requirements.lock").read_bytes()
    assert pin["code"] == f"git-tree:{tree}"
    assert pin["base"] == cluster.base
    labels = whole["Config"]["Labels"]
    assert labels["org.opencontainers.image.revision"] == commit
    assert labels["org.opencontainers.image.base.digest"] == cluster.base.partition("@")[2]
    assert labels["samebits.lock"] == f"sha256:{hashlib.sha256(lock).hexdigest()}"
    assert labels["samebits.code"] == tree
    assert labels["samebits.environment"] == pin["environment"]
    assert re.fullmatch(rf"{re.escape(cluster.registry)}/samebits/run@sha256:[0-9a-f]{{64}}", pin["manifest"])
    listing = "find /samebits -type f | sort; stat -c '%a %u' /samebits/code/jobs/__main__.py; python -V; python -m pip freeze"
    said = cluster.docker("run", "--rm", "--user", "12345", pin["layer"], "sh", "-c", listing).stdout.splitlines()
    assert said[:5] == [
        *(f"/samebits/code/{name}" for name in ("images/Dockerfile", "jobs/__init__.py", "jobs/__main__.py")),
        "/samebits/code/requirements.lock",
        "/samebits/locks/requirements.lock",
    ]
    assert said[5] == "644 0"
    assert said[6] == f"Python {pin['python']}"
    assert [line.split("==")[0] for line in said[7:]] == ["click"]


def test_docker_adds_a_layer_for_a_commit_that_touches_code_only(ground, first):
    ground.change("jobs/__main__.py", "print('second')\n")
    second = ground.ensure("one")
    assert second["pin"]["environment"] == first["pin"]["environment"]
    assert second["pin"]["layer"] != first["pin"]["layer"]
    assert not any("building" in line for line in second["said"])
    assert (
        ground.inspect(second["pin"]["environment"])["Created"]
        == ground.inspect(first["pin"]["environment"])["Created"]
    )
    again = ground.ensure("one")
    assert again["pin"] == second["pin"]
    assert again["said"] == []


@pytest.mark.parametrize("no_load", [False, True])
def test_docker_layer_holds_the_tree_of_git_and_nothing_else(ground, first, no_load):
    """Whatever the umask of who launches; and where the engine wants to build it by itself."""
    cluster, store = ground.cluster, f"tree-{no_load}"
    odd = "sub/a b;$(c) \N{LATIN SMALL LETTER E WITH ACUTE}"
    cluster.run(["mkdir", "-p", ground.repository / "sub"], cwd=cluster.home)
    cluster.write(ground.repository / odd, f"{no_load}\n")
    cluster.run(["chmod", "+x", ground.repository / odd], cwd=cluster.home)
    cluster.run(["ln", "-sf", "../jobs/__main__.py", ground.repository / "sub" / "link"], cwd=cluster.home)
    cluster.commit(ground.repository, f"modes {no_load}")
    made = ground.ensure(store, no_load=no_load, umask=0o077)
    pin = made["pin"]
    code = (REPOSITORY / "launcher" / "gittree.py").read_text() + "\nprint(tree_hash(Path('/samebits/code')))"
    said = cluster.docker("run", "--rm", "--user", "12345:54321", pin["layer"], "python", "-c", code).stdout
    assert f"git-tree:{said.strip()}" == pin["code"]
    below, here = (ground.inspect(pin[name])["RootFS"]["Layers"] for name in ("environment", "layer"))
    assert here[: len(below)] == below
    assert ground.verify(pin) == {"problems": []}
    ground.forget(pin["layer"])
    assert ground.verify(pin) == {"problems": []}, "it was pushed whole"
    if not no_load:
        ground.forget(pin["layer"])
        for record in ("layers", "images"):
            cluster.run(
                ["rm", "-r", ground.store(store) / record / ("docker" if record == "layers" else "")], cwd=cluster.home
            )
        # An environment that is made anew out of the builder's cache is the same one, and so is what stands on it.
        assert ground.ensure(store)["pin"]["layer"] == pin["layer"]


def test_docker_hides_what_an_environment_has_where_the_code_goes(ground):
    text = (ground.repository / "images" / "Dockerfile").read_text()
    ground.change(
        "images/Dockerfile", text + "RUN mkdir -p /samebits/code/jobs && touch /samebits/code/jobs/planted.py\n"
    )
    pin = ground.ensure("planted", registry=False)["pin"]
    ground.change("images/Dockerfile", text)
    listed = ground.cluster.docker("run", "--rm", pin["layer"], "find", "/samebits/code", "-name", "planted.py").stdout
    assert listed == ""


def test_docker_makes_another_environment_for_another_recipe(ground, first):
    text = (ground.repository / "images" / "Dockerfile").read_text()
    ground.change("images/Dockerfile", text + "LABEL other=1\n")
    other = ground.ensure("one")
    ground.change("images/Dockerfile", text)
    assert other["pin"]["key"] != first["pin"]["key"]
    assert other["pin"]["environment"] != first["pin"]["environment"]


def test_docker_builds_once_for_eight_launches_of_a_new_commit(ground):
    """A recipe of its own, so that nothing of it is in the builder's cache; a registry is not needed for that."""
    text = (ground.repository / "images" / "Dockerfile").read_text()
    ground.change("images/Dockerfile", text + "RUN sleep 1 && touch /eight\n")
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: ground.ensure("eight", registry=False), range(8)))
    ground.change("images/Dockerfile", text)
    assert len({json.dumps(each["pin"]) for each in done}) == 1
    assert sum(any("building" in line for line in each["said"]) for each in done) == 1
    assert sum(any("code of" in line for line in each["said"]) for each in done) == 1
    store = ground.store("eight")
    assert len(list((store / "images").iterdir())) == 1
    assert len(list((store / "layers" / "docker").iterdir())) == 1


@pytest.mark.parametrize("moment", ["RUN python3 -m venv", "looking inside", "pushed", "code of"])
def test_docker_trusts_nothing_of_a_builder_that_was_killed(ground, first, moment):
    text = (ground.repository / "images" / "Dockerfile").read_text()
    store = f"killed-{hashlib.sha256(moment.encode()).hexdigest()[:6]}"
    ground.change("images/Dockerfile", text.replace("FROM ${BASE}", f"FROM ${{BASE}}\nLABEL at={store}"))
    assert ground.ensure(store, die_at=moment)["killed"]
    records = [*ground.store(store).glob("images/*.json"), *ground.store(store).glob("layers/docker/*.json")]
    assert len(records) == (1 if moment == "code of" else 0)
    made = ground.ensure(store)
    ground.change("images/Dockerfile", text)
    assert made["known"]
    assert ground.verify(made["pin"]) == {"problems": []}
    assert made["pin"]["key"] != first["pin"]["key"]


def test_docker_pulls_what_a_node_lacks_by_its_digest(ground, first):
    pin = first["pin"]
    ground.forget(pin["layer"])
    assert ground.verify(pin) == {"problems": []}
    assert ground.inspect(pin["layer"])["Id"] == pin["layer"]


def test_docker_refuses_a_blob_that_was_changed_in_the_registry(ground, first):
    pin = first["pin"]
    manifest = json.loads(ground.blob(pin["manifest"].partition("@")[2]).read_text())
    blobs = {"manifest": pin["manifest"].partition("@")[2], "config": manifest["config"]["digest"]}
    blobs["layer"] = manifest["layers"][-1]["digest"]
    for what, digest in blobs.items():
        ground.forget(pin["layer"])
        back = ground.flip(ground.blob(digest))
        try:
            (problem,) = ground.verify(pin)["problems"]
        finally:
            back()
        assert "The registry" in problem or "What the registry has" in problem, what
        assert pin["layer"] in problem, what
        assert pin["manifest"] in problem, what
        assert "launch image push" in problem, what
    assert ground.verify(pin) == {"problems": []}


def test_docker_does_not_ask_what_a_tag_means_by_now(ground, first):
    """Somebody pushes something else under the name that was pushed: the digest is what counts."""
    pin, cluster = first["pin"], ground.cluster
    name = pin["manifest"].partition("@")[0]
    tree = pin["code"].removeprefix("git-tree:")
    tag = f"{name}:{tree[:12]}-{pin['key'][:12]}"
    cluster.docker("pull", "--quiet", tag)
    assert ground.inspect(tag)["Id"] == pin["layer"]
    cluster.docker("pull", "--quiet", cluster.base)
    cluster.docker("tag", cluster.base, tag)
    cluster.docker("push", "--quiet", tag)
    ground.forget(pin["layer"])
    assert ground.verify(pin) == {"problems": []}
    assert ground.inspect(tag)["Id"] != pin["layer"]


def test_docker_names_both_where_the_registry_gives_another_image(ground, first):
    """A record that somebody edited: manifest and id do not belong together."""
    other = ground.ensure("one")["pin"]
    ground.forget(first["pin"]["layer"])
    (problem,) = ground.verify({**first["pin"], "manifest": other["manifest"]})["problems"]
    assert first["pin"]["layer"] in problem
    assert other["layer"] in problem
    (problem,) = ground.verify({**other, "environment": first["pin"]["layer"]})["problems"]
    assert other["environment"] in problem
    assert first["pin"]["layer"] in problem


def test_docker_says_what_a_registry_no_longer_has(ground, first):
    gone = {**first["pin"], "manifest": f"{first['pin']['manifest'].partition('@')[0]}@sha256:{'0' * 64}"}
    ground.forget(first["pin"]["layer"])
    (problem,) = ground.verify(gone)["problems"]
    assert "no longer" in problem
    (problem,) = ground.verify({**first["pin"], "manifest": None})["problems"]
    assert first["pin"]["layer"] in problem
    assert "launch image export" in problem
    assert ground.verify(first["pin"]) == {"problems": []}


def test_docker_leaves_it_to_another_node_where_registry_or_engine_are_down(ground, first):
    away = {**first["pin"], "manifest": f"127.0.0.1:9/samebits/run@{first['pin']['manifest'].partition('@')[2]}"}
    ground.forget(first["pin"]["layer"])
    assert ground.verify(away)["error"] == 6
    assert ground.verify(first["pin"], DOCKER_HOST="unix:///nowhere/docker.sock")["error"] == 6
    assert ground.verify(first["pin"]) == {"problems": []}


def test_docker_says_what_is_missing_to_use_it(ground):
    assert ground.ask({}) == {"problems": []}
    (problem,) = ground.ask({}, DOCKER_HOST="unix:///nowhere/docker.sock")["problems"]
    assert "No Docker engine answers" in problem
    assert "DOCKER_HOST" in problem
    closed = ground.cluster.root / "closed.sock"
    program = f"import socket, os; s = socket.socket(socket.AF_UNIX); s.bind({str(closed)!r}); os.chmod({str(closed)!r}, 0o600)"
    subprocess.run([*SUDO, "python3", "-c", program], check=True)
    (problem,) = ground.ask({}, DOCKER_HOST=f"unix://{closed}")["problems"]
    assert "may not be used by you" in problem
    assert "docker" in problem
    (problem,) = ground.ask({}, PATH="/nowhere")["problems"]
    assert "not on PATH" in problem


def test_docker_keeps_what_a_failed_build_said(ground):
    text = (ground.repository / "images" / "Dockerfile").read_text()
    ground.change("images/Dockerfile", text + "RUN echo proxy is $http_proxy && echo last words && exit 3\n")
    failed = ground.ensure("failed", build={"proxies": {"http": "http://someone:pa55word@127.0.0.1:9"}})
    ground.change("images/Dockerfile", text)
    assert failed["error"] == 6
    assert "last words" in failed["evidence"]
    log = re.search(r"All that it said: (\S+)", failed["text"])[1]
    said = ground.cluster.run(["cat", log], cwd=ground.cluster.home).stdout
    assert "last words" in said
    assert "proxy is" in said
    assert "pa55word" not in said + failed["evidence"] + failed["text"]
    assert not list(ground.store("failed").glob("images/*"))
    ground.cluster.run(["rm", log], cwd=ground.cluster.home)
    until(lambda: not list(Path("/tmp").glob("samebits-docker-*")), "nothing of the build is left", 10)
