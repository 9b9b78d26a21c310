"""The program inside the image, top to bottom: from a run's specification to its finished tree."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from jobs import data, evaluate, facts, layout, machine, model, provenance, rendezvous, together, trackers
from jobs.checkpoint import Checkpoints
from jobs.contract import Event, Exit
from jobs.determinism import make_deterministic, seed_everything
from jobs.errors import Refused, Stopped, Unfit
from jobs.feed import Batch
from jobs.fence import Fence
from jobs.files import append_line, now
from jobs.gpu import Gauge
from jobs.layout import Layout, take_attempt
from jobs.microbatch import autocast
from jobs.preemption import StopFlag
from jobs.ranks import ALONE, Ranks, SharedStop
from jobs.recipe import Specification
from jobs.rundir import RunDir
from jobs.session import Work, attempt


def run(path: Path, stop: StopFlag, check_origin: Callable[[], None] = lambda: None) -> Exit:
    """Start, resume, or find nothing to do: one path. `check_origin` looks at what this process has loaded.

    Raises Refused, Fenced and Failed."""
    specification, directory = read_specification(path)
    if directory.done.exists():
        print(f"{directory.name} seed {directory.seed}: done already")
        return Exit.DONE
    check_origin()
    parallel = specification.recipe.training.parallel
    place = layout.read(parallel.ranks, elastic=parallel.elastic)
    fence = Fence(directory, take_attempt(directory))
    device = pick_device(specification, place)
    seed_everything(specification.seed)
    make_deterministic(specification.recipe.numerics)
    try:
        ranks = rendezvous.meet(place, directory.rendezvous(fence.attempt), device, stop)
    except Stopped:
        return stopped_before_training(stop, specification, directory, fence) if place.first else Exit.SAVED
    try:
        return take_part(specification, directory, fence, device, ranks, stop, check_origin)
    finally:
        ranks.close()


def take_part(  # noqa: PLR0913, PLR0917 - what an attempt has before it has data and a model
    specification: Specification,
    directory: RunDir,
    fence: Fence,
    device: torch.device,
    ranks: Ranks,
    stop: StopFlag,
    check_origin: Callable[[], None],
) -> Exit:
    """The attempt, once its ranks have found each other. Raises as `run`, and PeerLost."""
    machines = ranks.objects(machine.of_rank(ranks.rank, device)) if ranks.size > 1 else []
    if ranks.first:
        provenance.record(specification, directory, fence.attempt, machines)
    stop = SharedStop(stop, ranks) if ranks.size > 1 else stop
    if stop():
        return stopped_before_training(stop, specification, directory, fence) if ranks.first else Exit.SAVED
    work = prepare(specification, directory, device, ranks)
    check_origin()  # again, since most libraries are loaded where they are used
    together.same_machine(ranks, work.numerics, machine.node())
    return attempt(specification, directory, fence, work, stop)


def prepare(specification: Specification, directory: RunDir, device: torch.device, ranks: Ranks = ALONE) -> Work:
    """Data and model of a recipe, on the device. Raises Refused."""
    recipe, project = specification.recipe, Path(specification.project_root)
    corpus = data.load(recipe.data, project, model.tokenizer_source(recipe, project))
    network = model.build(recipe, specification.seed, corpus, project).to(device)

    def collate(examples: Any) -> Batch:
        return data.collate(examples, corpus.vocabulary.pad_id, recipe.data.max_length)

    def measure(stop: Callable[[], bool]) -> evaluate.Evaluation | None:
        return evaluate.evaluate(
            network,
            corpus.validation,
            batch_size=recipe.evaluation.batch_size,
            collate=collate,
            device=device,
            autocast=lambda: autocast(recipe.training, device),
            stop=stop,
            ranks=ranks,
        )

    return Work(
        model=network,
        device=device,
        rows=corpus.train,
        collate=collate,
        evaluate=measure,
        numerics=facts.numerics(
            device, ranks.nodes if ranks.size > 1 and not recipe.training.parallel.elastic else None
        ),
        open_tracker=lambda step: trackers.open_trackers(recipe.tracking, directory, specification, step),
        gauge=Gauge(device),
        ranks=ranks,
    )


def read_specification(path: Path) -> tuple[Specification, RunDir]:
    """Raises Refused for a file that is no specification, or lies in the tree of another run."""
    try:
        specification = Specification.model_validate_json(path.read_bytes())
        directory = RunDir.of_specification(path)
    except (OSError, ValidationError, ValueError) as error:
        raise Refused(f"{path}: is not a run's specification: {error}") from error
    if (specification.experiment, specification.seed) != (directory.name, directory.seed):
        raise Refused(
            f"{path}: specifies seed {specification.seed} of {specification.experiment}, but lies in the tree of "
            f"seed {directory.seed} of {directory.name}"
        )
    for folder in directory.folders:
        folder.mkdir(parents=True, exist_ok=True)
    return specification, directory


def pick_device(specification: Specification, place: Layout) -> torch.device:
    """That of this rank: the GPUs of a node go to its ranks in their order. Raises Unfit when the GPU that the recipe wants is not
    there."""
    if specification.recipe.numerics.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise Unfit("numerics.device is cuda, but torch finds no GPU here; ask for one: cluster: {gpus: 1}")
    if torch.cuda.device_count() < place.per_node:
        raise Unfit(f"{place.per_node} ranks on this node want a GPU each, torch finds {torch.cuda.device_count()}")
    device = torch.device("cuda", place.local)
    torch.cuda.set_device(device)
    return device


def stopped_before_training(stop: StopFlag, specification: Specification, directory: RunDir, fence: Fence) -> Exit:
    """Nothing was computed since the newest checkpoint, so there is nothing to save, and no reason to load a model first."""
    checkpoints = Checkpoints(directory.checkpoints, specification.recipe.checkpoints.keep, fence)
    newest = next(iter(checkpoints.manifests()), None)
    append_line(
        directory.events,
        {
            "event": Event.SAVED,
            "attempt": fence.attempt,
            "time": now(),
            "step": newest.position.step if newest else 0,
            "checkpoint": newest.file if newest else None,
            "seconds": 0.0,
        },
    )
    print(f"{stop.signal or 'another rank'}: stopped before training; nothing is lost", flush=True)
    return Exit.SAVED
