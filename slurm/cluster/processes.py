"""Start programs that stay, find out whether they still live, and end exactly those and what they started."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.layout import ClusterError, Layout

POLL = 0.05
LAST_LINES = 25


@dataclass(frozen=True, slots=True)
class Daemon:
    """One program that stays. `log` is what it writes itself; what it says before it can is in NAME.out beside it."""

    name: str
    argv: Sequence[str]
    log: Path
    user: str | None = None
    environment: Mapping[str, str] | None = None


def born(pid: int) -> str | None:
    """When a process started, in the kernel's ticks: with its number, a name that is never given twice. None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else fields[19]


def alive(layout: Layout, name: str) -> int | None:
    """Process id of a daemon of this cluster, None if it does not run."""
    try:
        pid, ticks = (layout.run / f"{name}.pid").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    return int(pid) if born(int(pid)) == ticks else None


def start(layout: Layout, daemon: Daemon) -> None:
    """Start it unless it runs. It gets a session of its own, so that Ctrl-C in the caller's terminal does not reach it."""
    if alive(layout, daemon.name) is not None:
        return
    with (layout.log / f"{daemon.name}.out").open("ab") as out:
        child = subprocess.Popen(
            list(daemon.argv),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=layout.root,
            env={**os.environ, **(daemon.environment or {})},
            user=daemon.user,
            group=daemon.user,
            extra_groups=[] if daemon.user else None,
            start_new_session=True,
        )
    (layout.run / f"{daemon.name}.pid").write_text(f"{child.pid} {born(child.pid)}\n", encoding="utf-8")


def wait_until(layout: Layout, daemon: Daemon, ready: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a daemon to do its work. Raises ClusterError with its last words if it dies or takes longer."""
    end = time.monotonic() + seconds
    while not ready():
        _reap()
        if alive(layout, daemon.name) is None:
            raise ClusterError(f"{daemon.name} died.\n{last_words(layout, daemon)}")
        if time.monotonic() > end:
            raise ClusterError(f"{daemon.name} did not get ready within {seconds:g} s.\n{last_words(layout, daemon)}")
        time.sleep(POLL)


def _reap() -> None:
    """A child that died stays visible until someone asks for its exit code."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def last_words(layout: Layout, daemon: Daemon) -> str:
    words = []
    for path in dict.fromkeys((daemon.log, layout.log / f"{daemon.name}.out")):
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
            words += [f"    {path}:", *(f"    | {line}" for line in lines)] if lines else []
    return "\n".join(words) or "    It said nothing."


def family(roots: Iterable[int]) -> set[int]:
    """These processes and everything below them."""
    children: dict[int, list[int]] = {}
    for pid in _all():
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        children.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, [])
    return found


def of_jobs(layout: Layout) -> set[int]:
    """Processes that belong to jobs of this cluster: slurmstepd, which leaves its slurmd's family, and all below it."""
    conf = f"SLURM_CONF={layout.conf}".encode()
    found = set()
    for pid in _all():
        try:
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if conf in words and (_is_stepd(pid) or any(word.startswith(b"SLURM_JOB_ID=") for word in words)):
            found.add(pid)
    return family(found)


def with_argument(text: str) -> set[int]:
    """Processes that were started with this very argument."""
    found = set()
    for pid in _all():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if text.encode() in words:
            found.add(pid)
    return found


def _is_stepd(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").startswith("slurmstepd")
    except OSError:
        return False


def _all() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def end(pids: Iterable[int], number: signal.Signals, seconds: float) -> set[int]:
    """Send a signal and wait. Returns those that still live. Never touches this process or those above it."""
    spared = ancestors()
    born_at = {pid: born(pid) for pid in pids if pid not in spared}
    living = {pid: ticks for pid, ticks in born_at.items() if ticks is not None}
    for pid in living:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    limit = time.monotonic() + seconds
    while living and time.monotonic() < limit:
        _reap()
        living = {pid: ticks for pid, ticks in living.items() if born(pid) == ticks}
        time.sleep(POLL if living else 0)
    return set(living)


def ancestors() -> set[int]:
    """This process and those above it: a `stop` typed into `testcluster shell` must live to finish."""
    found, pid = set(), os.getpid()
    while pid > 0:
        found.add(pid)
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            break
        pid = int(text.rpartition(")")[2].split()[1])
    return found
