"""A training that was stopped and resumed, against the same one left in peace: whose bits are the same? Run it by hand:

    python tests/bench/bench_trainer_resume.py

LoRA with dropout on a small GPT-2, with rows as they are and with rows that draw (augmentation), loaded by the process itself or by
two workers, stopped between two steps and in an accumulation. Of the Hugging Face Trainer, as its documentation resumes:
`resume_from_checkpoint`; and of a run. It prints how many of the trained values differ in the end."""

import contextlib
import importlib.util
import io
import random
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from measured import batch, model, pinned, tree

ROWS, BATCH, ACCUMULATION, EPOCHS, LENGTH = 48, 4, 3, 3, 24
STEP = 6
"""In the middle of the second epoch of three."""
PLACES = {"never, done again": None, "between two steps": 0, "in an accumulation": 1}
"""Micro-batches of the step under way that are done when it is stopped."""


class Rows:
    """Tokens; where it draws, every one of them is exchanged with a chance of one in ten."""

    def __init__(self, *, draws: bool) -> None:
        self.fed, self.draws = batch(ROWS, LENGTH), draws

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, number: int) -> dict[str, Any]:
        import torch

        row = {name: tensor[number].clone() for name, tensor in self.fed.items()}
        if self.draws:
            chosen = torch.rand(LENGTH) < 0.1
            row["input_ids"][chosen] = random.randrange(258)
        return row


def collate(examples: Sequence[Any]) -> dict[str, Any]:
    import torch

    return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


def trained(network: Any) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in network.named_parameters() if value.requires_grad}


def trainer(folder: str, workers: int, micro: int | None, *, draws: bool) -> dict[str, Any]:
    """What is trained in the end; stopped once at STEP, and `micro` micro-batches, unless that is None."""
    from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

    class Stop(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, _arguments: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_save = control.should_training_stop = micro == 0 and state.global_step == STEP

        def on_substep_end(self, _arguments: Any, state: Any, control: Any, **_: Any) -> None:
            if micro == 1 and state.global_step == STEP:
                control.should_save = control.should_training_stop = True

    def made(callbacks: list[Any]) -> Any:
        set_seed(0)
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=BATCH, gradient_accumulation_steps=ACCUMULATION, num_train_epochs=EPOCHS,
            learning_rate=1e-3, lr_scheduler_type="cosine", max_grad_norm=1.0, report_to="none", save_strategy="no",
            use_cpu=True, disable_tqdm=True, seed=0, dataloader_num_workers=workers, logging_strategy="no",
        )  # fmt: skip
        found = Trainer(
            model=model(lora=True),
            args=arguments,
            train_dataset=Rows(draws=draws),
            data_collator=collate,
            callbacks=callbacks,
        )
        found.log = lambda *_, **__: None  # its lines in the terminal
        return found

    if micro is not None:
        made([Stop()]).train()
    going = made([])
    going.train(resume_from_checkpoint=micro is not None)
    return trained(going.model)


def run(folder: Path, workers: int, micro: int | None, *, draws: bool) -> dict[str, Any]:
    """The same of a run."""
    import miniature
    import torch

    from jobs import session, trackers
    from jobs.contract import Exit
    from jobs.determinism import make_deterministic
    from jobs.fence import Fence
    from jobs.preemption import StopFlag
    from jobs.recipe import Specification
    from jobs.rundir import RunDir

    path = miniature.make_tree(
        folder, checkpoints={"every_steps": None}, data={"workers": workers},
        training={"epochs": EPOCHS, "batch_size": BATCH, "accumulation": ACCUMULATION,
                  "optimizer": {"name": "adamw", "lr": 1e-3}, "schedule": {"name": "cosine"}, "clip_norm": 1.0},
    )  # fmt: skip
    specification, directory = Specification.model_validate_json(path.read_bytes()), RunDir.of_specification(path)
    make_deterministic(specification.recipe.numerics)

    def attempt(stop: StopFlag) -> tuple[Exit, Any]:
        network = model(lora=True)
        work = session.Work(
            model=network, device=torch.device("cpu"), rows=Rows(draws=draws), collate=collate,
            evaluate=lambda _: miniature.Evaluated(1.0, None, 1), numerics={"class": "this"},
            open_tracker=lambda _: trackers.Trackers(), gauge=SimpleNamespace(read=dict, close=lambda: None),
        )  # fmt: skip
        return session.attempt(
            specification, directory, Fence(directory, directory.take_attempt()), work, stop
        ), network

    with contextlib.redirect_stdout(io.StringIO()):
        if micro is not None:
            code, _ = attempt(miniature.StopAfter(STEP * ACCUMULATION + micro + 1))
            assert code is Exit.SAVED
        code, network = attempt(StopFlag())
    assert code is Exit.DONE
    return trained(network)


def differing(calm: dict[str, Any], other: dict[str, Any]) -> str:
    count = sum(int((calm[name] != other[name]).sum()) for name in calm)
    return f"{count:,} of {sum(value.numel() for value in calm.values()):,} differ" if count else "the same bits"


def main() -> None:
    if importlib.util.find_spec("accelerate") is None:
        print("NOT MEASURED: the Trainer needs accelerate, which is not installed here.")
        return
    warnings.simplefilter("ignore")
    print(f"{'rows':8} {'workers':8} {'stopped':20} {'Trainer':26} a run", flush=True)
    with tree() as folder:
        for draws in (False, True):
            for workers in (0, 2):
                with tempfile.TemporaryDirectory() as calm:
                    theirs = trainer(calm, workers, None, draws=draws)
                ours = run(folder / f"calm-{draws}-{workers}", workers, None, draws=draws)
                for place, micro in PLACES.items():
                    with tempfile.TemporaryDirectory() as stopped:
                        first = differing(theirs, trainer(stopped, workers, micro, draws=draws))
                    second = differing(ours, run(folder / f"{draws}-{workers}-{micro}", workers, micro, draws=draws))
                    rows = "draw" if draws else "as is"
                    print(f"{rows:8} {workers:<8} {place:20} {first:26} {second}", flush=True)


if __name__ == "__main__":
    pinned()
    main()
