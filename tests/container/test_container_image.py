"""`launch image` against real engines: built once, carried as a file, pushed and pulled, listed, removed when nobody needs it."""

import hashlib
import json

import pytest
from cluster_ground import REPOSITORY
from container_ground import Containers
from project import CONFIG, JOB, ROWS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
ENGINES = ("docker", "apptainer")


def small_lock() -> str:
    """One package of this repository's lock, with its hashes."""
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("filelock=="))
    last = next(number for number in range(first, len(lines)) if not lines[number].endswith("\\"))
    return "\n".join(lines[first : last + 1]) + "\n"


DOCKERFILE = """\
ARG BASE
FROM ${BASE}
ENV PATH=/opt/venv/bin:/usr/bin:/bin PIP_NO_CACHE_DIR=1
COPY requirements.lock /samebits/locks/requirements.lock
RUN python3 -m venv /opt/venv
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.pem,target=/run/secrets/ca.pem \\
    python -m pip install --quiet --require-hashes --no-deps -r /samebits/locks/requirements.lock
"""
DEFINITION = """\
Bootstrap: docker
From: {{ BASE }}
%arguments
    BASE=
%files
    requirements.lock /samebits/locks/requirements.lock
%post
    set -eu
    export PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
    python3 -m venv /opt/venv
    python -m pip install --quiet --require-hashes --no-deps -r /samebits/locks/requirements.lock
    mkdir -p /samebits/code /samebits/keeper
%environment
    export PATH=/opt/venv/bin:/usr/bin:/bin
"""


class Place:
    """A user's project in one engine, and a home, so that a store of its own can be anybody's."""

    def __init__(self, cluster: Containers, engine: str) -> None:
        self.cluster, self.engine = cluster, engine
        image = f"image: {{engine: {engine}, base: '{cluster.base}'}}\n"
        files = {
            "configs/x.yaml": CONFIG.replace("HASH", hashlib.sha256(ROWS.encode()).hexdigest()) + image,
            "data/rows.jsonl": ROWS,
            "requirements.lock": small_lock(),
            "jobs/__init__.py": "",
            "jobs/__main__.py": JOB.replace("STEPS", "3"),
            ".gitignore": "/experiments/\n",
        }
        files |= {"images/Dockerfile": DOCKERFILE, "images/apptainer.def": DEFINITION}
        self.folder = cluster.project(f"image-{engine}", files)
        self.file = cluster.home / f"{engine}.image"

    def launch(self, home: str, *argv: object, check: bool = True):
        """`launch ARGV` in the project, as somebody with that home."""
        folder = self.cluster.home / f"{self.engine}-{home}"
        self.cluster.run(["mkdir", "-p", folder], cwd=self.cluster.home)
        environment = {"HOME": str(folder)}
        return self.cluster.run(["launch", *argv], cwd=self.folder, env=environment, check=check, timeout=800)

    def held(self, home: str) -> list[dict]:
        return json.loads(self.launch(home, "image", "ls", "--json").stdout)["stored"]

    def pin(self, text: str) -> dict[str, str]:
        rows = [line.split(None, 1) for line in text.splitlines()]
        return {row[0]: row[1] for row in rows if len(row) == 2 and row[0] in {"environment", "code", "layer", "key"}}

    def forget(self) -> None:
        """What another machine does not have: Docker's images."""
        if self.engine == "docker":
            asked = ["image", "ls", "--quiet", "--no-trunc", "--filter", "label=samebits.environment.key"]
            if images := set(self.cluster.docker(*asked).stdout.split()):
                self.cluster.docker("rmi", "--force", *images, check=False)

    def remove(self, home: str) -> None:
        folder = self.cluster.home / f"{self.engine}-{home}"
        self.cluster.run(["chmod", "-R", "u+w", folder], cwd=self.cluster.home, check=False)
        self.cluster.run(["rm", "-rf", folder], cwd=self.cluster.home)


@pytest.fixture(scope="module", params=ENGINES)
def place(request: pytest.FixtureRequest, _session_containers: Containers) -> Place:
    made = Place(_session_containers, request.param)
    made.built = made.launch("first", "image", "build", "configs/x.yaml").stdout
    made.launch("first", "image", "export", "configs/x.yaml", made.file)
    return made


def test_what_is_built_is_found_again(place: Place) -> None:
    again = place.launch("first", "image", "build", "configs/x.yaml").stdout
    assert place.pin(again) == place.pin(place.built)
    assert set(place.pin(again)) == {"environment", "code", "layer", "key"}
    assert "building" not in again
    kinds = {(item["kind"], item["engine"]): item for item in place.held("first")}
    environment, code = kinds["environment", place.engine], kinds["code", place.engine]
    assert environment["name"] == place.pin(again)["key"]
    assert environment["about"]["base"] == place.cluster.base
    assert environment["bytes"] > 10 * code["bytes"] > 0
    text = place.launch("first", "image", "ls").stdout
    assert f"environment ({place.engine})" in text
    assert "MB" in text


def test_a_file_carries_it_to_a_machine_that_cannot_build(place: Place) -> None:
    place.forget()
    damaged = place.cluster.home / "damaged.image"
    code = "import sys; d = bytearray(open(sys.argv[1], 'rb').read()); d[len(d) // 2] ^= 1; open(sys.argv[2], 'wb').write(d)"
    place.cluster.run([place.cluster.bin / "python", "-c", code, place.file, damaged], cwd=place.cluster.home)
    refused = place.launch("second", "image", "import", damaged, check=False)
    assert refused.returncode == 8
    assert "Nothing of it was taken" in refused.stderr
    assert place.held("second") == []

    brought = place.launch("second", "image", "import", place.file).stdout
    assert place.pin(brought) == place.pin(place.built)
    said = place.launch("second", "configs/x.yaml", "--local", "--experiments", place.folder / "experiments").stdout
    assert "building" not in said
    assert "2 seeds" in said
    specification = place.folder / "experiments" / "tiny" / "artifacts" / "seed-0" / "run.json"
    pin = json.loads(specification.read_text())["image"]
    assert pin["layer"] == place.pin(place.built)["layer"]
    assert "used by tiny" in place.launch("second", "image", "prune", "--older", "0d").stdout


def test_what_nobody_uses_goes(place: Place) -> None:
    """But not what another store on this machine uses: an engine serves them all."""
    place.launch("third", "image", "import", place.file)
    there = {(item["kind"], item["name"]) for item in place.held("third")}
    now = ("image", "prune", "--older", "0d", "--experiments", place.cluster.home / "none")
    dry = json.loads(place.launch("third", *now, "--dry-run", "--json").stdout)
    assert {(item["kind"], item["name"]) for item in dry["removed"]} == there
    assert {(item["kind"], item["name"]) for item in place.held("third")} == there
    assert "freed" in place.launch("third", *now).stdout
    assert place.held("third") == []
    assert place.held("second") != []
    if place.engine == "docker":
        images = [place.pin(place.built)[name] for name in ("layer", "environment")]
        place.cluster.docker("image", "inspect", *images)
        held = "reference=samebits/store-*"
        for name in place.cluster.docker(
            "image", "ls", "--filter", held, "--format", "{{.Repository}}:{{.Tag}}"
        ).stdout.split():
            place.cluster.docker("rmi", "--no-prune", name)
        place.launch("third", "image", "import", place.file)
        place.launch("third", *now)
        for image in images:
            assert place.cluster.docker("image", "inspect", image, check=False).returncode != 0


def test_a_registry_carries_it_too(place: Place) -> None:
    place.launch("second", "image", "import", place.file)
    pushed = place.launch("second", "image", "push", "configs/x.yaml").stdout
    place.forget()
    pulled = place.launch("fourth", "image", "pull", "configs/x.yaml").stdout
    assert place.pin(pulled) == place.pin(pushed) == place.pin(place.built)
    assert place.cluster.registry in pulled
