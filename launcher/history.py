"""What the attempts of a run say together: whether anything lasts, which nodes failed, how much was for nothing. Stdlib only."""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from jobs.contract import Cause, Exit
from jobs.rundir import RunDir, Tree
from launcher.attempts import AttemptRecord
from launcher.progress import provenance

FAILED: Final = 2
"""Such a weight keeps a node from the next attempts."""
WEIGHTS: Final = {Cause.NODE_FAILURE: 1, Cause.NOT_STARTED: 1, Cause.UNFIT: FAILED}
"""What a node that fails once may do better the next time; what it is not, it will not become."""
NOT_REPRODUCIBLE: Final = "NOT REPRODUCIBLE"
CRASHES: Final = frozenset({Cause.CRASHED, Cause.NODE_FAILURE})


def saved_step(run: RunDir, attempts: Sequence[AttemptRecord]) -> int:
    """The step from which a new start would go on: that of the newest whole checkpoint, 0 without one.

    Whole by its size: hashing it is the business of the run that loads it. The ledger is not asked; a run without a checkpoint
    grows it and loses it again."""
    steps = [record.saved_step for record in attempts if record.saved_step is not None]
    for manifest in run.checkpoints.glob("*.pt.json"):
        try:
            fields = json.loads(manifest.read_text(encoding="utf-8"))
            if manifest.with_name(str(fields["file"])).stat().st_size == int(fields["bytes"]):
                steps.append(int(fields["step"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return max(steps, default=0)


def crossings(attempts: Sequence[AttemptRecord]) -> list[AttemptRecord]:
    """The attempts that went on to the bits of another hardware class, but those whose work a later one did again."""
    found: list[AttemptRecord] = []
    for record in attempts:
        if record.first_step is None:
            continue
        found = [each for each in found if _place(each) < _place(record)]
        if record.crossed:
            found.append(record)
    return found


def _place(record: AttemptRecord) -> tuple[int, ...]:
    return record.at or (record.first_step or 0,)


def marks(tree: Tree, attempts: Mapping[int, Sequence[AttemptRecord]]) -> list[str]:
    """Why nobody would get the bits of an experiment again; mostly none. `attempts`: of each seed."""
    origin, found = provenance(tree), []
    recipe = origin.get("recipe")
    numerics = recipe.get("numerics") if isinstance(recipe, dict) else None
    if origin.get("dirty") or tree.patch.exists():
        found.append("launched with --allow-dirty")
    if isinstance(numerics, dict) and numerics.get("deterministic") is False:
        found.append("numerics.deterministic is false")
    for seed, history in attempts.items():
        for each in crossings(history):
            what = ", ".join(each.crossed)
            found.append(f"seed {seed} went on in another hardware class at step {each.first_step} ({what})")
    return found


def gains(attempts: Sequence[AttemptRecord], now: int) -> list[int]:
    """Steps that each attempt added for good: where the next one that said so went on, less where it went on itself.

    `now`: the step from which another start would go on."""
    found: list[int] = []
    after = now
    for record in reversed(attempts):
        before = record.first_step
        found.append(0 if before is None else max(0, after - before))
        after = before if before is not None else after
    return found[::-1]


def idle(attempts: Sequence[AttemptRecord], this: AttemptRecord | None, now: int) -> int:
    """How many starts, this one included, have reached the time limit since the last step that lasts.

    Starts that were preempted in between neither count nor speak for the run, unless they saved a step."""
    if this is None:
        return 0
    count = 0
    mine = attempts[: attempts.index(this) + 1]
    for record, gain in zip(reversed(mine), reversed(gains(mine, now)), strict=True):
        if gain > 0:
            break
        count += record is this or record.cause == Cause.TIME_LIMIT
    return count


def minutes(attempts: Iterable[AttemptRecord], now: str) -> float:
    """How long they ran, all together; one whose end nobody wrote, until `now`."""
    total = 0.0
    for record in attempts:
        with contextlib.suppress(ValueError):  # one that was torn
            begin = datetime.fromisoformat(record.started or "")
            end = datetime.fromisoformat(record.ended or record.decided or now)
            total += max(0.0, (end - begin).total_seconds())
    return total / 60


def failures(attempts: Iterable[AttemptRecord]) -> dict[str, int]:
    """How often each node failed, in the order in which it was first seen to."""
    found: dict[str, int] = {}
    for record in attempts:
        for node in blamed(record):
            found[node] = found.get(node, 0) + WEIGHTS[Cause(str(record.cause))]
    return found


def blamed(record: AttemptRecord) -> list[str]:
    """The nodes that an end speaks against. Of several: those that the run was refused on; where one failed, nobody there said
    which, and Slurm itself keeps away from a node that is down."""
    if record.node is None or record.cause not in WEIGHTS:
        return []
    if record.nodes is None or record.cause == Cause.NOT_STARTED:  # it is the first one's task that takes the attempt
        return [record.node]
    return [name for name, code in record.codes.items() if record.cause == Cause.UNFIT and code == Exit.UNFIT]


def suspect(attempts: Sequence[AttemptRecord], this: AttemptRecord) -> str:
    """The node on which the run came further than on this one, where it ended before its first step. Empty when it did not, or
    when it has crashed like that on another node since: then it is not the node."""
    if this.executed or this.nodes is not None:  # of several nodes it may be any
        return ""
    for record in reversed(attempts[: attempts.index(this)]):
        if record.node in {this.node, None}:
            continue
        if record.executed:
            return str(record.node)
        if record.cause in CRASHES:
            break
    return ""


@dataclass(frozen=True, slots=True)
class Goodput:
    """How many of the steps that a run's attempts did are of use."""

    useful: int
    """Those that its result rests on, or that another start would find done."""
    executed: int
    """All of them; those that were lost and done again count twice."""

    @property
    def ratio(self) -> float | None:
        """None before the first step."""
        return self.useful / self.executed if self.executed else None


def goodput(attempts: Sequence[AttemptRecord], reached: int | None, lasting: int) -> Goodput:
    """`reached`: the last step in the tree; `lasting`: of these, how many no later start has to do again.

    What an attempt that was killed had reached, only the next one says: where it went on, and what was lost."""
    executed, end = 0, reached or 0
    for record in reversed(attempts):
        if record.first_step is None:
            continue
        executed += max(0, max(end, record.step or 0) - record.first_step)
        end = record.first_step + record.lost_steps
    return Goodput(min(lasting, executed), executed)
