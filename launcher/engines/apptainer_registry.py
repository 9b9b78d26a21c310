"""SIFs in a site's registry, as ORAS artifacts: the one file of such an artifact has the SIF's own digest."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from jobs.contract import ImagePin
from launcher.engines import ImageRequest, Registry, Say, Workshop
from launcher.engines.apptainer_node import SIF
from launcher.engines.apptainer_program import environment, program
from launcher.engines.apptainer_sif import look_inside
from launcher.engines.contained import made, modules, own_variables
from launcher.engines.transient import patiently
from launcher.errors import ExitCode, fail
from launcher.process import run
from launcher.store import Made, blob_path, publish_blob


def push_sif(request: ImageRequest, pin: ImagePin, workshop: Workshop, say: Say) -> None:
    """Push the environment. Raises LaunchError (IMAGE)."""
    registry = _registry(workshop)
    place = _place(registry, request)
    _call("push", registry, "--allow-unsigned", str(blob_path(workshop.store, pin.environment, SIF)), place)
    say(f"pushed {place}: {pin.environment[:19]}")


def pull_sif(request: ImageRequest, workshop: Workshop, say: Say) -> Made:
    """Pull the environment, look inside, and put it into the store. Raises LaunchError (IMAGE)."""
    registry = _registry(workshop)
    place = _place(registry, request)
    blobs = workshop.store / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pulled.", suffix=".tmp", dir=blobs) as scratch:
        file = Path(scratch, "environment.sif")
        _call("pull", registry, "--disable-cache", str(file), place)
        found = made(request, "", look_inside(file, modules(request)))
        digest = publish_blob(workshop.store, SIF, lambda new: os.replace(file, new))  # noqa: PTH105 - returns nothing
    say(f"pulled {place}: {digest[:19]}")
    return replace(found, environment=digest)


def _registry(workshop: Workshop) -> Registry:
    if workshop.registry is None:
        raise fail(ExitCode.IMAGE, "The site has no registry.", hint="Set registry in slurm/sites/NAME.yaml.")
    return workshop.registry


def _place(registry: Registry, request: ImageRequest) -> str:
    return f"oras://{registry.address}/environment-sif:{request.key[:32]}"


def _call(verb: str, registry: Registry, *arguments: str) -> None:
    patiently(lambda: _try(verb, registry, arguments))


def _try(verb: str, registry: Registry, arguments: tuple[str, ...]) -> None:
    options = ["--no-https"] if registry.insecure else []
    variables = environment(**own_variables("HOME", "DOCKER_CONFIG"))
    argv = [program(), "--silent", verb, *options, *arguments]
    done = run(argv, env=variables, exactly=True, timeout=None, kind=ExitCode.IMAGE)
    if not done.ok:
        hint = "The registry must answer, and have it. Or use one file: launch image export CONFIG FILE, then import."
        raise fail(
            ExitCode.IMAGE, f"The registry could not be used to {verb} it.", where=arguments[-1], hint=hint,
            evidence=done.evidence(),
        )  # fmt: skip
