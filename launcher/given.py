"""What a command means that names a config: the config itself, the site, the code that it runs, the image that this asks for."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.rundir import Tree
from launcher import begun, image, source
from launcher.config.freeze import frozen_text
from launcher.config.load import Loaded, load
from launcher.engines import ImageRequest
from launcher.errors import ExitCode, fail
from launcher.experiments import experiments_folder
from launcher.plan import Source
from launcher.site import Site, load_site


@dataclass(frozen=True, slots=True)
class Given:
    """All that follows from a config and its repository. Nothing was written for it."""

    loaded: Loaded
    repository: Path
    site: Site
    experiments: Path
    """The folder of all trees."""
    there: Tree
    """The experiment's tree; it need not exist."""
    source: Source
    """What runs: of what is checked out, or of where the experiment began."""
    request: ImageRequest
    note: str
    """For a person, where the two are not the same; else empty."""


@dataclass(frozen=True, slots=True)
class Twin:
    """The same recipe and seeds once more, in a tree of its own: the experiment of that name itself is not touched."""

    name: str
    folder: Path
    """Of its tree, within the folder of all trees."""


def read(
    config: Path,
    *,
    site: str | None = None,
    experiments: Path | None = None,
    allow_dirty: bool = False,
    engine: str | None = None,
    twin: Twin | None = None,
) -> Given:
    """Read it all. `engine`: instead of the config's, for an image that another machine is to run. `twin`: as this one.

    Raises LaunchError with what is wrong in config, profile, repository or pins."""
    loaded = load(config)
    repository = source.repository_of(config)
    profile = load_site(site, repository)
    folder = experiments_folder(experiments, profile, repository)
    code = source.read_source(config, allow_dirty=allow_dirty, experiments=folder)
    _check_committed(loaded, code)
    if twin is not None:
        loaded, folder = _as_twin(loaded, twin), folder / twin.folder
    there = Tree(folder / loaded.experiment.name)
    own = begun.own_source(loaded, code, there)
    wanted = loaded.experiment.image
    request = image.request(wanted if engine is None else wanted.model_copy(update={"engine": engine}), own)
    return Given(
        loaded, repository, profile, folder, there, own, request, begun.note(loaded.experiment.name, code, own)
    )


def _as_twin(loaded: Loaded, twin: Twin) -> Loaded:
    """By its own name in everything, wandb included, where it stays on this machine."""
    experiment = loaded.experiment
    tracking = experiment.tracking
    if tracking.wandb is not None:
        tracking = tracking.model_copy(update={"wandb": tracking.wandb.model_copy(update={"mode": "offline"})})
    experiment = experiment.model_copy(update={"name": twin.name, "tracking": tracking})
    return replace(loaded, experiment=experiment, resolved=frozen_text(experiment))


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
