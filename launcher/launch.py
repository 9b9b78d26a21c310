"""`launch CONFIG`, the street in order: load, source, plan, and then either show it or image, tree, runs."""

import getpass
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from jobs.contract import ImagePin
from jobs.files import now
from jobs.rundir import Tree
from launcher import __version__, begun, given, inputs, roots, show, tree
from launcher.config.load import Loaded
from launcher.engines import ImageRequest, engine
from launcher.errors import ExitCode, LaunchError
from launcher.given import Twin
from launcher.plan import Flags, Plan
from launcher.planning import make_plan


def launch(config: Path, flags: Flags, *, dry_run: bool, as_json: bool, wait: bool, twin: Twin | None = None) -> int:
    """Run or submit every seed of a config that is not done; or, dry, only show the plan and change nothing. `twin`: of its twin.

    Returns an ExitCode. Raises LaunchError with all that stands in the way, before anything is written."""
    plan = plan_for(config, flags, twin)
    if dry_run:
        script = ""
        if plan.slurm is not None:
            from launcher import submit

            script = submit.script(plan)
        print(json.dumps(show.as_json(plan, script), indent=2) if as_json else show.as_text(plan, script))
        return ExitCode.OK
    if not plan.todo:
        print(show.finished(Tree(plan.tree), [run.seed for run in plan.runs]))
        print("Nothing to do: every seed is done.")
        return ExitCode.OK
    for note in plan.notes:
        print(note)
    if problems := engine(plan.image.engine).health():
        raise LaunchError(ExitCode.IMAGE, problems)
    if plan.slurm is not None:
        from launcher import request

        # Before anything is written: a name is not to be taken by a launch that could never have been submitted.
        request.check(plan.slurm, plan.tree)
    opened = tree.open_tree(plan, _image(plan))
    return _on_slurm(plan, opened, wait=wait) if plan.slurm is not None else _here(plan, opened)


def _image(plan: Plan) -> ImagePin:
    """The image of the runs: that which they began with, where it is whole; else the one of their commit, found or made."""
    image, there = engine(plan.image.engine), Tree(plan.tree)
    lock = plan.image.key if plan.image.build else f"sha256:{plan.image.lock_sha256}"
    roots.register(plan.store, plan.tree, [lock, f"git-tree:{plan.source.code_tree}"])
    began = begun.own_pin(there, [run.seed for run in plan.runs])
    if began is not None and not image.verify(began, plan.node):
        return began
    made = image.ensure(plan.image, plan.workshop, print)
    if began is None:
        return made
    begun.check_pin(there, began, made)
    return began


def plan_for(config: Path, flags: Flags, twin: Twin | None = None) -> Plan:
    """Everything up to the plan. Reads; writes nothing into the tree or the store."""
    found = given.read(config, site=flags.site, experiments=flags.experiments, allow_dirty=flags.allow_dirty, twin=twin)
    loaded, there, wanted = found.loaded, found.there, found.request
    inputs.check_inputs(loaded, found.repository)
    needed = inputs.mounts(loaded, found.repository, inputs.hub_cache(os.environ)) if wanted.engine != "host" else {}
    states = {seed: tree.state_of(there.run(seed)) for seed in loaded.experiment.seeds}
    plan = make_plan(
        loaded,
        found.source,
        found.site,
        flags,
        experiments=found.experiments,
        image=wanted,
        inputs=needed,
        states=states,
        launched=_launched(loaded, wanted),
    )
    tree.check(plan, there)
    return replace(plan, notes=(found.note, *plan.notes)) if found.note else plan


def _launched(loaded: Loaded, image: ImageRequest) -> Mapping[str, str]:
    """For the record. No value of the environment is in it."""
    return {
        "version": __version__,
        "host": platform.node(),
        "user": _user(),
        "time": now(),
        "config": str(loaded.file),
        "command": shlex.join(["launch", *sys.argv[1:]]),
        "lock": image.lock,
        "lock_sha256": image.lock_sha256,
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _on_slurm(plan: Plan, opened: Tree, *, wait: bool) -> int:
    from launcher import status, submit

    done = submit.submit(plan, print)
    for state in done.already:
        print(f"seed {state.seed} is under way already: {state.state} {state.detail}".rstrip())
    if done.submission is not None:
        seeds = ", ".join(map(str, done.submission.seeds))
        print(
            f"Submitted {plan.experiment} as job {done.submission.job} in {done.submission.partition}: seeds {seeds}."
        )
    print(show.next_steps(opened, plan))
    return status.wait(opened, [run.seed for run in plan.runs], print) if wait else ExitCode.OK


def _here(plan: Plan, opened: Tree) -> int:
    from launcher import local

    code = local.run(plan, opened)
    print(show.finished(opened, [run.seed for run in plan.runs]))
    print(show.next_steps(opened, plan))
    return code
