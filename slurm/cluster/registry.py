"""The registry of a cluster: a real one, on 127.0.0.1, in plain HTTP, with its images in a folder of the cluster's."""

import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from cluster import processes
from cluster.layout import Layout, Options
from cluster.packages import program
from cluster.processes import Daemon

NAME = "registry"
PORT = 6
"""After the base port."""
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def address(options: Options) -> str:
    return f"127.0.0.1:{options.base_port + PORT}"


def start(layout: Layout, options: Options) -> None:
    conf = layout.etc / "registry.yml"
    told = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        # no cache: what lies on the disk is what is given out
        "storage": {"filesystem": {"rootdirectory": str(layout.registry)}, "delete": {"enabled": True}},
        "http": {"addr": address(options), "secret": NAME},
    }
    conf.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    daemon = Daemon(NAME, [program("docker-registry"), "serve", str(conf)], layout.log / "registry.out")
    processes.start(layout, daemon)
    processes.wait_until(layout, daemon, lambda: _ask(f"http://{address(options)}/v2/") is not None)


def digest(options: Options, name: str, tag: str) -> str | None:
    """The digest of an image's manifest; None where the registry does not have it."""
    return _ask(f"http://{address(options)}/v2/{name}/manifests/{tag}")


def copy(source: Path, target: Path, name: str) -> None:
    """Copy one image, with all that it is made of, from one registry's folder to another's, where no registry looks for it yet."""
    here, there = (folder / "docker" / "registry" / "v2" for folder in (source, target))
    repository = Path("repositories") / name
    links = [*(here / repository).glob("_layers/sha256/*"), *(here / repository).glob("_manifests/revisions/sha256/*")]
    for sha256 in (link.name for link in links):
        blob = Path("blobs", "sha256", sha256[:2], sha256)
        shutil.copytree(here / blob, there / blob, dirs_exist_ok=True)
    shutil.copytree(here / repository, there / repository, dirs_exist_ok=True)


def _ask(url: str) -> str | None:
    """What a registry answers to HEAD: its digest, or an empty text where there is none. None: it does not answer, or refuses."""
    asked = urllib.request.Request(url, headers={"Accept": MANIFEST}, method="HEAD")  # noqa: S310 - plain HTTP on loopback
    try:
        with _direct.open(asked, timeout=10) as answer:
            return str(answer.headers.get("Docker-Content-Digest", ""))
    except (urllib.error.URLError, OSError):
        return None


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
