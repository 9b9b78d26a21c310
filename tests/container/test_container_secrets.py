"""Keys of the user's shell, files and site, planted: none is in an image, its history, the engine's files, or what a run writes."""

import base64
import hashlib
import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import secret_ground
from cluster_ground import SUDO
from container_ground import Containers
from project import CONFIG, JOB, ROWS
from test_container_image import DEFINITION, DOCKERFILE, small_lock

from jobs.rundir import Tree

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
PASSWORD = secret_ground.PLANTED["LITERAL_PASSWORD"]


class Index(ThreadingHTTPServer):
    """A package index that has nothing, for those who know the password."""

    def __init__(self) -> None:
        self.knew: list[bool] = []
        super().__init__(("127.0.0.1", 0), _Nothing)

    @property
    def url(self) -> str:
        return f"http://me:{PASSWORD}@127.0.0.1:{self.server_port}/simple"


class _Nothing(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        said = self.headers.get("Authorization", "").removeprefix("Basic ")
        self.server.knew.append(base64.b64decode(said).decode() == f"me:{PASSWORD}")
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[Index]:
    with Index() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def planted_site(cluster: Containers, index: Index) -> Path:
    """The cluster's profile with one index more, whose password stands in it."""
    lines = cluster.site.read_text().splitlines()
    number = next(number for number, line in enumerate(lines) if line.startswith("build: "))
    build = json.loads(lines[number].removeprefix("build: "))
    build["extra_index_urls"] = [*build.get("extra_index_urls", []), index.url]
    lines[number] = f"build: {json.dumps(build)}"
    path = cluster.home / "planted-site.yaml"
    cluster.write(path, "\n".join(lines) + "\n")
    return path


def inside(cluster: Containers, engine: str, store: Path, pin: dict[str, str]) -> str:
    """What the images of a run say of themselves. Fails for a secret in a file of theirs. None is named to the engine for that:
    it keeps what containers are started with."""
    if engine == "docker":
        images = [pin["environment"], pin["layer"]]
        told = [cluster.docker("history", "--no-trunc", image).stdout for image in images]
        told += [cluster.docker("image", "inspect", image).stdout for image in images]
        saved = cluster.home / "saved.tar"
        cluster.docker("save", "--output", saved, *images)
        assert secret_ground.found(saved) == []
        cluster.run(["rm", saved], cwd=cluster.home)
        return "".join(told)
    listed = cluster.run(["find", store, "-name", "*.sif"], cwd=cluster.home).stdout.split()
    assert listed
    needles = cluster.home / "needles"
    cluster.write(needles / "list", "".join(f"{text}\n" for text in secret_ground.needles().values()))
    others = [f"--exclude-dir={name}" for name in ("proc", "sys", "dev", "mnt")]
    search = ["grep", "-rlaF", "-f", "/mnt/list", *others, "/"]
    for sif in listed:
        argv = ["exec", "--cleanenv", "--no-home", "--contain", "--bind", f"{needles}:/mnt:ro", sif]
        assert cluster.apptainer(*argv, "grep", "-c", "planted", "/mnt/list").stdout.strip() != "0"
        assert cluster.apptainer(*argv, *search, check=False).stdout == ""
    cluster.run(["rm", "-r", needles], cwd=cluster.home)
    return "".join(cluster.apptainer("inspect", "--all", sif).stdout for sif in listed)


@pytest.mark.parametrize("engine", ["docker", "apptainer"])
def test_no_key_gets_into_an_image_or_is_left_by_its_build(cluster: Containers, index: Index, engine: str) -> None:
    image = f"image: {{engine: {engine}, base: '{cluster.base}'}}\n"
    config = CONFIG.replace("HASH", hashlib.sha256(ROWS.encode()).hexdigest()).replace("[0, 1]", "[0]")
    files = {
        "configs/x.yaml": config + image,
        "data/rows.jsonl": ROWS,
        # A lock of its own: so the environment is built here, and no layer of another test's build spares the index
        "requirements.lock": f"# {cluster.root.name}, secrets\n{small_lock()}",
        "jobs/__init__.py": "",
        "jobs/__main__.py": JOB.replace("STEPS", "3"),
        "images/Dockerfile": DOCKERFILE,
        "images/apptainer.def": DEFINITION,
        ".gitignore": "/experiments/\n",
    }
    folder = cluster.project(f"secrets-{engine}", files)
    docker, site = cluster.home / ".docker" / "config.json", planted_site(cluster, index)
    cluster.write(docker, secret_ground.docker_config())
    store = cluster.home / f"secrets-store-{engine}"
    env = {**secret_ground.shell(), "SAMEBITS_SITE": str(site)}
    cluster.write(site, f"{site.read_text()}store: {store}\n")
    done = cluster.run(["launch", "configs/x.yaml", "--partition", "gpu"], cwd=folder, env=env, timeout=800)
    assert index.knew, "the build asked the index"
    assert all(index.knew), "with the password"

    run = Tree(folder / "experiments" / "tiny").run(0)
    job = json.loads(run.submission.read_text())["job"]
    cluster.wait(job, ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"), 300)
    assert run.done.exists(), run.attempt_log(1).read_text()
    pin = json.loads(run.specification.read_text())["image"]
    shown = done.stdout + done.stderr + cluster.scontrol("show", "job", "-dd", job)
    shown += inside(cluster, engine, store, pin)
    assert secret_ground.named(shown) == []
    kept = secret_ground.found(cluster.root, but=(docker, site))
    # Those that a run is started with: Slurm and containerd keep them, where only root reads.
    kept = [(name, path) for name, path in kept if name not in secret_ground.PASSED_ON or not is_roots(path)]
    assert kept == []
    cluster.run(["rm", "-f", docker], cwd=cluster.home)


def is_roots(path: Path) -> bool:
    """Whether only root, or Slurm's own user, can come to a file: by its own mode, or that of a folder above."""
    modes = subprocess.run(
        [*SUDO, "stat", "-c", "%a %U", str(path), *map(str, path.parents)], capture_output=True, text=True, check=True
    )
    lines = [line.split() for line in modes.stdout.splitlines()]
    return any(mode.endswith("00") and owner in {"root", "slurm"} for mode, owner in lines)
