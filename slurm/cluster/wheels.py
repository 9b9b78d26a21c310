"""Folders of wheels that pip uses on this machine, over HTTP on 127.0.0.1: a build in a container cannot see the folders."""

import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from cluster import processes
from cluster.layout import Layout, Options
from cluster.processes import Daemon

NAME = "wheels"
PORT = 7
"""After the base port."""


def place(layout: Layout, folders: Sequence[Path]) -> None:
    """Say which folders there are. Without one nothing is served."""
    if folders:
        layout.wheels.mkdir(mode=0o755, exist_ok=True)
    for number, folder in enumerate(folders):
        link = layout.wheels / str(number)
        link.unlink(missing_ok=True)
        link.symlink_to(folder.absolute())


def served(layout: Layout) -> bool:
    return layout.wheels.is_dir()


def start(layout: Layout, options: Options) -> list[str]:
    """Returns the URLs, as pip's find-links takes them."""
    if not served(layout):
        return []
    port = str(options.base_port + PORT)
    argv = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(layout.wheels), port]
    daemon = Daemon(NAME, argv, layout.log / "wheels.out")
    processes.start(layout, daemon)
    urls = [f"http://127.0.0.1:{port}/{link.name}/" for link in sorted(layout.wheels.iterdir())]
    processes.wait_until(layout, daemon, lambda: all(_answers(url) for url in urls))
    return urls


def _answers(url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False
