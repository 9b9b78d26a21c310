"""Where two runs of one specification differ first: the step, and the piece of the state that was not the same.

python -m jobs.compare experiments/A/artifacts/seed-0/run.json experiments/B/artifacts/seed-0/run.json"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from jobs.checkpoint import Checkpoints
from jobs.contract import TIMING_FIELDS
from jobs.ledger import broken_link
from jobs.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Difference:
    """The first one: everything before it is the same to the bit."""

    step: int | None
    """The step in which it shows; None for what belongs to no step."""
    piece: str
    """What of the state was not the same when the step began, as far as the lines tell."""
    detail: str
    """Where it shows, with both values."""

    def __str__(self) -> str:
        where = "differs" if self.step is None else f"differs first at step {self.step}"
        return f"{where}, in {self.piece}: {self.detail}"


PIECES: Final = {
    "data": "the position in the data",
    "tokens": "the tokens counted in the step under way",
    "lr": "the schedule",
    "buffers": "the model's buffers",
}
"""What a field of the ledger, as the first that differs, tells at once."""

SUMS: Final = "the sums of the epoch"
"""Over what its training loss is the mean."""


def difference(a: RunDir, b: RunDir) -> Difference | None:
    """The first difference of two finished runs in ledger, metrics and final state; times aside. None: identical.

    Raises OSError for files that are not there."""
    return _in_ledgers(a, b) or _in_metrics(_metrics(a), _metrics(b)) or _in_states(a, b)


def _in_ledgers(a: RunDir, b: RunDir) -> Difference | None:
    for run in (a, b):
        if (number := broken_link(run.ledger)) is not None:
            lines = _lines(run.ledger)
            step = lines[number - 1].get("step") if number <= len(lines) else None
            return Difference(step, "the ledger's length or head", f"{run.ledger}:{number}: its chain does not hold")
    for first, second in zip_longest(_lines(a.ledger), _lines(b.ledger)):
        if first is None or second is None:
            step = (first or second or {}).get("step")
            return Difference(step, "the position", f"{(b if second is None else a).ledger} has no line for it")
        fields = [name for name in {**first, **second} if name != "previous" and first.get(name) != second.get(name)]
        if fields:
            return _of_step(first, second, fields)
    return None


def _of_step(first: Mapping[str, Any], second: Mapping[str, Any], fields: Sequence[str]) -> Difference:
    """The cause: a field that follows from nothing before it, or what the results tell together. Fields come in causal order."""
    leading = fields[0]
    if leading == "step":
        piece = "the position"
    elif "class" in fields and leading not in {"data", "tokens"}:
        piece = "the hardware class"  # the config had it marked instead of refused
    elif leading == "random":
        names = [name for name in first["random"] if first["random"][name] != second["random"].get(name)]
        piece = " and ".join(f"{name}'s generator" for name in names)
    elif leading in PIECES:
        piece = PIECES[leading]
    elif fields == ["loss"]:
        piece = "the loss summed in the step under way"  # the gradients of the same micro-batches are the same
    elif leading == "loss":
        piece = "the weights"
    elif leading == "grad_norm":
        piece = "the gradients of the step under way"  # the same losses, from the same weights
    else:
        piece = "the optimizer's moments"  # the same gradients and learning rate, applied to the same weights
    shown = ", ".join(f"{name} {_shown(first.get(name))} and {_shown(second.get(name))}" for name in fields)
    return Difference(int(first["step"]), piece, shown)


def _in_metrics(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> Difference | None:
    """The ledgers are the same: so are the steps, and what differs was summed up or written besides."""
    for number, (first, second) in enumerate(zip_longest(a, b), start=1):
        if first is None or second is None or (first["kind"], first["step"]) != (second["kind"], second["step"]):
            step = (second or first or {}).get("step")
            return Difference(step, "the length of the metrics", f"line {number} is missing, doubled or another's")
        fields = [name for name in first if first[name] != second.get(name)]
        if fields:
            name = fields[0]
            piece = SUMS if name == "train_loss" else f"the metrics' {name}"
            return Difference(first["step"], piece, f"{name} {first[name]} and {second.get(name)}")
    return None


def _in_states(a: RunDir, b: RunDir) -> Difference | None:
    first, second = _state(a), _state(b)
    for part in ("model", "buffers", "optimizer", "gradients"):
        place = first_place(first[part], second[part], part)
        if place is not None:
            return Difference(first["progress"]["step"], f"the final {part}", place)
    return None


def _state(run: RunDir) -> dict[str, Any]:
    found = Checkpoints(run.checkpoints, 1, lambda: None).newest(lambda _: None)
    if found.state is None:
        raise FileNotFoundError(f"{run.checkpoints}: no whole checkpoint")
    return found.state


def first_place(a: Any, b: Any, place: str = "") -> str | None:
    """Where two nested states differ first; None when every bit is the same: NaN equals NaN, and 0.0 differs from -0.0."""
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(_raw(a), _raw(b))
        return None if same else place
    if isinstance(a, dict) and isinstance(b, dict):
        if list(a) != list(b):
            return f"{place}: keys"
        pairs: Iterator[tuple[str, Any, Any]] = ((f"{place}/{key}", a[key], b[key]) for key in a)
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return f"{place}: length {len(a)} and {len(b)}"
        pairs = ((f"{place}/{number}", *both) for number, both in enumerate(zip(a, b, strict=True)))
    else:
        return None if type(a) is type(b) and a == b else place
    return next((found for at, x, y in pairs if (found := first_place(x, y, at))), None)


def _raw(tensor: Any) -> Any:
    import torch

    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _metrics(run: RunDir) -> list[dict[str, Any]]:
    lines = _lines(run.metrics_file)
    return [{key: value for key, value in line.items() if key not in TIMING_FIELDS} for line in lines]


def _shown(value: Any) -> str:
    return f"{value} ({float.fromhex(value):.9g})" if isinstance(value, str) and "0x" in value else str(value)


def main(arguments: list[str]) -> int:
    """0: identical; 1: they differ, or their bits are not comparable."""
    a, b = (RunDir.of_specification(Path(argument)) for argument in arguments)
    found = difference(a, b)
    if found is None:
        print("identical")
        return 0
    classes = _state(a)["numerics"], _state(b)["numerics"]
    other = [f"{name}: {classes[0].get(name)} and {classes[1].get(name)}" for name in sorted({*classes[0], *classes[1]})
             if classes[0].get(name) != classes[1].get(name)]  # fmt: skip
    if other:
        print(f"same inputs, other hardware class ({'; '.join(other)}): {found}")
    else:
        print(found)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
