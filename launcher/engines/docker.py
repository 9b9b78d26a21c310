"""The `docker` engine: an image per commit, pinned by its id, run as the job's user within the job's allocation."""

import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from jobs.contract import ImagePin
from launcher.engines import ImageRequest, NodeOptions, Say, Workshop, docker_build, docker_run, docker_sdk
from launcher.engines.contained import PREFIX, Layer, known_pin, made, modules, pin_of
from launcher.errors import ExitCode, LaunchError, Problem, fail
from launcher.process import check, run
from launcher.store import Made, Stored, locked, made_path

command = docker_run.command
clean = docker_run.clean
environment = docker_build.environment

PUSH: Final = "Push it again from where it was made: launch image push CONFIG"
DAMAGED: Final = re.compile(r"verif|does not match|invalid checksum|digest|invalid character|unmarshal", re.IGNORECASE)
"""How engines say that a blob or a manifest is not what its name says."""
GONE: Final = re.compile(r"manifest unknown|not found|does not exist|unknown blob|blob unknown", re.IGNORECASE)


def health() -> list[Problem]:
    """A client that builds and runs, and an engine that answers."""
    if shutil.which("docker") is None:
        hint = "Install it (apt-get install docker.io), or take another engine: image: {engine: apptainer}."
        return [Problem("`docker` is not on PATH.", hint=hint)]
    error = docker_sdk.health()
    return [*error.problems] if error else []


def pin(request: ImageRequest, store: Path) -> ImagePin | None:
    return known_pin(request, store)


def ensure(request: ImageRequest, workshop: Workshop, say: Say) -> ImagePin:
    """The environment, then the code on top of it; pushed where the site has a registry. Raises LaunchError (IMAGE)."""
    there = environment(request, workshop, say)
    return pin_of(request, there, docker_build.code_layer(request, there, workshop, say))


def verify(pin: ImagePin, node: NodeOptions) -> list[Problem]:
    """The engine names images by their content, so an id that it has is what is pinned. One that it lacks is pulled by the digest
    of its manifest; the engine compares every blob, and the id must come out.

    Raises LaunchError where this node's engine or the registry does not answer: another node may do."""
    del node
    wanted = str(pin.layer)
    found = docker_sdk.inspect(wanted)
    if found is None and pin.manifest is None:
        hint = (
            "Set `registry` in the site's profile, then: launch image push CONFIG\n"
            "Or carry it there: launch image export CONFIG FILE, and on the node: launch image import FILE"
        )
        return [Problem(f"This node's Docker has no image {wanted}, and it was pushed to no registry.", hint=hint)]
    if found is None:
        if problem := _pull(pin):
            return [problem]
        found = docker_sdk.inspect(wanted)
    if found is None:
        came = (docker_sdk.inspect(str(pin.manifest)) or {}).get("Id", "nothing")
        return [Problem(f"The registry gave image {came}; the run is pinned to {wanted}.", str(pin.manifest), PUSH)]
    labels: Mapping[str, str] = found["Config"].get("Labels") or {}
    told = (labels.get("samebits.environment"), f"{PREFIX}{labels.get('samebits.code')}")
    if told != (pin.environment, pin.code):
        what = f"Image {wanted} was made of {' and '.join(map(str, told))}; pinned: {pin.environment} and {pin.code}."
        return [Problem(what, hint="Launch again: it is made anew from the commit.")]
    return []


def _pull(pin: ImagePin) -> Problem | None:
    """Why the image that is pinned cannot be had from anywhere; None: it is here now."""
    try:
        docker_sdk.pull(str(pin.manifest))
    except LaunchError as error:
        words = f"{error} {error.evidence}".strip()
        if DAMAGED.search(words):
            what = f"What the registry has is not what it was: {words} Pinned is image {pin.layer}."
        elif GONE.search(words):
            what = f"The registry no longer has it: {words} Pinned is image {pin.layer}."
        else:
            raise
        return Problem(what, str(pin.manifest), PUSH)
    return None


def push(request: ImageRequest, workshop: Workshop, say: Say) -> ImagePin:
    """Make sure that the registry has it: pushing again what is there costs little."""
    there = environment(request, workshop, say)
    layer = docker_build.code_layer(request, there, workshop, say)
    address = workshop.registry.address if workshop.registry else ""
    manifest = docker_sdk.push(there.environment, f"{address}/environment", request.key[:32])
    replace(there, manifest=manifest).write(workshop.store)
    manifest = docker_sdk.push(layer.layer, f"{address}/run", f"{request.code_tree[:12]}-{request.key[:12]}")
    return pin_of(request, there, replace(layer, manifest=manifest).write(workshop.store))


def pull(request: ImageRequest, workshop: Workshop, say: Say) -> ImagePin:
    """Take environment and code from the registry, where another machine pushed them, and look inside as after a build."""
    address = workshop.registry.address if workshop.registry else ""
    with locked(workshop.store, f"docker-{request.key}"):
        tag = f"{address}/environment:{request.key[:32]}"
        docker_sdk.pull(tag)
        found = docker_sdk.inspect(tag) or {}
        _same(tag, (found.get("Config") or {}).get("Labels") or {}, "samebits.environment.key", request.key)
        image, manifest = str(found["Id"]), _manifest(found, address)
        there = made(request, image, docker_build.look_inside(image, modules(request)), manifest).write(workshop.store)
        tag = f"{address}/run:{request.code_tree[:12]}-{request.key[:12]}"
        docker_sdk.pull(tag)
        found = docker_sdk.inspect(tag) or {}
        labels = (found.get("Config") or {}).get("Labels") or {}
        _same(tag, labels, "samebits.code", request.code_tree)
        _same(tag, labels, "samebits.environment", image)
        stamp = datetime.now().astimezone().isoformat(timespec="seconds")
        layer = Layer("docker", image, request.code_tree, str(found["Id"]), stamp, _manifest(found, address))
        for held in (image, layer.layer):
            docker_sdk.hold(held, workshop.store)
        say(f"pulled {layer.manifest}")
        return pin_of(request, there, layer.write(workshop.store))


def _same(tag: str, labels: Mapping[str, str], name: str, wanted: str) -> None:
    if labels.get(name) != wanted:
        what = f"Its label {name} is {labels.get(name)}; wanted is {wanted}."
        raise fail(ExitCode.IMAGE, what, where=tag, hint=PUSH)


def _manifest(found: Mapping[str, object], address: str) -> str | None:
    digests = found.get("RepoDigests") or []
    return next((str(one) for one in digests if str(one).startswith(f"{address}/")), None)  # type: ignore[attr-defined]


def archive(pin: ImagePin, store: Path, scratch: Path) -> dict[str, Path]:
    """Environment and code as one file that any Docker loads under the same ids."""
    del store
    file = scratch / "docker-image.tar"
    argv = ["docker", "save", "--output", str(file), pin.environment, str(pin.layer)]
    check(run(argv, timeout=None, kind=ExitCode.IMAGE), ExitCode.IMAGE, "Docker did not save the image.")
    return {file.name: file}


def unarchive(pin: ImagePin, made: Made, files: Mapping[str, Path], store: Path, say: Say) -> None:
    """Load what `archive` saved, and record the code's layer."""
    argv = ["docker", "load", "--quiet", "--input", str(files["docker-image.tar"])]
    check(run(argv, timeout=None, kind=ExitCode.IMAGE), ExitCode.IMAGE, "Docker did not load the image.")
    for image in (made.environment, str(pin.layer)):
        if docker_sdk.inspect(image) is None:
            raise fail(ExitCode.IMAGE, f"The file did not hold image {image}.")
        docker_sdk.hold(image, store)
    stamp = datetime.now().astimezone().isoformat(timespec="seconds")
    Layer("docker", made.environment, pin.code.removeprefix(PREFIX), str(pin.layer), stamp).write(store)
    say(f"loaded {str(pin.layer)[:19]}")


def stored(store: Path) -> Iterator[Stored]:
    """Environments and code layers of this engine that the store has records of. Images without one may be another store's."""
    for path in sorted((store / "images").glob("*.docker.json")):
        made = Made.read(store, path.name.partition(".")[0], "docker")
        if made is not None:
            yield Stored(
                "environment",
                "docker",
                made.key,
                _size(made.environment),
                _since(path),
                frozenset({made.environment, made.key}),
                lock=f"docker-{made.key}",
                about={"base": made.base, "python": made.python},
            )
    for path, layer in Layer.all(store, "docker"):
        whole, below = _size(layer.layer), _size(layer.environment)
        yield Stored(
            "code",
            "docker",
            path.stem,
            None if whole is None or below is None else max(0, whole - below),
            _since(path),
            frozenset({layer.layer, f"{PREFIX}{layer.tree}"}),
            lock=f"docker-{path.stem}",
            about={"tree": layer.tree},
            needs=frozenset({layer.environment}),
        )


def discard(item: Stored, store: Path) -> None:
    """Remove one of `stored`: the image first, then what says that it is there."""
    for name in item.names:
        if name.startswith("sha256:"):
            docker_sdk.release(name, store)
    path = (
        made_path(store, item.name, "docker")
        if item.kind == "environment"
        else store / "layers" / "docker" / f"{item.name}.json"
    )
    path.unlink(missing_ok=True)


def _size(image: str) -> int | None:
    try:
        found = docker_sdk.inspect(image)
    except LaunchError:
        return None
    return int(found["Size"]) if found else 0


def _since(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
