"""`launch image VERB`: images without a launch."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launcher.cli import options

if TYPE_CHECKING:
    from jobs.contract import ImagePin

EPILOG = """\b
Examples:
  launch image build configs/x.yaml              make it now, launch later
  launch image ls                                what the store holds, and who uses it
  launch image prune --older 30d --dry-run       what could go
  launch image export configs/x.yaml x.image     one file, for a machine that cannot build
"""

config = click.argument("config", type=click.Path(path_type=Path))
engine = click.option(
    "--engine",
    type=click.Choice(["docker", "apptainer"]),
    help="Make it for this engine instead of the config's, for use on another machine.",
)
site = click.option("--site", type=options.SlurmName(), help="Store and registry as slurm/sites/NAME.yaml says.")


@click.group("image", epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Build, move, list and remove images."""


@command.command("build", epilog="\b\nExample:\n  launch image build configs/x.yaml")
@config
@engine
@site
@options.experiments
def build(config: Path, *, engine: str | None, site: str | None, experiments: Path | None) -> int:
    """Make the image of a config's commit, without launching.

    Nothing happens where it is there already.
    """
    from launcher import images

    _show(images.build(config, site=site, engine_name=engine, experiments=experiments, say=click.echo))
    return 0


@command.command("push", epilog="\b\nExample:\n  launch image push configs/x.yaml --site cluster")
@config
@engine
@site
@options.experiments
def push(config: Path, *, engine: str | None, site: str | None, experiments: Path | None) -> int:
    """Make sure that the site's registry has the image; it is made where it is missing."""
    from launcher import images

    _show(images.push(config, site=site, engine_name=engine, experiments=experiments, say=click.echo))
    return 0


@command.command("pull", epilog="\b\nExample:\n  launch image pull configs/x.yaml --site cluster")
@config
@engine
@site
@options.experiments
def pull(config: Path, *, engine: str | None, site: str | None, experiments: Path | None) -> int:
    """Take the image from the site's registry instead of making it."""
    from launcher import images

    _show(images.pull(config, site=site, engine_name=engine, experiments=experiments, say=click.echo))
    return 0


@command.command("ls", epilog="\b\nExample:\n  launch image ls --json")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@site
@options.experiments
def ls(*, as_json: bool, site: str | None, experiments: Path | None) -> int:
    """What the store holds: environments, code, locks, launchers, and which experiments use them."""
    from launcher.image import library, listing

    store, folder = _places(site, experiments)
    found = library.shelves(store, folder)
    click.echo(
        json.dumps(listing.as_json(store, found), indent=2) if as_json else listing.as_text(store, found, time.time())
    )
    return 0


@command.command("prune", epilog="\b\nExample:\n  launch image prune --older 2w --dry-run")
@click.option(
    "--older",
    type=options.Span(),
    default="30d",
    show_default=True,
    help="Only what was not used for this long: 12h, 30d, 8w.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@site
@options.experiments
def prune(*, older: float, dry_run: bool, as_json: bool, site: str | None, experiments: Path | None) -> int:
    """Remove from the store what no unfinished experiment uses.

    Whatever is removed can be made anew from its commit. An experiment counts as unfinished until all its seeds are
    done, wherever its folder is; what it uses stays, however old it is.
    """
    from launcher.errors import ExitCode, LaunchError
    from launcher.image import library, listing

    done = library.prune(*_places(site, experiments), older, dry=dry_run)
    click.echo(
        json.dumps(listing.pruned_json(done, dry=dry_run), indent=2)
        if as_json
        else listing.pruned_text(done, dry=dry_run)
    )
    if done.failed:
        raise LaunchError(ExitCode.FILES, done.failed)
    return 0


@command.command("export", epilog="\b\nExample:\n  launch image export configs/x.yaml x.image")
@config
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@engine
@site
@options.experiments
def export(config: Path, file: Path, *, engine: str | None, site: str | None, experiments: Path | None) -> int:
    """Write the image, with all that a run of it needs, into one file."""
    from launcher import images

    _show(images.export(config, file, site=site, engine_name=engine, experiments=experiments, say=click.echo))
    return 0


@command.command("import", epilog="\b\nExample:\n  launch image import x.image --site cluster")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@site
def import_(file: Path, *, site: str | None) -> int:
    """Take an image from such a file; a launch of the same commit then finds it.

    All of it is compared with its digests first; from a damaged file nothing is taken.
    """
    from launcher import images

    _show(images.import_(file, _places(site, None)[0], click.echo))
    return 0


def _places(site: str | None, experiments: Path | None) -> tuple[Path, Path]:
    """The store, and the folder of all trees, as a launch from here would use them."""
    from launcher.experiments import experiments_folder, repository_of
    from launcher.site import load_site

    top = repository_of(Path.cwd())
    profile = load_site(site, top)
    return profile.store, experiments_folder(experiments, profile, top)


def _show(pin: "ImagePin") -> None:
    """The pin, as it goes into run.json."""
    from dataclasses import asdict

    given: dict[str, Any] = {name: value for name, value in asdict(pin).items() if value is not None}
    width = max(map(len, given))
    for name, value in given.items():
        click.echo(f"{name:<{width}}  {value}")
