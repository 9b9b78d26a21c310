"""`launch image build | push | pull | export | import`: images made and moved without launching anything."""

import contextlib
import os
import tempfile
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from jobs.contract import ImagePin
from jobs.files import publish
from launcher import bundle, given
from launcher.engines import ENGINES, NodeOptions, Say, engine
from launcher.errors import ExitCode, LaunchError, fail
from launcher.given import Given
from launcher.image import parcel
from launcher.image.listing import size
from launcher.store import Made

HOST: str = "The host engine has no image: its environment is installed on each machine from the lock (make setup)."


def build(config: Path, *, site: str | None, engine_name: str | None, experiments: Path | None, say: Say) -> ImagePin:
    """Find or make the image that a launch of this config would run. Raises LaunchError."""
    found = _given(config, site, engine_name, experiments, say)
    return _ensured(found, say)


def push(config: Path, *, site: str | None, engine_name: str | None, experiments: Path | None, say: Say) -> ImagePin:
    """Make sure that the site's registry has the image. Raises LaunchError where the site has none."""
    found = _given(config, site, engine_name, experiments, say)
    _registry(found, "pushed to")
    _ensured(found, say)
    pushed: ImagePin = _module(found).push(found.request, found.site.workshop(), say)
    return pushed


def pull(config: Path, *, site: str | None, engine_name: str | None, experiments: Path | None, say: Say) -> ImagePin:
    """Take the image from the site's registry instead of building it. Raises LaunchError where it is not there."""
    found = _given(config, site, engine_name, experiments, say)
    _registry(found, "pulled from")
    pulled: ImagePin = _module(found).pull(found.request, found.site.workshop(), say)
    return pulled


def export(
    config: Path, file: Path, *, site: str | None, engine_name: str | None, experiments: Path | None, say: Say
) -> ImagePin:
    """Write the image, with all that a run of it needs, into one file. Raises LaunchError."""
    found = _given(config, site, engine_name, experiments, say)
    if found.request.build is None:
        raise fail(ExitCode.IMAGE, HOST, where=str(config), hint="For an image: --engine docker, or apptainer.")
    parcel.check_name(file)
    pin = _ensured(found, say)
    store = found.site.store
    own = bundle.ensure(store)
    with tempfile.TemporaryDirectory(prefix=".parcel.", suffix=".tmp", dir=file.absolute().parent) as scratch:
        parts: dict[str, Path] = _module(found).archive(pin, store, Path(scratch))
        count = parcel.write(file, pin, _about(found, pin, own), {**parts, "launcher.zip": own.path})
    say(f"{size(count)} -> {file}")
    return pin


def import_(file: Path, store: Path, say: Say) -> ImagePin:
    """Put the image of such a file into the store; a launch of the same commit then finds it.

    Raises LaunchError: FILES for a damaged file, IMAGE where the engine is missing or what came out is not what is pinned."""
    with parcel.opened(file, store) as taken:
        pin, made = taken.pin, Made.of(taken.about["made"])
        if pin.engine not in ENGINES:
            raise fail(ExitCode.IMAGE, f"It is for an engine `{pin.engine}`, unknown here.", where=str(file))
        if problems := engine(pin.engine).health():
            raise LaunchError(ExitCode.IMAGE, problems)
        import_module(ENGINES[pin.engine]).unarchive(pin, made, taken.files, store, say)
        if problems := engine(pin.engine).verify(pin, NodeOptions(store)):
            raise LaunchError(ExitCode.IMAGE, problems)
        _launcher(taken, store)
        there = Made.read(store, made.key, made.engine)
        if there is None:
            made.write(store)
        elif there.environment != made.environment:
            say(
                f"The store has an environment of its own for {made.key[:12]}: {there.environment[:19]}. New experiments use that "
                f"one; those that began with {made.environment[:19]} find theirs."
            )
    return pin


def _given(config: Path, site: str | None, engine_name: str | None, experiments: Path | None, say: Say) -> Given:
    found = given.read(config, site=site, experiments=experiments, engine=engine_name)
    if found.note:
        say(found.note)
    return found


def _ensured(found: Given, say: Say) -> ImagePin:
    name = found.request.engine
    if problems := engine(name).health():
        raise LaunchError(ExitCode.IMAGE, problems)
    began = time.monotonic()
    pin = engine(name).ensure(found.request, found.site.workshop(), say)
    say(f"{name} image of {found.source.commit[:12]}: {time.monotonic() - began:.1f} s")
    return pin


def _registry(found: Given, what: str) -> None:
    if found.request.build is None:
        raise fail(ExitCode.IMAGE, HOST, hint="For an image: --engine docker, or apptainer.")
    if found.site.registry is None:
        where = str(found.site.file) if found.site.file else f"site {found.site.name}"
        hint = "Set registry in slurm/sites/NAME.yaml; or use one file: launch image export CONFIG FILE, then import."
        raise fail(ExitCode.IMAGE, f"There is no registry that it could be {what}.", where=where, hint=hint)


def _module(found: Given) -> Any:
    return import_module(ENGINES[found.request.engine])


def _about(found: Given, pin: ImagePin, own: bundle.Bundle) -> dict[str, Any]:
    made = Made.read(found.site.store, found.request.key, found.request.engine)
    if made is None:
        what = f"The record of environment {found.request.key[:12]} is gone from the store."
        raise fail(ExitCode.IMAGE, what, hint="The same command makes it anew.")
    return {"made": asdict(made), "commit": found.source.commit, "code": pin.code, "launcher": own.digest}


def _launcher(taken: parcel.Parcel, store: Path) -> None:
    """The launcher that exported it: whole by the manifest, and under its own hash."""
    there = bundle.find(store, str(taken.about["launcher"]))
    if not bundle.is_whole(there):
        data = taken.files["launcher.zip"].read_bytes()
        if bundle.digest_of(data) != there.digest:
            raise fail(ExitCode.FILES, "Its launcher is not the one that it names.", where=str(there.path))
        there.path.parent.mkdir(parents=True, exist_ok=True)
        publish(there.path, data, bundle.READ_ONLY)
    with contextlib.suppress(OSError):  # another user's; it counts as made now where that can be written
        os.utime(there.path)
