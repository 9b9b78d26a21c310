"""What is slow to make and the same for every cluster of this machine: made once, kept in /var/cache/samebits."""

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

CACHE = Path("/var/cache/samebits")


Place = Callable[[str], Path]
"""Where a thing will lie, by its version."""


def kept(name: str, recipe: Any, make: Callable[[Path, Place], str]) -> Path:
    """The folder that holds the newest thing of that name and recipe (plain JSON values: another recipe is another thing).

    Where there is none, `make` fills an empty folder and returns the version, which becomes part of its name; it is also told where
    a version will lie. Two that want it at once make it once; one that is killed leaves nothing that is taken for a whole. Remove
    the folder to have it made anew."""
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]
    with (CACHE / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found := sorted(CACHE.glob(f"{name}-{key}-*"), key=lambda path: path.stat().st_mtime):
            return found[-1]
        for left in CACHE.glob(f".{name}-*"):
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=f".{name}-") as parent:
            folder = Path(parent) / "made"
            folder.mkdir(mode=0o755)
            Path(parent).chmod(0o755)

            def place_of(version: str) -> Path:
                return CACHE / f"{name}-{key}-{version}"

            return folder.rename(place_of(make(folder, place_of)))
