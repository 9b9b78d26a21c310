"""From a config, the commit, the site and the flags to the plan. Pure: it looks at nothing and changes nothing."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs.contract import SPECIFICATION_FORMAT, ImagePin
from jobs.recipe import Recipe
from launcher import walltime
from launcher.engines import ImageRequest, engine
from launcher.errors import ExitCode, LaunchError, Problem, fail
from launcher.plan import Flags, Plan, RunPlan, SlurmRequest, Source, chain

if TYPE_CHECKING:
    from launcher.config.load import Loaded
    from launcher.config.schema import Experiment
    from launcher.site import Site

UNKNOWN_PIN: Final = ImagePin(engine="", environment="", code="", python="")


def make_plan(  # noqa: PLR0913 - each is one thing that a plan is made of
    loaded: "Loaded",
    source: Source,
    site: "Site",
    flags: Flags,
    *,
    experiments: Path,
    image: ImageRequest,
    inputs: Mapping[str, str],
    states: Mapping[int, str],
    launched: Mapping[str, str],
) -> Plan:
    """The plan. `states` are the seeds' states before this launch, `image` what its image is made of, `inputs` the mounts
    that its inputs need, `launched` what is recorded of the launcher.

    Raises LaunchError (CLUSTER) where site and flags leave open where to run."""
    experiment = loaded.experiment
    pin = engine(image.engine).pin(image, site.store)
    digest = hashlib.sha256(loaded.resolved.encode()).hexdigest()
    runs = tuple(
        RunPlan(seed, states[seed], _specification(experiment, seed, source, pin, digest, launched))
        for seed in experiment.seeds
    )
    placed = placed_as(experiment, flags)
    on_slurm = not flags.local and (flags.partition is not None or flags.site is not None)
    todo = sum(run.state != "done" for run in runs)
    slurm = _slurm(placed, site, flags, todo) if on_slurm else None
    return Plan(
        experiment=experiment.name,
        config_file=loaded.file,
        config_text=loaded.resolved,
        tree=experiments / experiment.name,
        store=site.store,
        source=source,
        image=image,
        workshop=site.workshop(),
        node=site.node(),
        network=experiment.image.network,
        pin=pin,
        runs=runs,
        environment=tuple(site.environment),
        mounts={**inputs, **{str(folder): mode for folder, mode in site.mounts.items()}},
        local_parallelism=_local_parallelism(placed),
        ranks=placed.training.parallel.ranks if flags.ranks or flags.nodes else 0,
        slurm=slurm,
        notes=(*_notes(source, experiment), *([chain(slurm)] if slurm and slurm.total_minutes else [])),
    )


def placed_as(experiment: "Experiment", flags: Flags) -> "Experiment":
    """The experiment on the nodes and ranks of this launch. What is computed stays the config's: see `Parallel.elastic`.

    Raises LaunchError (USAGE) for other ranks than those of a config that is not elastic, or those that do not fit."""
    if not flags.nodes and not flags.ranks:
        return experiment
    from launcher.config.schema import conflicts

    parallel, training = experiment.training.parallel, experiment.training
    nodes, ranks = flags.nodes or experiment.cluster.nodes, flags.ranks or parallel.ranks
    if ranks != parallel.ranks and not parallel.elastic:
        hint = "With training.parallel.elastic: true they may be another number; that is another experiment."
        what = f"--ranks {ranks}: the config has {parallel.ranks}, and its bits depend on it."
        raise fail(ExitCode.USAGE, what, hint=hint)
    if nodes != experiment.cluster.nodes and experiment.numerics.device == "cuda" and not parallel.elastic:
        what = f"--nodes {nodes}: the config has {experiment.cluster.nodes}, and on GPUs its bits depend on it."
        raise fail(ExitCode.USAGE, what, hint="With training.parallel.elastic: true they do not.")
    if ranks > training.accumulation:
        what = f"--ranks {ranks}: training.accumulation is {training.accumulation}, so only so many would have work."
        raise fail(ExitCode.USAGE, what)
    gpus = max(1, ranks // nodes) if experiment.numerics.device == "cuda" else experiment.cluster.gpus
    placed = experiment.model_copy(
        update={
            "cluster": experiment.cluster.model_copy(update={"nodes": nodes, "gpus": gpus}),
            "training": training.model_copy(update={"parallel": parallel.model_copy(update={"ranks": ranks})}),
        }
    )
    wrong = [
        Problem(f"With {nodes} nodes and {ranks} ranks {'.'.join(map(str, each.path))} {each.what}", hint=each.hint)
        for each in conflicts(placed)
    ]
    if wrong:
        raise LaunchError(ExitCode.USAGE, wrong)
    return placed


def _specification(
    experiment: "Experiment",
    seed: int,
    source: Source,
    pin: ImagePin | None,
    config_sha256: str,
    launched: Mapping[str, str],
) -> str:
    """Text of run.json: see `jobs.recipe.Specification`."""
    value: dict[str, Any] = {
        "format": SPECIFICATION_FORMAT,
        "experiment": experiment.name,
        "seed": seed,
        "seeds": experiment.seeds,
        "commit": source.commit,
        "dirty": source.dirty,
        "config_sha256": config_sha256,
        "image": asdict(pin or UNKNOWN_PIN),
        "project_root": str(source.repository),
        "launched": dict(launched),
        "recipe": {
            key: value for key, value in experiment.model_dump(mode="json").items() if key in Recipe.model_fields
        },
    }
    return json.dumps(value, indent=2, ensure_ascii=False)


def _local_parallelism(experiment: "Experiment") -> int:
    """As many runs as the cores that this process may use can hold, each with its threads."""
    each = experiment.numerics.threads * experiment.training.parallel.ranks
    fit = max(1, len(os.sched_getaffinity(0)) // each)
    return min(fit, experiment.cluster.parallel or fit, len(experiment.seeds))


def _slurm(experiment: "Experiment", site: "Site", flags: Flags, todo: int) -> SlurmRequest:
    cluster = experiment.cluster
    partition = flags.partition or site.partition
    if partition is None:
        hint = "Name one: --partition NAME. `sinfo -s` lists them."
        raise fail(ExitCode.CLUSTER, f"The site `{site.name}` has no default partition.", hint=hint)
    minutes = walltime.minutes(flags.time or cluster.time or site.time)
    longest = site.longest(partition) or minutes
    if refusals := site.refusals(partition, cluster.gpus, min(minutes, longest)):
        raise LaunchError(ExitCode.CLUSTER, refusals)
    asked = SlurmRequest(
        site=site.name,
        job_name=experiment.name,
        partition=partition,
        account=flags.account or site.account,
        qos=flags.qos or site.qos,
        time_minutes=minutes,
        nodes=cluster.nodes,
        cpus_per_task=cluster.cpus,
        gpus_per_node=cluster.gpus,
        memory=cluster.memory,
        signal_seconds=site.signal_seconds,
        array_parallelism=min(cluster.parallel or max(1, todo), max(1, todo)),
        exclude=site.exclude,
        setup=tuple(site.setup),
        teardown=tuple(site.teardown),
        additional=dict(site.sbatch),
        preemption=site.preemption.mode,
        budgets=site.budgets.by_cause(),
    )
    return asked.within(longest)


def _notes(source: Source, experiment: "Experiment") -> list[str]:
    found = []
    if source.dirty:
        count = "1 file differs" if len(source.files) == 1 else f"{len(source.files)} files differ"
        found.append(f"{count} from commit {source.commit[:10]} (--allow-dirty); the patch is kept with the run.")
    if not experiment.numerics.deterministic:
        found.append("numerics.deterministic is false; two runs of it may end with other bits.")
    return [f"NOT REPRODUCIBLE: {each}" for each in found]
