"""What the ranks must have in common, and that they do: the weights after each step, the buffers, the class of the machine."""

from collections.abc import Mapping

import torch

from jobs.errors import Failed, PeerLost, Refused, Unfit
from jobs.ranks import Ranks
from jobs.recipe import Training
from jobs.state import TrainingState


def checksum(state: TrainingState, ranks: Ranks) -> str:
    """That of the weights, the same on every rank. Raises Failed where it is not: a rank that computes something else would go on
    for days."""
    own = state.checksum()
    told = ranks.numbers([float(number) for number in _numbers(own)])
    differing = [rank for rank, each in enumerate(told) if each != told[0]]
    if differing:
        raise Failed(
            f"after step {state.progress.step} rank {differing[0]} has other weights than rank 0: its machine errs"
        )
    return own


def same_machine(ranks: Ranks, numerics: Mapping[str, str], where: str) -> None:
    """Raises Unfit on a rank whose machine would compute other bits than the first one's, PeerLost on the others then."""
    told = ranks.objects({"numerics": dict(numerics), "where": where})
    first = told[0]["numerics"]
    for rank, each in enumerate(told):
        differing = [
            f"{name}: {first.get(name)} -> {each['numerics'].get(name)}"
            for name in sorted({*first, *each["numerics"]})
            if first.get(name) != each["numerics"].get(name)
        ]
        if differing:
            text = (
                f"rank {rank} ({each['where']}) computes other bits than rank 0 ({told[0]['where']}). "
                f"There -> here: {'; '.join(differing)}"
            )
            raise Unfit(text) if rank == ranks.rank else PeerLost(text)


class Buffers:
    """The model's buffers over one step. A forward pass may change them (batch normalisation does), and each rank sees only its own
    micro-batches: then the first rank's count, as in DistributedDataParallel. What is elastic must not have that."""

    def __init__(self, state: TrainingState, training: Training, ranks: Ranks) -> None:
        self._state, self._ranks = state, ranks
        self._before = (
            {name: buffer.clone() for name, buffer in state.buffers.items()} if training.parallel.elastic else {}
        )

    def settle(self) -> str | None:
        """At the end of the step: their checksum, the same on every rank; None where there are none.

        Raises Refused for buffers that changed in an elastic run."""
        changed = [name for name, kept in self._before.items() if not torch.equal(self._state.buffers[name], kept)]
        if changed:
            raise Refused(
                f"training.parallel.elastic: the model changes {', '.join(changed[:3])} in its forward pass, so its bits depend on "
                "which rank computes what. Set elastic: false, or freeze what changes it"
            )
        if self._state.buffer_checksum is None:
            return None
        own = self._state.buffer_checksum()
        told = self._ranks.numbers([float(number) for number in _numbers(own)])
        if all(each == told[0] for each in told):
            return own
        self._ranks.overwrite(list(self._state.buffers.values()))
        return self._state.buffer_checksum()


def _numbers(checksum: str) -> tuple[int, int]:
    """Its two halves: each fits a float64."""
    digits = checksum.rpartition(":")[2]
    return int(digits[:8], 16), int(digits[8:], 16)
