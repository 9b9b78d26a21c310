"""All that must survive a stop, in one place: what is not captured here does not exist after a preemption."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from jobs.checkpoint import Position
from jobs.checksum import Checksum
from jobs.determinism import random_state, restore_random_state
from jobs.errors import Refused
from jobs.hostcopy import HostCopy


@dataclass(slots=True)
class Progress:
    """Where the run stands and what it has summed up on the way. Plain numbers; floats are kept exactly."""

    step: int = 0
    """Optimizer steps done."""
    micro: int = 0
    """Micro-batches of the step under way that are done."""
    evaluated: int = 0
    """Evaluations done; the first is the one before training."""
    step_loss: float = 0.0
    """Sum over the tokens of the step under way."""
    step_tokens: int = 0
    step_data: int = 0
    """Checksum of the micro-batches of the step under way: a sum, so that it matters neither who computes them nor when."""
    epoch_loss: float = 0.0
    """Sum over the tokens of the epoch under way."""
    epoch_tokens: int = 0
    epoch_seconds: float = 0.0
    """Working time in the epoch under way, over all attempts. Not part of the bits."""
    last_loss: float = 0.0
    """Mean loss of the last finished step."""
    first_val_loss: float | None = None
    first_accuracy: float | None = None
    val_loss: float | None = None
    accuracy: float | None = None
    best_loss: float | None = None
    """Lowest validation loss after an epoch."""
    best_epoch: int = 0
    """The epoch it was reached after; 0 for none yet."""
    train_loss: float | None = None
    """Mean over the tokens of the last finished epoch."""

    @property
    def epoch(self) -> int:
        """Epochs completed, their evaluation included."""
        return max(0, self.evaluated - 1)

    @property
    def position(self) -> Position:
        return Position(self.step, self.micro, self.evaluated)


class TrainingState:
    """Model, optimizer, progress, and the gradients of the step under way.

    Gradients lie in `.grad`, where each backward pass adds to what is there: in the order of the micro-batches, so that stopping
    between two of them changes no sum."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.model, self.optimizer, self.device = model, optimizer, device
        self.progress = Progress()
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.buffers = dict(model.named_buffers())
        self._copy = HostCopy()
        frozen = [p for p in model.parameters() if not p.requires_grad]
        self.base = Checksum(frozen)() if frozen else None
        """Checksum of the weights that are not trained, and so not saved."""
        self.checksum = Checksum(self.trainable.values())
        self.buffer_checksum = Checksum(self.buffers.values()) if self.buffers else None

    def capture(self) -> dict[str, Any]:
        """A copy on the CPU of everything, of tensors, numbers, texts, lists and dicts alone. Valid until the next one: they
        share their memory."""
        copied = self._copy(
            {
                "model": self.trainable,
                "buffers": self.buffers,
                "optimizer": self.optimizer.state_dict(),
                "gradients": {name: p.grad for name, p in self.trainable.items() if p.grad is not None},
            }
        )
        rest = {"base": self.base, "progress": asdict(self.progress), "random": random_state(self.device.type)}
        return {**copied, **rest}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `capture`. Raises Refused when the state is that of another model."""
        if state["base"] != self.base:
            raise Refused(
                f"the frozen weights are not those that the checkpoint was trained on (checksum {self.base}, "
                f"the checkpoint says {state['base']})"
            )
        if set(state["model"]) != set(self.trainable):
            raise Refused("the checkpoint holds other trainable parameters than the model has")
        for name, parameter in self.trainable.items():
            parameter.copy_(state["model"][name])
            gradient = state["gradients"].get(name)
            parameter.grad = None if gradient is None else gradient.to(self.device)
        for name, value in state["buffers"].items():
            self.buffers[name].copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        restore_random_state(state["random"])
