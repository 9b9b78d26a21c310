"""Comparing two finished runs: the parts that must be equal bit for bit, and the first place where they are not."""

import json
from pathlib import Path
from typing import Any

from jobs.contract import TIMING_FIELDS
from jobs.rundir import RunDir


def metrics(run: RunDir) -> list[dict[str, Any]]:
    """The metrics without what says how fast, in order."""
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMING_FIELDS} for line in lines]


def final_weights(run: RunDir) -> dict[str, Any]:
    """Trained weights and optimizer state of the latest checkpoint."""
    import torch

    state = torch.load(run.checkpoints / "latest", weights_only=True)
    return {"model": state["model"], "optimizer": state["optimizer"]}


def difference(a: Any, b: Any, path: str = "") -> str | None:
    """Where two nested states differ first; None when every bit is the same."""
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(raw(a), raw(b))
        return None if same else path
    if isinstance(a, dict) and isinstance(b, dict):
        if list(a) != list(b):
            return f"{path}: keys"
        return next((found for key in a if (found := difference(a[key], b[key], f"{path}/{key}"))), None)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return f"{path}: length {len(a)} and {len(b)}"
        pairs = enumerate(zip(a, b, strict=True))
        return next((found for i, (x, y) in pairs if (found := difference(x, y, f"{path}[{i}]"))), None)
    return None if type(a) is type(b) and a == b else path


def raw(tensor: Any) -> Any:
    """A tensor's bytes: NaN equals NaN, and 0.0 differs from -0.0."""
    import torch

    return tensor.detach().contiguous().flatten().view(torch.uint8)


def assert_same_run(a: RunDir, b: RunDir) -> None:
    """Two runs that must be one: weights, optimizer, ledger and metrics."""
    assert difference(final_weights(a), final_weights(b)) is None
    assert a.ledger.read_bytes() == b.ledger.read_bytes()
    assert metrics(a) == metrics(b)


def run_of(experiments: Path, name: str, seed: int) -> RunDir:
    return RunDir(experiments / name, seed)
