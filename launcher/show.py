"""The plan and the outcome for a person, and the plan as JSON. Renders; decides nothing."""

import json
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.rundir import RunDir, Tree
from launcher.attempts import attempts
from launcher.experiments import is_default
from launcher.history import NOT_REPRODUCIBLE, marks
from launcher.plan import Plan
from launcher.progress import is_number


def as_json(plan: Plan, script: str) -> dict[str, Any]:
    """Everything that the plan holds. Bytes of a patch are given by their number."""
    slurm = plan.slurm
    return {
        "experiment": plan.experiment,
        "config": str(plan.config_file),
        "tree": str(plan.tree),
        "store": str(plan.store),
        "commit": plan.source.commit,
        "code_tree": plan.source.code_tree,
        "dirty": plan.source.dirty,
        "changed_files": list(plan.source.files),
        "image": {
            "engine": plan.image.engine,
            "lock": plan.image.lock,
            "lock_sha256": plan.image.lock_sha256,
            "environment": plan.pin.environment if plan.pin else None,
            "code": plan.pin.code if plan.pin else None,
            "base": plan.image.base,
            "build": plan.image.build,
            "recipe": plan.image.recipe,
            "key": plan.image.key if plan.image.build else None,
            "ingredients": {one.path: one.sha256 for one in plan.image.ingredients},
            "layer": plan.pin.layer if plan.pin else None,
            "manifest": plan.pin.manifest if plan.pin else None,
            "network": plan.network,
        },
        "runs": [
            {"seed": run.seed, "state": run.state, "specification": json.loads(run.specification)} for run in plan.runs
        ],
        "environment": list(plan.environment),
        "mounts": dict(plan.mounts),
        "local_parallelism": plan.local_parallelism if slurm is None else None,
        "slurm": {key: getattr(slurm, key) for key in slurm.__slots__} if slurm is not None else None,
        "script": script or None,
        "notes": list(plan.notes),
    }


def as_text(plan: Plan, script: str) -> str:
    """What, where, which image, which seeds, and the batch script."""
    states = {
        state: [run.seed for run in plan.runs if run.state == state]
        for state in dict.fromkeys(run.state for run in plan.runs)
    }
    seeds = ", ".join(f"{' '.join(map(str, numbers))} ({state})" for state, numbers in states.items())
    rows = [
        ("experiment", plan.experiment),
        ("config", str(plan.config_file)),
        ("commit", plan.source.commit + (" with uncommitted changes" if plan.source.dirty else "")),
        *_image(plan),
        ("seeds", seeds),
        ("where", _where(plan)),
        ("tree", str(plan.tree)),
        ("store", str(plan.store)),
    ]
    lines = [f"{name:<11} {value}" for name, value in rows]
    lines += [f"{'note':<11} {note}" for note in plan.notes]
    if script:
        lines += ["", "batch script:", *(f"    {line}".rstrip() for line in script.splitlines())]
    lines += ["", "A dry run: nothing was changed."]
    return "\n".join(lines)


def _image(plan: Plan) -> list[tuple[str, str]]:
    image, code = plan.image, f"code git-tree:{plan.source.code_tree[:12]}"
    lock = f"{image.lock} sha256:{image.lock_sha256[:12]}"
    if image.build is None:
        return [("image", f"{image.engine}: {lock}, {code}")]
    there = f"there already, {plan.pin.environment[:19]}" if plan.pin else "to be built, unless the store has it"
    return [
        ("image", f"{image.engine}: {image.recipe}, {lock}, {code}; network {plan.network}"),
        ("base", image.base or ""),
        ("environment", f"{image.key[:12]}: {there}"),
    ]


def _where(plan: Plan) -> str:
    slurm = plan.slurm
    if slurm is None:
        return f"this machine, {plan.local_parallelism} at once"
    asked = [f"{slurm.cpus_per_task} CPUs", slurm.memory, f"{slurm.time_minutes} min an attempt"]
    if slurm.gpus_per_node:
        asked.insert(0, f"{slurm.gpus_per_node} GPUs")
    count = len(plan.todo)
    return f"Slurm, partition {slurm.partition}: an array of {count}, {slurm.array_parallelism} at once; {', '.join(asked)} each"


def finished(tree: Tree, seeds: Sequence[int]) -> str:
    """The outcome per seed, before and after; and over the seeds, with their count (R23). Empty while none is done."""
    done = {seed: _done(tree.run(seed)) for seed in seeds}
    rows = [(seed, found) for seed, found in done.items() if found is not None]
    if not rows:
        return ""
    lines = ["", f"{'seed':>6}  {'validation loss':>20}  {'accuracy':>20}"]
    for seed, found in rows:
        loss = f"{_number(found.get('val_loss_before'))} -> {_number(found.get('val_loss'))}"
        accuracy = f"{_percent(found.get('accuracy_before'))} -> {_percent(found.get('accuracy'))}"
        lines.append(f"{seed:>6}  {loss:>20}  {accuracy:>20}")
    if len(rows) > 1:
        loss, accuracy = (_over(rows, *column) for column in (("val_loss", _number), ("accuracy", _percent)))
        lines.append(f"{'mean':>6}  {loss:>20}  {accuracy:>20}   ± standard deviation over {len(rows)} seeds")
    if len(rows) < len(seeds):
        lines.append(f"{len(rows)} of {len(seeds)} seeds are done.")
    if why := marks(tree, {seed: attempts(tree.run(seed)) for seed in seeds}):
        lines.append(f"{NOT_REPRODUCIBLE}: {'; '.join(why)}")
    return "\n".join(lines)


def _over(rows: Sequence[tuple[int, Mapping[str, Any]]], key: str, shown: Callable[[Any], str]) -> str:
    """Mean and standard deviation over all of them; empty unless each has a number."""
    values = [found[key] for _, found in rows if is_number(found.get(key))]
    return f"{shown(statistics.mean(values))} ± {shown(statistics.stdev(values))}" if len(values) == len(rows) else ""


def _number(value: Any) -> str:
    return f"{value:.4f}" if is_number(value) else "-"


def _percent(value: Any) -> str:
    return f"{value:.1%}" if is_number(value) else "-"


def _done(run: RunDir) -> dict[str, Any] | None:
    try:
        value = json.loads(run.done.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def typed(program: str) -> str:
    """A program of this environment as it can be typed here: by name where PATH finds this very one, else by its path."""
    own = Path(sys.executable).with_name(program)
    found = shutil.which(program)
    if found is not None and Path(found).exists() and own.exists() and Path(found).samefile(own):
        return program
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)


def next_steps(tree: Tree, plan: Plan) -> str:
    """Where everything is, and the commands that come next."""
    name = plan.experiment if is_default(tree.root.parent, plan.source.repository) else str(tree.root)
    lines = [
        "",
        f"Everything is in {tree.root}",
        f"    {typed('launch')} status {name}",
        f"    {typed('launch')} logs {name}{' -f' if plan.slurm is not None else ''}",
    ]
    if plan.slurm is not None:
        lines.append(f"    {typed('launch')} cancel {name}")
    lines.append(f"    {typed('tensorboard')} --logdir {tree.root / 'metrics'}")
    lines += [note for note in plan.notes if note.startswith("NOT")]
    return "\n".join(lines)
