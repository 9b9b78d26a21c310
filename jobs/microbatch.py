"""The micro-batches of a step: computed here or by the ranks together, counted and added in their order."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from jobs.data.rows import IGNORED
from jobs.determinism import seed_everything, undisturbed
from jobs.feed import Batch, checksum
from jobs.order import Course
from jobs.ranks import ALONE, Ranks
from jobs.recipe import Training
from jobs.state import Progress, TrainingState


class Counted(NamedTuple):
    """What a micro-batch adds to its step, besides gradients."""

    loss: float
    """Summed over its tokens."""
    tokens: int
    data: int
    """Checksum of the batch as it was fed."""


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """Those of one attempt. Called once for each stretch between two places where a run may stop."""

    training: Training
    course: Course
    batches: Iterator[Batch]
    """Those of this rank, in the order in which it computes them."""
    ranks: Ranks = ALONE

    @property
    def placed(self) -> bool:
        """Whether all that a forward pass draws is a function of its place, python's and numpy's numbers too: with several ranks
        nobody could say what was drawn before. Alone, the generators go on from where they were, as users expect."""
        return self.ranks.size > 1 or self.training.parallel.elastic

    def advance(self, state: TrainingState) -> None:
        """Compute micro-batches of the step under way: the next one; one of each rank, where they are elastic; else all that the
        step has. Their gradients lie in `.grad` then, the sum of all ranks'."""
        first, count = state.progress.micro, len(self.course.micro_batches(state.progress.step))
        if self.ranks.size == 1:
            _count(state.progress, [self._compute(state, first)])
        elif self.training.parallel.elastic:
            # Rounds begin at multiples of the ranks, so that a run stopped within one goes on with the rest of it.
            self._in_order(state, first, min(count, (first // self.ranks.size + 1) * self.ranks.size))
        else:
            self._reduced(state, first, count)

    def _compute(self, state: TrainingState, micro: int) -> Counted:
        """Forward and backward pass; the gradients are added to those in `.grad`."""
        fed = next(self.batches)
        batch = {name: tensor.to(state.device, non_blocking=True) for name, tensor in fed.items()}
        state.model.train()
        seed = self.course.dropout_seed(state.progress.step, micro)
        with undisturbed() if self.placed else contextlib.nullcontext():
            if self.placed:
                seed_everything(seed & 0xFFFFFFFF)
            torch.manual_seed(seed)
            with autocast(self.training, state.device):
                loss, tokens = token_loss(state.model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
        return Counted(loss.item(), tokens, checksum(fed, micro))

    def _in_order(self, state: TrainingState, first: int, end: int) -> None:
        """One micro-batch of each rank, its gradients computed from nothing and then added in the order of the micro-batches: to
        the bits what one rank comes to, whose backward passes add them one after the other."""
        parameters = list(state.trainable.values())
        sums = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        mine = [self._compute(state, micro) for micro in self.ranks.share(first, end)]
        told = self.ranks.numbers([*_told(mine, 1), *(float(p.grad is not None) for p in parameters)])
        # Those that no rank has a gradient for are not sent; what only some have is sent as zeros by the others, and not added.
        sent = [number for number in range(len(parameters)) if any(each[3 + number] for each in told)]
        received = self.ranks.tensors([_gradient(parameters[number]) for number in sent])
        for micro in range(first, end):
            rank = micro % self.ranks.size
            had, added = [], []
            for place, number in enumerate(sent):
                so_far, gradient = sums[number], received[rank][place]
                if not told[rank][3 + number]:
                    continue
                if so_far is None:
                    sums[number] = gradient
                else:
                    had.append(so_far)
                    added.append(gradient)
            if had:
                torch._foreach_add_(had, added)
        for parameter, gradients in zip(parameters, sums, strict=True):
            parameter.grad = gradients
        _count(state.progress, [_counted(told, micro, first, self.ranks.size) for micro in range(first, end)])

    def _reduced(self, state: TrainingState, first: int, end: int) -> None:
        """Each rank adds those of its own micro-batches, and the sums are added once: in an order that follows from the number of
        ranks."""
        parameters = list(state.trainable.values())
        mine = [self._compute(state, micro) for micro in self.ranks.share(first, end)]
        most = -(-(end - first) // self.ranks.size)
        told = self.ranks.numbers([*_told(mine, most), *(float(p.grad is not None) for p in parameters)])
        for number, parameter in enumerate(parameters):
            if any(each[3 * most + number] for each in told):
                parameter.grad = _gradient(parameter)
        self.ranks.add([parameter.grad for parameter in parameters if parameter.grad is not None])
        _count(state.progress, [_counted(told, micro, first, self.ranks.size) for micro in range(first, end)])


def token_loss(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, int]:
    """Cross entropy summed over the counted tokens of a batch, in fp32, and their number.

    A sum, not a mean: divided by the tokens of the whole step at its end, every token counts the same however the step is cut
    into micro-batches."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    loss = functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(), labels.reshape(-1), ignore_index=IGNORED, reduction="sum"
    )
    return loss, int((labels != IGNORED).sum())


def autocast(training: Training, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The precision of the forward pass."""
    if training.precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def _count(progress: Progress, counted: list[Counted]) -> None:
    for each in counted:
        progress.step_loss += each.loss
        progress.step_tokens += each.tokens
        progress.step_data += each.data
        progress.micro += 1


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)


def _told(mine: list[Counted], most: int) -> Iterator[float]:
    """What a rank says of its micro-batches, as many numbers from each: float64 holds all of them exactly."""
    for each in mine:
        yield from each
    yield from [0.0] * (3 * (most - len(mine)))


def _counted(told: list[list[float]], micro: int, first: int, ranks: int) -> Counted:
    """That of one micro-batch, out of what all ranks said of those from `first` on."""
    rank = micro % ranks
    before = sum(1 for number in range(first, micro) if number % ranks == rank)
    loss, tokens, data = told[rank][3 * before : 3 * before + 3]
    return Counted(loss, int(tokens), int(data))
