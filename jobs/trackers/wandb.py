"""Weights & Biases, and the one place that imports it: offline unless the recipe says online, and it sees only what is logged here.

Offline, an attempt leaves a folder of its own with the run id of the attempts before it. `wandb sync --append` of all of them makes
one run: steps that two attempts tell of are the same to the bit, so it does not matter whose line stays. (Not so where
`numerics.other_class` is `mark`: the ledger has those that count.)"""

import os
from collections.abc import Mapping
from typing import Any, Final

import wandb

from jobs import preemption, trackers
from jobs.recipe import Specification, WandbTracking
from jobs.rundir import RunDir, Tree

FINISH_SECONDS: Final = 15
"""How long closing may take: a preempted run has a few seconds after its checkpoint, and everything is on disk already."""


class Run:
    """A run of wandb that takes lines of metrics.jsonl."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, line: Mapping[str, Any]) -> None:
        self._run.log(trackers.numbers(line), step=line["step"])

    def close(self, exit_code: int) -> None:
        self._run.finish(exit_code=exit_code)


def run_id(specification: Specification) -> str:
    """The same for every attempt of a run; another one for another config or another commit under the same name."""
    return f"{specification.experiment}-seed-{specification.seed}-{specification.config_sha256[:8]}-{specification.commit[:8]}"


def start(tracking: WandbTracking, rundir: RunDir, specification: Specification) -> Run:
    """Raises what wandb raises: no key, no network, no room."""
    folder = rundir.metrics / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        os.environ.setdefault(name, str(folder / "own"))  # a run has no home directory to put such things
    # Slurm signals every process of a step. wandb's own inherits the blocked USR2, of which it would die; TERM it answers by
    # ending: what it had not written by then stands in metrics.jsonl alone.
    with preemption.blocked():
        run = _init(tracking, rundir, specification)
    config = Tree(rundir.root).config
    if config.exists():  # not where a run is started by hand from its specification alone
        artifact = wandb.Artifact(f"{specification.experiment}-config", type="config")
        artifact.add_file(str(config), policy="immutable")
        run.log_artifact(artifact)
    place = run.url if tracking.mode == "online" else f"offline, in {folder}; `wandb sync --append` sends it"
    print(f"wandb: run {run.id}, {place}", flush=True)
    return Run(run)


def _init(tracking: WandbTracking, rundir: RunDir, specification: Specification) -> Any:
    return wandb.init(
        project=tracking.project,
        entity=tracking.entity,
        mode=tracking.mode,
        id=run_id(specification),
        name=f"{specification.experiment} seed {specification.seed}",
        group=specification.experiment,
        dir=rundir.metrics,
        resume="allow" if tracking.mode == "online" else None,  # offline it has nobody to ask
        config={
            "recipe": specification.recipe.model_dump(mode="json"),
            "seed": specification.seed,
            "seeds": specification.seeds,
            "commit": specification.commit,
            "dirty": specification.dirty,
            "config_sha256": specification.config_sha256,
            "image": {"engine": specification.image.engine, "environment": specification.image.environment},
        },
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            disable_job_creation=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            init_timeout=60,
            finish_timeout=FINISH_SECONDS,
        ),
    )
