"""What pip is told on this machine, and what of it a build in a container needs: certificates, an index, folders of wheels."""

import ast
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cluster.layout import REPOSITORY

BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES = ("http", "https", "no")


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the whole machine: root's own configuration and environment."""

    ca_bundle: Path | None
    index_url: str | None
    extra_index_urls: tuple[str, ...]
    """Those that are reached over the network; an index in a folder is left out."""
    links: tuple[str, ...]
    """URLs of further wheels."""
    folders: tuple[Path, ...]
    """Folders of wheels: a build in a container cannot see them."""
    proxies: dict[str, str]


def settings() -> Settings:
    told = _told()
    bundles = [told.get("cert"), *(os.environ.get(name) for name in BUNDLES)]
    links = told.get("find-links", "").split()
    places = [Path(urlsplit(link).path if link.startswith("file:") else link) for link in links if not _remote(link)]
    index = told.get("index-url", "")
    proxies = {kind: os.environ.get(f"{kind}_proxy") or os.environ.get(f"{kind.upper()}_PROXY") for kind in PROXIES}
    return Settings(
        ca_bundle=next((Path(path) for path in bundles if path and Path(path).is_file()), None),
        index_url=index if _remote(index) else None,
        extra_index_urls=tuple(url for url in told.get("extra-index-url", "").split() if _remote(url)),
        links=tuple(link for link in links if _remote(link)),
        folders=tuple(place for place in places if place.is_dir()),
        proxies={kind: url for kind, url in proxies.items() if url},
    )


def _remote(place: str) -> bool:
    return urlsplit(place).scheme in {"http", "https"}


def _told() -> dict[str, str]:
    """Options of `pip install`, by name; the environment's before a section's before everyone's, as pip has it."""
    found: dict[str, str] = {}
    for python in (REPOSITORY / ".venv" / "bin" / "python", Path("/usr/bin/python3")):
        argv = [str(python), "-m", "pip", "config", "list"]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        except OSError:
            continue
        if done.returncode == 0:
            lines = [line.partition("=") for line in done.stdout.splitlines()]
            named = {name: str(ast.literal_eval(value)) for name, _, value in lines}
            for section in ("global.", "install.", ":env:."):
                found |= {name.removeprefix(section): named[name] for name in named if name.startswith(section)}
            break
    return found
