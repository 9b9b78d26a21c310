"""What a rank has that computes and does not write, where the first one has a tree: every word of it is the first one's."""

from collections.abc import Mapping
from typing import Any

from jobs.checkpoint import Checkpoints
from jobs.errors import Failed
from jobs.recipe import Specification
from jobs.rundir import RunDir
from jobs.state import TrainingState


class Follower:
    """Takes what a keeper, a ledger, a display and a gauge take, and leaves it to the first rank's."""

    def append(self, _line: Any, /) -> None: ...

    def step(self, _line: Mapping[str, Any], /) -> None: ...

    evaluation = step

    def read(self) -> dict[str, Any]:
        return {}

    def save(self) -> None: ...

    look = close = save


def restore(specification: Specification, directory: RunDir, file: str | None, state: TrainingState) -> None:
    """Bring `state` to the checkpoint that the first rank goes on from. Raises Failed when this rank cannot read it."""
    if file is None:
        return
    checkpoints = Checkpoints(directory.checkpoints, specification.recipe.checkpoints.keep, lambda: None)
    content, reason = checkpoints.read(file)
    if content is None:
        raise Failed(f"{directory.checkpoints / file}, which the first rank goes on from, {reason} here")
    state.restore(content)
