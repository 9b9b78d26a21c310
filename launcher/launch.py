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

from jobs.files import now
from jobs.rundir import Tree
from launcher import __version__, begun, image, inputs, show, source, tree
from launcher.config.load import Loaded, load
from launcher.engines import engine
from launcher.errors import ExitCode, LaunchError, fail
from launcher.experiments import experiments_folder
from launcher.plan import Flags, Plan, Source
from launcher.planning import make_plan
from launcher.site import load_site


def launch(config: Path, flags: Flags, *, dry_run: bool, as_json: bool, wait: bool) -> int:
    """Run or submit every seed of a config that is not done; or, dry, only show the plan and change nothing.

    Returns an ExitCode. Raises LaunchError with all that stands in the way, before anything is written."""
    plan = plan_for(config, flags)
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
    pin = engine(plan.image.engine).ensure(plan.image, plan.workshop, print)
    opened = tree.open_tree(plan, pin)
    return _on_slurm(plan, opened, wait=wait) if plan.slurm is not None else _here(plan, opened)


def plan_for(config: Path, flags: Flags) -> Plan:
    """Everything up to the plan. Reads; writes nothing into the tree or the store."""
    loaded = load(config)
    repository = source.repository_of(config)
    site = load_site(flags.site, repository)
    experiments = experiments_folder(flags.experiments, site, repository)
    code = source.read_source(config, allow_dirty=flags.allow_dirty, experiments=experiments)
    _check_committed(loaded, code)
    inputs.check_inputs(loaded, repository)
    there = Tree(experiments / loaded.experiment.name)
    own = begun.own_source(loaded, code, there)
    wanted = image.request(loaded.experiment.image, own)
    needed = inputs.mounts(loaded, repository, inputs.hub_cache(os.environ)) if wanted.engine != "host" else {}
    states = {seed: tree.state_of(there.run(seed)) for seed in loaded.experiment.seeds}
    plan = make_plan(
        loaded,
        own,
        site,
        flags,
        experiments=experiments,
        image=wanted,
        inputs=needed,
        states=states,
        launched=_launched(loaded),
    )
    tree.check(plan, there)
    goes_on = begun.note(plan.experiment, code, own)
    return replace(plan, notes=(goes_on, *plan.notes)) if goes_on else plan


def _check_committed(loaded: Loaded, code: Source) -> None:
    """R16: what was read is what is committed. git can be told not to look at a file, and a file can change after it was read."""
    real = loaded.file.resolve()
    if not real.is_relative_to(code.repository):
        hint = f"Copy it into the repository: {code.repository}"
        raise fail(ExitCode.SOURCE, "The config lies outside of the repository.", where=str(real), hint=hint)
    path = str(real.relative_to(code.repository))
    committed = source.read_file(code, path)
    if committed is None or committed.decode("utf-8-sig", errors="replace") != loaded.text:
        hint = (
            f"Commit it: git update-index --no-assume-unchanged {shlex.quote(path)} && git commit {shlex.quote(path)}"
        )
        raise fail(ExitCode.SOURCE, "The config is not the one that is committed.", where=path, hint=hint)


def _launched(loaded: Loaded) -> Mapping[str, str]:
    """For the record. No value of the environment is in it."""
    return {
        "version": __version__,
        "host": platform.node(),
        "user": _user(),
        "time": now(),
        "config": str(loaded.file),
        "command": shlex.join(["launch", *sys.argv[1:]]),
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
