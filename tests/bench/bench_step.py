"""What a step of a run costs more than the same step of a bare loop: ledger, metrics, TensorBoard, display. Run it by hand:

    python tests/bench/bench_step.py [ROUNDS]

Steps of both loops in turn, on the same model and batch. Then the parts of the difference by themselves: it is smaller than what
two equal steps differ by on a machine that is in use."""

import statistics
import sys
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from measured import batch, in_turn, model, pinned, table, timed, tree

ROWS, ACCUMULATION = 4, 2


def parts_of(folder: Path, training: Any) -> Any:
    from content_samples import specification

    from jobs import trackers
    from jobs.ledger import Ledger
    from jobs.linefile import LineFile, Mark
    from jobs.loop import Parts
    from jobs.metrics import Metrics
    from jobs.microbatch import MicroBatches
    from jobs.order import Course
    from jobs.rundir import RunDir

    run = RunDir(folder / "sample", 3)
    for part in run.folders:
        part.mkdir(parents=True)
    made = specification(tracking={"tensorboard": True})
    metrics, lines = (LineFile(path, Mark(), lambda: None) for path in (run.metrics_file, run.ledger))
    tracker = trackers.open_trackers(made.recipe.tracking, run, made, 0)
    return Parts(
        micro_batches=MicroBatches(training, Course(3, 10**6, ROWS, ACCUMULATION, 1), repeat(batch(ROWS))),
        evaluate=lambda: None,
        metrics=Metrics(metrics, tracker), ledger=Ledger(lines), display=SimpleNamespace(step=lambda line: None),
        gauge=SimpleNamespace(read=dict, close=lambda: None), save=lambda: None, look=lambda: None, every_steps=None,
        stop=lambda: False,
    )  # fmt: skip


def bare(network: Any, optimizer: Any, batches: Iterator[Any], clip: float | None) -> None:
    """What anyone would write: forward, backward, clip, step; the loss read once."""
    import torch
    from torch.nn import functional

    network.train()
    total = 0.0
    for _ in range(ACCUMULATION):
        fed = next(batches)
        logits = network(input_ids=fed["input_ids"], attention_mask=fed["attention_mask"]).logits[:, :-1]
        labels = fed["labels"][:, 1:]
        loss = functional.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), labels.reshape(-1)) / ACCUMULATION
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_([p for p in network.parameters() if p.grad is not None], clip or 1e9)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def measure(name: str, folder: Path, network: Any, rounds: int) -> None:
    import torch
    from content_samples import recipe

    from jobs import loop
    from jobs.feed import checksum
    from jobs.state import TrainingState

    training = recipe(training={
        "epochs": 1, "batch_size": ROWS, "accumulation": ACCUMULATION, "optimizer": {"name": "adamw", "lr": 1e-5},
    }).training  # fmt: skip
    optimizer = loop.make_optimizer(training, [p for p in network.parameters() if p.requires_grad])
    state, parts = TrainingState(network, optimizer, torch.device("cpu")), parts_of(folder, training)
    clip = training.clip_norm
    found = in_turn(
        {
            "bare loop": lambda: timed(lambda: bare(network, optimizer, parts.micro_batches.batches, clip)),
            "a run's step": lambda: timed(lambda: loop._step(state, parts)),
        },
        rounds,
        most=12,
    )
    trained = sum(p.numel() for p in state.trainable.values())
    tokens = ROWS * ACCUMULATION * 128
    table(f"{name}: {trained / 1e6:.2f}M parameters trained, {tokens} tokens per step", found, "bare loop")
    step = statistics.median(found["bare loop"])
    fed, line = batch(ROWS), {"kind": "train", "step": 1, "epoch": 1, "loss": 1.0, "lr": 1e-3, "grad_norm": 1.0, "tokens": 1,
                              "tokens_per_second": 1.0, "seconds": 1.0}  # fmt: skip
    entry = loop.Entry(1, 1, 1, 1.0, loop.random_checksums(), None, 1.0, 1.0, state.checksum())
    each = {
        "checksum of the weights": state.checksum,
        "checksum of the batches": lambda: [checksum(fed, micro) for micro in range(ACCUMULATION)],
        "checksum of the generators": loop.random_checksums,
        "line of the ledger": lambda: parts.ledger.append(entry),
        "line of the metrics, and TensorBoard": lambda: parts.metrics.append(line),
    }
    whole = 0.0
    for label, work in each.items():
        value = statistics.median([timed(work) for _ in range(15)])
        whole += value
        print(f"  {label:44} {value * 1e3:9.3f}   {value / step:.3%} of a bare step")
    print(f"  {'all of it':44} {whole * 1e3:9.3f}   {whole / step:.3%} of a bare step")


def main(rounds: int) -> None:
    with tree() as folder:
        measure("LoRA", folder / "lora", model(lora=True), rounds)
        measure("full", folder / "full", model(lora=False), rounds)


if __name__ == "__main__":
    pinned()
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 11)
