"""Launches a twin as its user would, in a process of its own that can be struck."""

import json
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from jobs.rundir import Tree
from launcher import batch
from launcher.plan import Flags
from launcher.process import Started, start

PROGRAM: Final = "launcher.cli.twin"


@dataclass(frozen=True, slots=True)
class Request:
    """What a twin is launched with: `launch CONFIG` under another name, in a tree of its own."""

    config: Path
    flags: Flags
    """Its `experiments` is the folder of all trees."""
    name: str
    folder: Path
    """Of its tree, within the folder of all trees."""
    tree: Tree
    log: Path
    """What the launchers say."""

    def text(self) -> str:
        flags = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self.flags).items()}
        return json.dumps({"config": str(self.config), "flags": flags, "name": self.name, "folder": str(self.folder)})


class Launcher:
    """The one launcher of a twin at a time."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.lock = threading.Lock()
        self.process: Started | None = None
        self.count = 0
        self._said = 0
        """Bytes of the log before the newest launch."""

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def code(self) -> int | None:
        return self.process.returncode if self.process is not None and not self.running else None

    def begin(self) -> None:
        """Start it, if none runs."""
        with self.lock:
            if self.running:
                return
            self.request.log.parent.mkdir(parents=True, exist_ok=True)
            with self.request.log.open("ab") as log:
                self._said = log.tell()
                argv = (*batch.python(sys.executable), "-m", PROGRAM, self.request.text())
                self.process = start(argv, log, cwd=Path.cwd())
            self.count += 1

    def last_words(self) -> str:
        """Of the newest launch."""
        try:
            lines = self.request.log.read_bytes()[self._said :].decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-10:])
