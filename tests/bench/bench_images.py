"""What a commit costs: code alone on an environment that stands, beside making the environment anew; both engines.

    make cluster CONTAINERS=1
    slurm/testcluster run -- python tests/bench/bench_images.py [LOCK]

LOCK: a lock to build with; requirements.lock, the real one, takes minutes each. Without it, one small package."""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from launcher import image
from launcher.config.schema import Image
from launcher.engines import Workshop, engine
from launcher.site import load_site
from launcher.source import read_source

ROOT = Path(__file__).parents[2]
CODE_ROUNDS, FULL_ROUNDS = 7, 3


def small_lock() -> str:
    found = re.search(r"^click==.*?(?=^\S)", (ROOT / "requirements.lock").read_text(), re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def repository(folder: Path, lock: str) -> None:
    """This project's own files: as many as a real commit has."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "launcher", "jobs", "tests", "configs", "images"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "requirements.lock").write_text(lock)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


def commit(folder: Path, path: str, text: str) -> None:
    (folder / path).write_text(text)
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    subprocess.run(["git", *who, "commit", "-qm", "bench"], cwd=folder, check=True)


def ensure(folder: Path, section: Image, workshop: Workshop) -> float:
    """Seconds from the config to the pin."""
    began = time.perf_counter()
    wanted = image.request(section, read_source(folder / "configs" / "quickstart.yaml", allow_dirty=False))
    engine(wanted.engine).ensure(wanted, workshop, lambda _: None)
    return time.perf_counter() - began


def measure(name: str, folder: Path, workshop: Workshop, base: str) -> None:
    """One engine: all three medians."""
    section, lock = Image(engine=name, base=base), (folder / "requirements.lock").read_text()

    def rounds(count: int, change: Callable[[int], None]) -> float:
        times = []
        for number in range(count):
            change(number)
            times.append(ensure(folder, section, workshop))
        return statistics.median(times)

    full = rounds(FULL_ROUNDS, lambda n: commit(folder, "requirements.lock", f"# {time.time()} {n}\n{lock}"))
    code = rounds(CODE_ROUNDS, lambda n: commit(folder, "jobs/__init__.py", f'"""{time.time()} {n}."""\n'))
    there = rounds(CODE_ROUNDS, lambda _: None)
    told = f"environment anew {full:8.2f} s   code alone {code:6.3f} s   nothing new {there:6.3f} s"
    print(f"{name:<10} {told}   {full / code:6.1f}x", flush=True)


def main() -> None:
    base = os.environ.get("SAMEBITS_TEST_BASE")
    if base is None:
        print(
            'left out, there is no cluster with containers: make cluster CONTAINERS=1; eval "$(slurm/testcluster env)"'
        )
        return
    lock = Path(sys.argv[1]).read_text() if len(sys.argv) > 1 else small_lock()
    with tempfile.TemporaryDirectory(prefix="samebits-bench-") as scratch:
        folder = Path(scratch, "repository")
        folder.mkdir()
        repository(folder, lock)
        site = load_site(None, folder)
        workshop = Workshop(Path(scratch, "store"), site.workshop().registry, site.workshop().build)
        for name in ("docker", "apptainer"):
            measure(name, folder, workshop, base)


if __name__ == "__main__":
    main()
