"""A run small enough to be broken off a hundred times: the real core, around a model of a few weights that draws all it can.

Its rows, and its forward pass, draw from the global generators of python, numpy and torch, as a user's own code may. As a program,
`python miniature.py RUN` is `python -m jobs RUN` with this model in the place of a transformer."""

import hashlib
import os
import random
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from jobs.contract import Exit
from jobs.files import read_lines
from jobs.preemption import StopFlag
from jobs.rundir import RunDir

VOCABULARY, WIDTH, LENGTH = 23, 16, 8
ROWS, VALIDATION_ROWS = 26, 7
EMPTY = hashlib.sha256().hexdigest()
NAME, SEED = "tiny", 5
PAUSE = float(os.environ.get("MINIATURE_PAUSE", "0"))
"""Seconds per row: long enough for a blow to fall anywhere."""


MIDDLE = 4 + 9 + 4 + 3 + 2
"""Asks until the first micro-batch of step 5 is done: one checkpoint after the epoch, two in between, one of the stop."""


PATIENCE = 60.0
"""Seconds after which something that is waited for will not come."""


def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


class Evaluated(NamedTuple):
    loss: float
    accuracy: float | None
    rows: int


class StopAfter(StopFlag):
    """Raised at the n-th time that it is asked for: a stop at an exact place."""

    def __init__(self, asks: int) -> None:
        super().__init__()
        self.left = asks

    def __call__(self) -> bool:
        self.left -= 1
        if self.left <= 0:
            self._raise(15, None)
        return super().__call__()


def specification_of(**changes: Any) -> dict[str, Any]:
    """A specification as run.json has it, with sections changed: `training={"accumulation": 1}`."""
    recipe: dict[str, Any] = {
        "model": {"architecture": {"type": "gpt2", "settings": {}}, "pretrained": None},
        "lora": None,
        "data": {
            "builtin": {"name": "arithmetic", "train_rows": ROWS, "validation_rows": 7, "sha256": "0" * 64},
            "max_length": LENGTH,
            "workers": 0,
        },
        "training": {
            "epochs": 3,
            "batch_size": 3,
            "accumulation": 3,
            "optimizer": {"name": "adamw", "lr": 0.02, "weight_decay": 0.01},
            "schedule": {"name": "cosine", "warmup_steps": 2, "final_fraction": 0.1},
            "precision": "fp32",
        },
        "checkpoints": {"every_steps": 2, "keep": 3},
        "numerics": {"device": "cpu", "threads": 1, "cpu_capability": "avx2", "deterministic": True},
    }
    top = {key: changes.pop(key) for key in list(changes) if key not in recipe}
    for section, fields in changes.items():
        recipe[section] = {**recipe[section], **fields}
    return {
        "format": 1,
        "experiment": NAME,
        "seed": SEED,
        "seeds": [SEED],
        "commit": "a" * 40,
        "dirty": False,
        "config_sha256": "b" * 64,
        "image": {"engine": "host", "environment": "sha256:1", "code": "git-tree:2", "python": "3.11.2", "base": None},
        "project_root": "/nowhere",
        "launched": {},
        "recipe": recipe,
        **top,
    }


def make_tree(root: Path, **changes: Any) -> Path:
    """A tree with the specification in it; returns the path of run.json."""
    import json

    from jobs.recipe import Specification

    run = RunDir(root / NAME, SEED)
    run.artifacts.mkdir(parents=True)
    text = json.dumps(specification_of(**changes))
    run.specification.write_text(Specification.model_validate_json(text).model_dump_json())
    return run.specification


def start(path: Path, stop: StopFlag, numerics: dict[str, str] | None = None, attempt: int | None = None) -> Exit:
    """One attempt: `jobs.run.run` with the miniature in the place of data and transformer."""
    import torch

    from jobs import layout, rendezvous, session, together
    from jobs.determinism import make_deterministic
    from jobs.errors import Stopped
    from jobs.fence import Fence
    from jobs.ranks import SharedStop
    from jobs.recipe import Specification

    specification, directory = Specification.model_validate_json(path.read_bytes()), RunDir.of_specification(path)
    if directory.done.exists():
        return Exit.DONE
    fence = Fence(directory, attempt or layout.take_attempt(directory))
    make_deterministic(specification.recipe.numerics)
    parallel = specification.recipe.training.parallel
    place = layout.read(parallel.ranks, elastic=parallel.elastic)
    try:
        ranks = rendezvous.meet(place, directory.rendezvous(fence.attempt), torch.device("cpu"), stop)
    except Stopped:
        return Exit.SAVED
    try:
        numerics = numerics or {"class": str(ranks.rank) if "MINIATURE_CLASS" in os.environ else "this"}
        together.same_machine(ranks, numerics, "this machine")
        work = _work(specification, numerics, ranks)
        return session.attempt(
            specification, directory, fence, work, SharedStop(stop, ranks) if ranks.size > 1 else stop
        )
    finally:
        ranks.close()


def until_done(path: Path, stop: Callable[[], StopFlag], most: int = 400) -> int:
    """Attempts until the run is done; each is stopped by its own flag."""
    for attempt in range(1, most + 1):
        if start(path, stop()) is Exit.DONE:
            return attempt
    raise AssertionError(f"not done after {most} attempts")


def calm(path: Path) -> RunDir:
    """The run, never stopped."""
    assert start(path, StopFlag()) is Exit.DONE
    return RunDir.of_specification(path)


def stopped(root: Path, asks: int = MIDDLE, **changes: Any) -> tuple[Path, RunDir]:
    """A run that was stopped once."""
    path = make_tree(root, **changes)
    assert start(path, StopAfter(asks)) is Exit.SAVED
    return path, RunDir.of_specification(path)


def files(run: RunDir) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


def event(run: RunDir, kind: str) -> dict[str, Any]:
    """The last one of its kind."""
    return [line for line in read_lines(run.events) if line["event"] == kind][-1]


def newest(run: RunDir) -> Path:
    return run.checkpoints / (run.checkpoints / "latest").readlink()


def _work(specification: Any, numerics: dict[str, str], ranks: Any) -> Any:
    import torch

    from jobs.microbatch import autocast, token_loss
    from jobs.session import Work

    training, device = specification.recipe.training, torch.device("cpu")
    counts = not training.parallel.elastic or "MINIATURE_COUNTS" in os.environ
    model = _model(specification.seed, counts=counts, errs=ranks.rank > 0 and "MINIATURE_ERRS" in os.environ)

    def evaluate(stop: Callable[[], bool]) -> Evaluated | None:
        model.eval()
        losses, tokens = [], 0
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad(), autocast(training, device):
            for _ in range(4):
                time.sleep(PAUSE)
                if stop():
                    return None
                loss, count = token_loss(model, _collate([_tokens(generator) for _ in range(2)]))
                losses.append(float(loss))
                tokens += count
        return Evaluated(sum(losses) / tokens, 1 / (1 + sum(losses) / tokens), VALIDATION_ROWS)

    silent = SimpleNamespace(log=lambda line: random.random(), close=lambda code: None)  # it draws, as a real one may
    return Work(
        model=model,
        device=device,
        rows=_Rows(),
        collate=_collate,
        evaluate=evaluate,
        numerics=numerics,
        open_tracker=lambda step: silent,
        gauge=SimpleNamespace(read=lambda: {"gpu_utilization": None, "gpu_reason": "none"}, close=lambda: None),
        ranks=ranks,
    )


def _model(seed: int, *, counts: bool, errs: bool) -> Any:
    """`counts`: whether its forward pass changes a buffer. `errs`: whether it changes a weight by itself, in the third step."""
    import numpy as np
    import torch

    torch.manual_seed(seed)

    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(VOCABULARY, WIDTH)
            self.embedding.weight.requires_grad_(requires_grad=False)
            self.down, self.up = torch.nn.Linear(WIDTH, 4), torch.nn.Linear(4, WIDTH)
            self.norm, self.head = torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, VOCABULARY)
            self.unused = torch.nn.Parameter(torch.ones(3))  # never gets a gradient
            self.passes = 0
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
            hidden = self.embedding(input_ids).cumsum(1)
            hidden = hidden + self.up(torch.nn.functional.gelu(self.down(hidden)))
            if self.training:
                self.passes += 1
                if errs and self.passes == 3:  # one in each step
                    self.head.bias.data[0] += 1e-6
                self.seen += input_ids.shape[0] if counts else 0
                hidden = torch.nn.functional.dropout(hidden * (1 + 0.001 * self.seen), 0.1) * (
                    1 + 0.01 * random.random()
                )
                hidden = hidden * (1 + 0.01 * np.random.random())  # noqa: NPY002
            return SimpleNamespace(logits=self.head(self.norm(hidden)))

    return Tiny()


class _Rows:
    """Rows with a random transform that draws from all three generators."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        import numpy as np
        import torch

        time.sleep(PAUSE)
        tokens = _tokens(torch.Generator().manual_seed(index))
        tokens[0] = torch.randint(VOCABULARY, ()).item()
        tokens[1] = random.randrange(VOCABULARY)
        tokens[2] = np.random.randint(VOCABULARY)  # noqa: NPY002
        return tokens


def _tokens(generator: Any) -> Any:
    import torch

    return torch.randint(VOCABULARY, (LENGTH,), generator=generator)


def _collate(rows: Any) -> dict[str, Any]:
    import torch

    ids = torch.stack(list(rows))
    labels = ids.clone()
    labels[:, :2] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def main() -> int:
    """The real entry point of a run, with `start` in the place of `jobs.run.run`."""
    import jobs.__main__

    stand_in = types.ModuleType("jobs.run")
    stand_in.run = lambda path, stop, _origin: start(path, stop)  # type: ignore[attr-defined]
    sys.modules["jobs.run"] = stand_in
    return jobs.__main__.main(sys.argv[1:])


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.exit(code)
