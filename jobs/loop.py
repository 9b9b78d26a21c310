"""The training loop: evaluate when due, else one micro-batch after the other, and ask between them whether to stop."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from jobs import together
from jobs.determinism import random_checksums
from jobs.errors import Failed
from jobs.ledger import Entry
from jobs.microbatch import MicroBatches
from jobs.order import learning_rate_factor
from jobs.recipe import Training
from jobs.state import Progress, TrainingState

Evaluate = Callable[[], Any]
"""The loss and accuracy of the model as it is, or None when it was asked to stop meanwhile."""


class Gauge(Protocol):
    """How busy the device is: see `jobs/gpu.py`."""

    def read(self) -> dict[str, Any]: ...

    def close(self) -> None: ...


class Book(Protocol):
    """What is written line by line: the ledger, the metrics."""

    def append(self, entry: Any, /) -> None: ...


class Shown(Protocol):
    """What a person sees: see `jobs/metrics.py`."""

    def step(self, line: Mapping[str, Any]) -> None: ...

    def evaluation(self, line: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop works with, besides the state that it changes."""

    micro_batches: MicroBatches
    evaluate: Evaluate
    metrics: Book
    ledger: Book
    display: Shown
    gauge: Gauge
    save: Callable[[], None]
    """Called when a checkpoint is due; survives a full disk by itself."""
    look: Callable[[], None]
    """Called between two steps, to tell what became of the checkpoint that is being written."""
    every_steps: int | None
    stop: Callable[[], bool]


def train(state: TrainingState, parts: Parts) -> bool:
    """Go on from where `state` stands. True when the course is finished, False when asked to stop: then the state is at rest,
    between two micro-batches or before an evaluation, and waits to be saved."""
    progress, course = state.progress, parts.micro_batches.course
    while True:
        parts.look()
        if progress.step == progress.evaluated * course.steps_per_epoch and progress.micro == 0:
            if not _evaluate(state, parts):
                return False
        elif progress.step == course.steps:
            return True
        elif not _step(state, parts):
            return False


def _evaluate(state: TrainingState, parts: Parts) -> bool:
    started = time.monotonic()
    result = parts.evaluate()
    progress = state.progress
    progress.epoch_seconds += time.monotonic() - started
    if result is None:
        return False
    _finite(progress, validation_loss=result.loss)
    epoch = progress.evaluated
    line = {
        "kind": "evaluation",
        "step": progress.step,
        "epoch": epoch,
        "train_loss": progress.epoch_loss / progress.epoch_tokens if progress.epoch_tokens else None,
        "val_loss": result.loss,
        "accuracy": result.accuracy,
        "rows": result.rows,
        "epoch_seconds": progress.epoch_seconds,
        **parts.gauge.read(),
    }
    parts.metrics.append(line)
    parts.display.evaluation(line)
    progress.evaluated += 1
    progress.train_loss = line["train_loss"]
    progress.epoch_loss, progress.epoch_tokens, progress.epoch_seconds = 0.0, 0, 0.0
    progress.val_loss, progress.accuracy = result.loss, result.accuracy
    if epoch == 0:
        progress.first_val_loss, progress.first_accuracy = result.loss, result.accuracy
        return True
    if progress.best_loss is None or result.loss < progress.best_loss:
        progress.best_loss, progress.best_epoch = result.loss, epoch
    parts.save()
    return True


def _step(state: TrainingState, parts: Parts) -> bool:
    started = time.monotonic()
    progress, course = state.progress, parts.micro_batches.course
    training, ranks = parts.micro_batches.training, parts.micro_batches.ranks
    count = len(course.micro_batches(progress.step))
    buffers = together.Buffers(state, training, ranks)
    while progress.micro < count:
        if parts.stop():
            progress.epoch_seconds += time.monotonic() - started
            return False
        parts.micro_batches.advance(state)
    loss, tokens = progress.step_loss / max(1, progress.step_tokens), progress.step_tokens
    factor = learning_rate_factor(training.schedule, progress.step, course.steps)
    grad_norm, lr = _update(state, training, factor, max(1, tokens))
    progress.epoch_loss += progress.step_loss
    progress.epoch_tokens += tokens
    progress.step += 1
    entry = Entry(
        step=progress.step,
        data=progress.step_data,
        tokens=tokens,
        lr=lr,
        random=random_checksums(),
        buffers=buffers.settle(),
        loss=loss,
        grad_norm=grad_norm,
        weights=together.checksum(state, ranks),
    )
    parts.ledger.append(entry)
    progress.micro, progress.step_loss, progress.step_tokens, progress.step_data = 0, 0.0, 0, 0
    progress.last_loss = loss
    seconds = time.monotonic() - started
    progress.epoch_seconds += seconds
    line = {
        "kind": "train",
        "step": progress.step,
        "epoch": course.epoch(progress.step - 1) + 1,
        "loss": loss,
        "lr": lr,
        "grad_norm": grad_norm,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "seconds": seconds,
    }
    parts.metrics.append(line)
    parts.display.step(line)
    if parts.every_steps and progress.step % parts.every_steps == 0 and progress.step % course.steps_per_epoch:
        parts.save()
    return True


def _finite(progress: Progress, **numbers: float) -> None:
    """Raises Failed for a number that is none: weights never recover from it, and a GPU would go on for days."""
    for name, number in numbers.items():
        if not math.isfinite(number):
            where = f"after step {progress.step}" if progress.micro == 0 else f"in step {progress.step + 1}"
            raise Failed(f"{name.replace('_', ' ')} is {number} {where}. A lower learning rate or clip_norm may help")


def _update(state: TrainingState, training: Training, factor: float, tokens: int) -> tuple[float, float]:
    """One optimizer step. Returns the gradient's norm before clipping, and the learning rate."""
    gradients = [p.grad for p in state.trainable.values() if p.grad is not None]
    torch._foreach_div_(gradients, float(tokens))
    norm = torch.nn.utils.get_total_norm(gradients)
    size = norm.item()
    _finite(state.progress, loss=state.progress.step_loss, gradient_norm=size)
    if training.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(state.trainable.values(), training.clip_norm, norm)
    lr = training.optimizer.lr * factor
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    return size, lr


def make_optimizer(training: Training, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of the recipe. `fused` is spelt out: torch picks by device, and the choice changes bits. It reads and writes
    each weight once: on a CPU six times as fast as `foreach`."""
    asked = training.optimizer
    if asked.name == "sgd":
        return torch.optim.SGD(
            parameters, lr=asked.lr, momentum=asked.momentum, weight_decay=asked.weight_decay, fused=True
        )
    betas = (asked.betas[0], asked.betas[1])
    return torch.optim.AdamW(
        parameters, lr=asked.lr, betas=betas, eps=asked.eps, weight_decay=asked.weight_decay, fused=True
    )
