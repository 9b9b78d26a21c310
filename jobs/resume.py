"""Bring a run to the newest checkpoint that is whole, is its own, and fits this machine; out loud about what was passed over."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, astuple, dataclass
from typing import Any

from jobs.checkpoint import Checkpoints
from jobs.contract import Event
from jobs.errors import Refused, Unfit
from jobs.fence import Fence
from jobs.files import append_line, now
from jobs.keeper import FORMAT, Logbook
from jobs.ledger import START, Ledger, steps
from jobs.linefile import LineFile, Mark
from jobs.recipe import Specification
from jobs.rundir import RunDir
from jobs.state import TrainingState


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where the run goes on."""

    file: str | None
    """The checkpoint; None when it begins."""
    logbook: Logbook


def resume(  # noqa: PLR0913, PLR0917 - each is one thing that a run goes on from
    specification: Specification,
    directory: RunDir,
    fence: Fence,
    checkpoints: Checkpoints,
    state: TrainingState,
    numerics: Mapping[str, str],
    total: int,
) -> Resumed:
    """Restore `state`, cut the logbook back to it, and write the event; `total` is the number of steps of the whole run.

    Raises Refused before anything is changed; Unfit where other bits would follow, unless the recipe has that marked."""
    fence()
    checkpoints.clear_leftovers()
    found = checkpoints.newest(lambda content: _misfit(directory, content))
    for skipped in found.skipped:
        print(f"WARNING: passing over the checkpoint {skipped['file']}: it {skipped['reason']}", flush=True)
    if found.state is None and found.misfits:
        raise Refused(
            f"{directory.metrics} does not hold the lines that the whole checkpoints in {directory.checkpoints} count on. "
            "Restore them; or delete those checkpoints, to begin this seed anew"
        )
    crossed: list[str] = []
    marks: dict[str, Any] = {"metrics": asdict(Mark()), "ledger": asdict(Mark()), "head": START, "crossed": []}
    if found.state is not None:
        _check_origin(specification, found.state)
        crossed = _check_class(specification, found.state, numerics)
        if crossed and found.state["base"] != state.base:
            raise Unfit(
                f"the frozen weights come out otherwise here, drawn from the seed as they are: {'; '.join(crossed)}"
            )
        state.restore(found.state)
        if state.progress.step == total and state.progress.evaluated > specification.recipe.training.epochs:
            crossed = []  # nothing is left to compute
        marks = found.state["logbook"]
    checkpoints.settle(found, best=found.state is not None and found.state["best"])
    reached, step = steps(directory.ledger), state.progress.step
    append_line(
        directory.events,
        {
            "event": Event.RESUMED,
            "attempt": fence.attempt,
            "time": now(),
            "step": step,
            "steps": total,
            "checkpoint": found.file,
            "skipped": list(found.skipped),
            "lost_steps": max(0, reached - step),
            "at": list(astuple(state.progress.position)),
            **({"class": crossed} if crossed else {}),
        },
    )
    if crossed:
        print(f"WARNING: from step {step} on with the bits of another hardware class: {'; '.join(crossed)}", flush=True)
    start = "from the start" if found.file is None else f"from step {step} ({found.file})"
    mark = f" [NOT REPRODUCIBLE: {'; '.join(why)}]" if (why := list(_marks(specification))) else ""
    print(f"{specification.experiment} seed {specification.seed}, attempt {fence.attempt}: {start}{mark}", flush=True)
    lines = LineFile(directory.ledger, Mark(**marks["ledger"]), fence)
    metrics = LineFile(directory.metrics_file, Mark(**marks["metrics"]), fence)
    return Resumed(found.file, Logbook(metrics, lines, Ledger(lines, marks["head"], [*marks["crossed"], *crossed])))


def _marks(specification: Specification) -> Iterator[str]:
    if specification.dirty:
        yield "launched with --allow-dirty"
    if not specification.recipe.numerics.deterministic:
        yield "numerics.deterministic is false"


def _misfit(directory: RunDir, content: Mapping[str, Any]) -> str | None:
    """What speaks against a whole checkpoint: its format, or files that grow and have lost lines that it counts on."""
    if content.get("format") != FORMAT:
        return f"has format {content.get('format')}, this code reads {FORMAT}"
    marks = content["logbook"]
    return Mark(**marks["metrics"]).missing(directory.metrics_file) or Mark(**marks["ledger"]).missing(directory.ledger)


def _check_origin(specification: Specification, content: Mapping[str, Any]) -> None:
    """Raises Refused for a checkpoint of another run."""
    own = {
        "experiment": specification.experiment,
        "seed": specification.seed,
        "code": specification.image.code,
        "config": specification.recipe.model_dump(mode="json"),
    }
    if differing := _differences({key: content[key] for key in own}, own):
        raise Refused(
            f"the newest checkpoint is that of another run. In the checkpoint -> in run.json: {'; '.join(differing)}. "
            "A new config or other code is a new experiment: give it a new name"
        )


def _check_class(specification: Specification, content: Mapping[str, Any], numerics: Mapping[str, str]) -> list[str]:
    """What differs between the checkpoint's hardware class and this one. Raises Unfit unless it is to be marked."""
    differing = _differences(content["numerics"], numerics)
    if differing and specification.recipe.numerics.other_class == "refuse":
        raise Unfit(
            "this machine would go on to other bits than those that the run began with. In the checkpoint -> here: "
            f"{'; '.join(differing)}. Run it where these are the same, or start a new experiment here; one with "
            "numerics.other_class: mark goes on anyway, and is marked"
        )
    return differing


def _differences(kept: Any, here: Any, path: str = "") -> list[str]:
    """`path: kept -> here` for each leaf of two nested mappings that differs."""
    if isinstance(kept, Mapping) and isinstance(here, Mapping):
        return [
            found
            for key in sorted({*kept, *here})
            for found in _differences(kept.get(key), here.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if kept == here else [f"{path}: {kept} -> {here}"]
