"""What a store holds, who uses it, and what can go: `launch image ls` and `launch image prune`."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

from filelock import Timeout

from launcher import roots
from launcher.engines import ENGINES
from launcher.errors import LaunchError, Problem
from launcher.roots import Use
from launcher.store import Stored, locked, remove, size

ORDER: Final = ("environment", "code", "lock", "launcher", "leftover")
LEFT_SECONDS: Final = 24 * 3600
"""No builder works on one thing for this long: a temporary name that is older belongs to one that was killed."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """One thing of the store, with every experiment that names it."""

    stored: Stored
    uses: tuple[Use, ...]

    @property
    def needed(self) -> bool:
        return any(use.unfinished for use in self.uses)

    @property
    def last(self) -> float:
        """When it was last made or used, in seconds since 1970."""
        return max(self.stored.since, *(use.time for use in self.uses)) if self.uses else self.stored.since


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `prune` did, or would do."""

    removed: tuple[Stored, ...]
    kept: tuple[Shelf, ...]
    """Old enough, but an unfinished experiment uses it, something that stays stands on it, or somebody makes it at this moment."""
    failed: tuple[Problem, ...]

    @property
    def freed(self) -> int:
        return sum(item.size or 0 for item in self.removed)


def shelves(store: Path, experiments: Path | None, clock: float | None = None) -> list[Shelf]:
    """Everything in the store, with who uses it; `experiments` is a folder of trees beside those that the store knows of.

    `clock`: now, in seconds since 1970."""
    clock = time.time() if clock is None else clock
    known = roots.uses(store, experiments, clock)
    found = [Shelf(item, _users(item, known)) for item in _stored(store, clock)]
    return sorted(found, key=lambda shelf: (ORDER.index(shelf.stored.kind), shelf.stored.engine, -shelf.last))


def prune(store: Path, experiments: Path | None, seconds: float, *, dry: bool) -> Pruned:
    """Remove what no unfinished experiment uses and nobody has used for so long. Everything else is left as it is."""
    clock = time.time()
    removed: list[Stored] = []
    kept: list[Shelf] = []
    failed: list[Problem] = []
    stays: set[str] = set()
    # What stands on something goes before it: code layers before their environment.
    for shelf in sorted(shelves(store, experiments, clock), key=lambda shelf: not shelf.stored.needs):
        if clock - shelf.last < seconds and shelf.stored.kind != "leftover":
            stays |= shelf.stored.needs
            continue
        if shelf.needed or shelf.stored.names & stays:
            stays |= shelf.stored.needs
            kept.append(shelf)
            continue
        if not dry:
            try:
                if not _take(shelf.stored, store, experiments):
                    stays |= shelf.stored.needs
                    kept.append(shelf)
                    continue
            except LaunchError as error:
                stays |= shelf.stored.needs
                failed += error.problems
                continue
            except OSError as error:
                stays |= shelf.stored.needs
                failed.append(Problem(f"It cannot be removed: {error.strerror}.", str(error.filename or store)))
                continue
        removed.append(shelf.stored)
    if not dry:
        roots.forget(store)
    return Pruned(tuple(removed), tuple(kept), tuple(failed))


def _take(item: Stored, store: Path, experiments: Path | None) -> bool:
    """Remove one thing. False: somebody makes it, or has begun to use it since."""
    try:
        with locked(store, item.lock, seconds=0):
            if any(use.unfinished for use in _users(item, roots.uses(store, experiments, time.time()))):
                return False
            if item.paths:
                for path in item.paths:
                    remove(path)
            else:
                import_module(ENGINES[item.engine]).discard(item, store)
    except Timeout:
        return False
    return True


def _users(item: Stored, known: Sequence[Use]) -> tuple[Use, ...]:
    return tuple(use for use in known if use.names & item.names)


def _stored(store: Path, clock: float) -> Iterator[Stored]:
    for module in ENGINES.values():
        listing: Callable[[Path], Iterator[Stored]] = import_module(module).stored
        yield from listing(store)
    for path in store.glob("launcher/*.zip"):
        digest = f"sha256:{path.stem}"
        yield Stored("launcher", "", path.stem, size(path), _since(path), frozenset({digest}), path.stem, (path,))
    for path in store.glob("*/.*.tmp"):
        if clock - _since(path) > LEFT_SECONDS:
            yield Stored("leftover", "", path.name, size(path), _since(path), frozenset(), path.name, (path,))


def _since(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()
