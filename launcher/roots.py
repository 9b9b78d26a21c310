"""Which experiments use a store: each launch says so before it looks for its image, so that nothing is removed under it.

A store serves many repositories, and folders of experiments that the one who tidies up may not even be able to read."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jobs.contract import ImagePin
from jobs.files import now, publish_json
from jobs.rundir import Tree

FRESH_SECONDS = 24 * 3600
"""A run that ended less than this ago may still have a job that is ending."""


@dataclass(frozen=True, slots=True)
class Root:
    """`STORE/roots/HASH.json`: a tree whose last launch used these, by their names in pins."""

    file: Path
    tree: Path
    names: frozenset[str]
    time: float


@dataclass(frozen=True, slots=True)
class Use:
    """One experiment, and everything in the store that its runs name."""

    tree: Path
    names: frozenset[str]
    unfinished: bool
    """Also: it cannot be seen from here whether it is."""
    time: float
    """When it was last launched, or ended. Seconds since 1970."""


def register(store: Path, tree: Path, names: Iterable[str]) -> None:
    """Say that this tree is about to use these. Raises OSError."""
    file = store / "roots" / f"{hashlib.sha256(str(tree).encode()).hexdigest()[:32]}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    publish_json(file, {"tree": str(tree), "names": sorted(names), "time": now()})


def registered(store: Path) -> list[Root]:
    """All that are registered. One that cannot be read is passed over: it was never whole."""
    found = []
    for file in sorted((store / "roots").glob("*.json")):
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
            time = datetime.fromisoformat(value["time"]).timestamp()
            found.append(Root(file, Path(value["tree"]), frozenset(value["names"]), time))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def uses(store: Path, experiments: Path | None, clock: float) -> list[Use]:
    """Every experiment that is registered, and those in a folder of experiments. `clock`: now, in seconds since 1970."""
    by_tree = {root.tree: root for root in registered(store)}
    folder = sorted(experiments.glob("*/config.yaml")) if experiments is not None and experiments.is_dir() else []
    trees = dict.fromkeys([*by_tree, *(path.parent for path in folder)])
    return [use for tree in trees if (use := _use(tree, by_tree.get(tree), clock)) is not None]


def forget(store: Path) -> None:
    """Drop what is registered for trees that are gone for good: their folder is there, and they are not in it."""
    for root in registered(store):
        if root.tree.parent.is_dir() and not root.tree.exists():
            root.file.unlink(missing_ok=True)


def _use(tree: Path, root: Root | None, clock: float) -> Use | None:
    names, time = (root.names, root.time) if root else (frozenset[str](), 0.0)
    fresh = clock - time < FRESH_SECONDS
    try:
        if not tree.is_dir():
            # Just being launched; or on a file system that is away: then what it used last stays.
            return (
                Use(tree, names, unfinished=True, time=time) if root and (fresh or not tree.parent.is_dir()) else None
            )
        found, unfinished, ended = _read(Tree(tree), clock)
    except (OSError, ValueError, KeyError, TypeError):
        return Use(tree, names, unfinished=True, time=time)
    return Use(tree, names | found, unfinished=unfinished or fresh, time=max(time, ended))


def _read(tree: Tree, clock: float) -> tuple[frozenset[str], bool, float]:
    """What a tree names, whether it is unfinished, and when its last run ended. Raises OSError and what broken files raise."""
    names: set[str] = set()
    unfinished, ended = False, 0.0
    for seed in tree.seeds():
        run = tree.run(seed)
        names |= named(ImagePin(**json.loads(run.specification.read_text(encoding="utf-8"))["image"]))
        time = run.done.stat().st_mtime if run.done.exists() else None
        unfinished |= time is None or clock - time < FRESH_SECONDS
        ended = max(ended, time or 0.0)
    for path in tree.submissions.glob("*/placement.json"):
        names.add(str(json.loads(path.read_text(encoding="utf-8")).get("launcher", "")))
    return frozenset(names), unfinished, ended


def named(pin: ImagePin) -> set[str]:
    """All by which a pin refers to something in a store."""
    return {name for name in (pin.environment, pin.code, pin.layer, pin.key) if name}
