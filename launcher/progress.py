"""How far a run is, and how well it does, read from its tree."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jobs.files import read_lines
from jobs.rundir import RunDir, Tree


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, by its metrics. None: not said."""

    step: int | None = None
    steps: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    val_loss: float | None = None
    accuracy: float | None = None


TAIL: Final = 1 << 18
LARGEST: Final = 1e300


def progress(run: RunDir) -> Progress:
    """From the end of metrics.jsonl, and from done.json once that stands."""
    found: dict[str, Any] = {}
    for line in reversed(_tail(run.metrics_file)):
        found = _numbers(line) | found
        if {"step", "epoch", "val_loss"} <= found.keys():
            break
    found |= _numbers(_json(run.done))
    recipe = _json(run.specification).get("recipe") or {}
    epochs = (recipe.get("training") or {}).get("epochs")
    return Progress(**found, steps=_steps(run), epochs=epochs)


def _numbers(line: Mapping[str, Any]) -> dict[str, Any]:
    """What it says of the progress. A user's own job writes what it likes: what is no number there is passed over."""
    return {
        key: line[key]
        for key, kind in (("step", int), ("epoch", int), ("val_loss", float | int), ("accuracy", float | int))
        if isinstance(line.get(key), kind) and is_number(line[key])
    }


def is_number(value: Any) -> bool:
    """Whether it is one that can be shown and added: finite, not a truth value, not an integer of hundreds of digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < LARGEST


def _steps(run: RunDir) -> int | None:
    """Of the whole run, as its last start said."""
    counts = [line["steps"] for line in read_lines(run.events) if isinstance(line.get("steps"), int)]
    return counts[-1] if counts else None


def _tail(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [value for part in text.splitlines() if isinstance(value := _value(part), dict)]


def _json(path: Path) -> Mapping[str, Any]:
    try:
        value = _value(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}
    return value if isinstance(value, dict) else {}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def provenance(tree: Tree) -> Mapping[str, Any]:
    """Where an experiment came from: commit and dirty, from the specification of its first seed."""
    seeds = tree.seeds()
    return _json(tree.run(seeds[0]).specification) if seeds else {}


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
