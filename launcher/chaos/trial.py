"""`launch chaos` from its config to its verdict: the calm twin, the schedule, the beaten twin, the report."""

import platform
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from jobs.files import read_lines
from jobs.rundir import Tree
from launcher import __version__, cancel, given
from launcher.chaos import local_blows, schedule, slurm_blows
from launcher.chaos.back import LocalReturn, SlurmReturn
from launcher.chaos.beater import Beater, Dealt
from launcher.chaos.report import Report
from launcher.chaos.scene import Scene, fillable
from launcher.chaos.schedule import Blow, Course, Kind
from launcher.chaos.target import Target
from launcher.chaos.twins import Launcher, Request
from launcher.chaos.verdict import judge
from launcher.errors import ExitCode, LaunchError, fail
from launcher.given import Given
from launcher.plan import Flags
from launcher.process import run

FOLDER: Final = "chaos"
LONGEST_NAME: Final = 56
"""A twin's name has to fit where the experiment's does."""
CLOSING_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Wish:
    """What `launch chaos` was asked for."""

    config: Path
    flags: Flags
    seed: int | None
    blows: int
    preemptor: str | None
    as_admin: bool
    only: tuple[str, ...]
    node_commands: tuple[str, str] | None = None
    """See `Scene`."""


def chaos(wish: Wish, say: Callable[[str], None]) -> int:
    """The whole trial. ExitCode.OK only if every run ended with the bits of the calm one, and no blow cost more than it may."""
    began = time.monotonic()
    found = given.read(wish.config, site=wish.flags.site, experiments=wish.flags.experiments)
    wish = replace(wish, flags=replace(wish.flags, experiments=found.experiments))
    seed = secrets.randbelow(2**32) if wish.seed is None else wish.seed
    name = found.loaded.experiment.name[:LONGEST_NAME].rstrip(".-_")
    place = Path(FOLDER) / f"{name}-{found.source.commit[:12]}"
    folder = _new(found.experiments / place, f"seed-{seed}")
    calm = _launcher(wish, found, f"{name}-calm", place)
    beaten = _launcher(wish, found, f"{name}-beaten", place / folder.name)
    say(f"Seed of the blows: {seed}. Everything is in {folder}")
    scene = Scene(beaten, wish.preemptor, _account(wish.flags), wish.node_commands)
    kinds, left_out = choose(wish, scene)
    for kind, why in left_out.items():
        say(f"LEFT OUT: {kind}: {why}")
    calm_runs, course = _calm(calm, found, local=wish.flags.local, say=say)
    blows = schedule.draw(seed, wish.blows, found.loaded.experiment.seeds, kinds, course)
    say(f"The schedule, of seed {seed}:")
    for blow in blows:
        say(f"  {blow}")
    say(f"The run that is beaten: {beaten.request.tree.root}")
    deals = local_blows.DEALS if wish.flags.local else slurm_blows.DEALS
    beater = Beater(scene, deals, _return(beaten, local=wish.flags.local), say)
    runs = [Target(beaten.request.tree.run(target.seed), course) for target in calm_runs]
    _guarded(beater, runs, blows, local=wish.flags.local)
    say("Comparing ...")
    verdicts = [
        judge(calm_run.run, each.run, _of(beater.dealt, each.seed), course, beater.stuck.get(each.seed, ""))
        for calm_run, each in zip(calm_runs, runs, strict=True)
    ]
    dealt = sorted(beater.dealt, key=lambda each: each.blow.number)
    report = Report(facts(wish, found), seed, course, left_out, dealt, verdicts, time.monotonic() - began)
    report.write(folder)
    report.show()
    say(f"Report: {folder / 'report.md'}")
    return ExitCode.OK if report.good else ExitCode.RUN


def _new(place: Path, name: str) -> Path:
    """A folder for this trial: the same seed again gets one of its own."""
    for number in range(1, 10000):
        folder = place / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise fail(ExitCode.TREE, "Too many trials with this seed.", where=str(place))


def _launcher(wish: Wish, found: Given, name: str, folder: Path) -> Launcher:
    root = found.experiments / folder
    log = root / f"{name}.log"
    return Launcher(Request(wish.config.absolute(), wish.flags, name, folder, Tree(root / name), log))


def _account(flags: Flags) -> tuple[str, ...]:
    return tuple(f"--{key}={value}" for key, value in (("account", flags.account), ("qos", flags.qos)) if value)


def choose(wish: Wish, scene: Scene) -> tuple[list[Kind], dict[str, str]]:
    """The kinds of blows that are dealt, and why others are not. Raises LaunchError (USAGE)."""
    local = wish.flags.local
    every = schedule.LOCAL if local else schedule.SLURM
    names = [kind.name for kind in every]
    if unknown := [name for name in wish.only if name not in names]:
        hint = f"There are: {', '.join(names)}."
        raise fail(
            ExitCode.USAGE,
            f"--only {unknown[0]}: no such blow {'on this machine' if local else 'on Slurm'}.",
            hint=hint,
        )
    left_out = {} if local else slurm_blows.without(scene, as_admin=wish.as_admin)
    if why := fillable(scene.launcher.request.tree.root):
        left_out["disk-full"] = why
    if wish.only:
        left_out = {name: why for name, why in left_out.items() if name in wish.only}
    kinds = [kind for kind in every if kind.name not in left_out and (not wish.only or kind.name in wish.only)]
    if not kinds:
        raise fail(
            ExitCode.USAGE, "No blow is left.", hint="; ".join(f"{name}: {why}" for name, why in left_out.items())
        )
    return kinds, left_out


def _calm(launcher: Launcher, found: Given, *, local: bool, say: Callable[[str], None]) -> tuple[list[Target], Course]:
    """Finish the calm twin, or find it finished. Raises LaunchError (RUN) where it does not get there by itself."""
    tree = launcher.request.tree
    unknown = Course(1, 1, 1)
    targets = [Target(tree.run(seed), unknown) for seed in found.loaded.experiment.seeds]
    if all(target.done for target in targets):
        say(f"The calm run is there already: {tree.root}")
    else:
        say(f"The calm run: {tree.root}")
        beater = Beater(Scene(launcher, None, ()), {}, _return(launcher, local=local), say)
        _guarded(beater, targets, [], local=local)
        if not all(target.done for target in targets):
            why = "\n".join(dict.fromkeys(beater.stuck.values()))  # the same for all runs, mostly
            raise fail(ExitCode.RUN, "The run does not get to its end even in peace.", where=str(tree.root), hint=why)
    calm = targets[0].run
    steps = max(line["steps"] for line in read_lines(calm.events) if isinstance(line.get("steps"), int))
    experiment = found.loaded.experiment
    per_epoch = max(1, steps // experiment.training.epochs)
    every = experiment.checkpoints.every_steps
    return targets, Course(steps, per_epoch, min(every or per_epoch, per_epoch))


def _return(launcher: Launcher, *, local: bool) -> LocalReturn | SlurmReturn:
    return LocalReturn(launcher) if local else SlurmReturn(launcher)


def _guarded(beater: Beater, targets: Sequence[Target], blows: Sequence[Blow], *, local: bool) -> None:
    """Beat them; whoever interrupts that gets the runs stopped, too."""
    launcher = beater.scene.launcher
    launcher.begin()
    try:
        beater.run(targets, blows)
    finally:
        _close(launcher, targets, local=local)


def _close(launcher: Launcher, targets: Sequence[Target], *, local: bool) -> None:
    process = launcher.process
    if process is not None and process.poll() is None and local and not all(target.done for target in targets):
        process.terminate()
    if process is not None:
        process.wait(CLOSING_SECONDS)
    if not local and not all(target.done for target in targets) and launcher.request.tree.root.is_dir():
        cancel.cancel(launcher.request.tree, None)


def _of(dealt: Sequence[Dealt], seed: int) -> list[Dealt]:
    return [each for each in dealt if each.blow.seed == seed]


def facts(wish: Wish, found: Given) -> dict[str, str]:
    """What the result is a result of."""
    flags = wish.flags
    where = (
        "this machine" if flags.local else f"partition {flags.partition}" if flags.partition else f"site {flags.site}"
    )
    known = {
        "config": found.loaded.file.name,
        "experiment": found.loaded.experiment.name,
        "seeds": ", ".join(map(str, found.loaded.experiment.seeds)),
        "commit": found.source.commit,
        "place": f"{where}, engine {found.request.engine}",
        "samebits": __version__,
        "python": platform.python_version(),
    }
    if not flags.local:
        try:
            known["slurm"] = run(["scontrol", "--version"], timeout=15).stdout.strip()
        except LaunchError:
            known["slurm"] = "unknown"
    return known


def announce(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
