"""Comparing two finished runs: by the program that a user has for it, and by the bytes besides."""

import json
from pathlib import Path
from typing import Any

from jobs.contract import TIMING_FIELDS
from jobs.rundir import RunDir


def metrics(run: RunDir) -> list[dict[str, Any]]:
    """The metrics without what says how fast, in order."""
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMING_FIELDS} for line in lines]


def assert_same_run(a: RunDir, b: RunDir) -> None:
    """Two runs that must be one: weights, optimizer, ledger and metrics."""
    from jobs.compare import difference

    found = difference(a, b)
    assert found is None, str(found)
    assert a.ledger.read_bytes() == b.ledger.read_bytes()
    assert metrics(a) == metrics(b)


def run_of(experiments: Path, name: str, seed: int) -> RunDir:
    return RunDir(experiments / name, seed)
