"""A step of a run against one of the Hugging Face Trainer on the same work. Run it by hand:

    python tests/bench/bench_trainer.py [ROUNDS]

The same model, rows, batch, accumulation, AdamW, clipping and schedule; both log every step, the run its ledger besides. Neither
saves. Steps are timed from begin to begin, in short trainings in turn; and in CPU time, which a machine in use disturbs less."""

import importlib.util
import statistics
import sys
import tempfile
import time
import warnings
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from measured import batch, model, pinned, table, tree

ROWS, ACCUMULATION, STEPS, LENGTH = 4, 2, 5, 64


Clocks = tuple[float, float]


def clocks() -> Clocks:
    """Seconds of the day and of the CPU."""
    return time.perf_counter(), time.process_time()


def rows() -> list[dict[str, Any]]:
    fed = batch(ROWS * ACCUMULATION * (STEPS + 1), LENGTH)
    return [{name: tensor[number] for name, tensor in fed.items()} for number in range(len(fed["input_ids"]))]


def collate(examples: Any) -> dict[str, Any]:
    import torch

    return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


def trainer(network: Any) -> list[Clocks]:
    """Seconds of each step but the first."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    begun: list[Clocks] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            begun.append(clocks())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            begun.append(clocks())

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=ROWS, gradient_accumulation_steps=ACCUMULATION, max_steps=STEPS,
            learning_rate=1e-5, lr_scheduler_type="cosine", max_grad_norm=1.0, logging_steps=1, report_to="none",
            save_strategy="no", use_cpu=True, disable_tqdm=True, seed=0,
        )  # fmt: skip
        made = Trainer(model=network, args=arguments, train_dataset=rows(), data_collator=collate, callbacks=[Clock()])
        made.log = lambda *_, **__: None  # its lines in the terminal
        made.train()
    return [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(begun[1:])]


def run(network: Any, folder: Path) -> list[Clocks]:
    """The same of a run: `train` with all that a step does besides."""
    import torch
    from content_samples import recipe

    from jobs import loop, trackers
    from jobs.feed import feed
    from jobs.ledger import Ledger
    from jobs.linefile import LineFile, Mark
    from jobs.metrics import Metrics
    from jobs.microbatch import MicroBatches
    from jobs.order import Course
    from jobs.rundir import RunDir
    from jobs.state import TrainingState

    training = recipe(training={
        "epochs": 1, "batch_size": ROWS, "accumulation": ACCUMULATION, "optimizer": {"name": "adamw", "lr": 1e-5},
        "schedule": {"name": "cosine"}, "clip_norm": 1.0,
    }).training  # fmt: skip
    directory = RunDir(folder / "sample", 3)
    for part in directory.folders:
        part.mkdir(parents=True)
    metrics, lines = (LineFile(path, Mark(), lambda: None) for path in (directory.metrics_file, directory.ledger))
    begun: list[Clocks] = []
    state = TrainingState(
        network,
        loop.make_optimizer(training, [p for p in network.parameters() if p.requires_grad]),
        torch.device("cpu"),
    )
    state.progress.evaluated = 1  # the evaluation before the first step is no part of the work

    def stop() -> bool:
        if state.progress.micro == 0:
            begun.append(clocks())
        return state.progress.step == STEPS

    course, examples = Course(3, ROWS * ACCUMULATION * (STEPS + 1), ROWS, ACCUMULATION, 1), rows()
    parts = loop.Parts(
        micro_batches=MicroBatches(
            training, course, feed(examples, course, step=0, done=0, workers=0, collate=collate)
        ),
        evaluate=lambda: None, metrics=Metrics(metrics, trackers.Trackers()), ledger=Ledger(lines),
        display=SimpleNamespace(step=lambda line: None), gauge=SimpleNamespace(read=dict, close=lambda: None),
        save=lambda: None, look=lambda: None, every_steps=None, stop=stop,
    )  # fmt: skip
    assert not loop.train(state, parts)
    metrics.close()
    lines.close()
    return [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(begun[1:])]


def main(rounds: int) -> None:
    if importlib.util.find_spec("accelerate") is None:
        print("NOT MEASURED: the Trainer needs accelerate, which is not installed here.")
        return
    warnings.simplefilter("ignore")
    end = time.monotonic() + 200
    with tree() as folder:
        for lora in (True, False):
            taken: dict[str, list[Clocks]] = {"Trainer": [], "a run": []}
            for number in range(rounds + 1):
                ours = run(model(lora=lora), folder / f"{lora}-{number}")
                theirs = trainer(model(lora=lora))
                if number:
                    taken["Trainer"] += theirs
                    taken["a run"] += ours
                if number and time.monotonic() > end - 100 * lora:
                    break
            name, tokens = "LoRA" if lora else "full", ROWS * ACCUMULATION * LENGTH
            for place, clock in enumerate(("time", "CPU time")):
                values = {who: [each[place] for each in steps] for who, steps in taken.items()}
                table(f"{name}, {tokens} tokens per step, {clock}", values, "Trainer")
            speeds = {who: tokens / statistics.median(each[0] for each in steps) for who, steps in taken.items()}
            print("  " + ", ".join(f"{who}: {value:,.0f} tokens/s" for who, value in speeds.items()))


if __name__ == "__main__":
    pinned()
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
