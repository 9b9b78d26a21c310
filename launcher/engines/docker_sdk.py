"""The one door to the Docker SDK: questions to the engine, the code layer, push and pull. Loads it where it is used."""

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from launcher.engines.transient import patiently
from launcher.errors import ExitCode, LaunchError, fail

if TYPE_CHECKING:
    from docker import DockerClient

HELD: Final = "samebits/store-"
"""Begins the names by which stores hold images."""
TIMEOUT: Final = 600
"""Seconds; pushing a layer of gigabytes gives no sign of life for a while."""


@contextmanager
def client(seconds: int = TIMEOUT) -> "Iterator[DockerClient]":
    """A client of the engine that the command `docker` would use. Raises LaunchError (IMAGE) in Docker's own words.

    `seconds`: how long it may be silent."""
    import docker
    import requests

    try:
        found = _connected(seconds)
        try:
            yield found
        finally:
            found.close()
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        words = str(getattr(error, "explanation", None) or error)
        if isinstance(error, docker.errors.APIError):  # it answers, and says no
            raise fail(ExitCode.IMAGE, f"Docker refused: {words}") from error
        if "Permission denied" in words:
            hint = "Ask for membership of the group `docker`, or use rootless Docker; or image: {engine: apptainer}."
            raise fail(ExitCode.IMAGE, "The Docker engine may not be used by you.", hint=hint) from error
        if isinstance(error, requests.exceptions.RequestException) or "Error while fetching server" in words:
            hint = "Start it, or set DOCKER_HOST; `docker info` must answer."
            raise fail(ExitCode.IMAGE, "No Docker engine answers.", hint=hint, evidence=words) from error
        raise fail(ExitCode.IMAGE, "Docker refused.", evidence=words) from error


def _connected(seconds: int) -> "DockerClient":
    """As `docker` chooses: $DOCKER_HOST, else the context that is in use. The SDK by itself knows the first only."""
    import docker
    from docker.context import Context
    from docker.context.config import get_current_context_name

    name = os.environ.get("DOCKER_CONTEXT") or get_current_context_name()
    if os.environ.get("DOCKER_HOST") or name == "default":
        return docker.from_env(timeout=seconds)
    found = Context.load_context(name)
    if not found:
        raise fail(ExitCode.IMAGE, f"The Docker context {name} is not there.", hint="docker context ls")
    return docker.DockerClient(base_url=found.Host, tls=found.TLSConfig, timeout=seconds)


def inspect(image: str) -> dict[str, Any] | None:
    """What the engine knows of an image, by its id or a name; None when it has none."""
    from docker.errors import ImageNotFound

    with client() as engine:
        try:
            return dict(engine.api.inspect_image(image))  # type: ignore[no-untyped-call]
        except ImageNotFound:
            return None


def load(archive: IO[bytes]) -> None:
    """Give the engine an image as `docker save` writes it."""
    with client() as engine:
        for line in engine.api.load_image(archive):  # type: ignore[no-untyped-call]
            if "error" in line:
                raise fail(ExitCode.IMAGE, f"Docker did not load it: {line['error']}")


def build(recipe: str, layer: IO[bytes], labels: Mapping[str, str], tag: str) -> str:
    """Let the engine build an image from a Dockerfile of few lines, and `layer.tar` beside it. Returns its id."""
    with client() as engine, tempfile.TemporaryFile() as context:
        with tarfile.open(fileobj=context, mode="w") as archive:
            text = recipe.encode()
            for name, file, size in (("Dockerfile", BytesIO(text), len(text)), ("layer.tar", layer, layer.seek(0, 2))):
                member = tarfile.TarInfo(name)
                member.size = size
                file.seek(0)
                archive.addfile(member, file)
        context.seek(0)
        said = []
        for line in engine.api.build(
            fileobj=context, custom_context=True, rm=True, forcerm=True, decode=True, labels=dict(labels), tag=tag
        ):
            said.append(str(line.get("stream") or line.get("error") or ""))
            if "aux" in line and "ID" in line["aux"]:
                return str(line["aux"]["ID"])
    raise fail(ExitCode.IMAGE, "Docker made no image of the code.", evidence="".join(said))


def push(image: str, repository: str, tag: str) -> str:
    """Push an image. Returns ``REPOSITORY@sha256:`` of its manifest: the tag is for people, nothing is ever pulled by it to run."""
    return patiently(lambda: _push(image, repository, tag))


def _push(image: str, repository: str, tag: str) -> str:
    with client() as engine:
        engine.api.tag(image, repository, tag)
        for line in engine.api.push(repository, tag, stream=True, decode=True):
            if "error" in line:
                hint = f"docker login {repository.partition('/')[0]}"
                raise fail(ExitCode.IMAGE, f"The registry did not take {repository}: {line['error']}.", hint=hint)
            if digest := (line.get("aux") or {}).get("Digest"):
                return f"{repository}@{digest}"
    raise fail(ExitCode.IMAGE, f"The registry named no digest for {repository}.")


def pull(reference: str) -> None:
    """Pull ``NAME@sha256:`` (or, to learn of a digest, NAME:TAG). The engine compares every blob with its digest."""
    patiently(lambda: _pull(reference))


def _pull(reference: str) -> None:
    with client() as engine:
        for line in engine.api.pull(reference, stream=True, decode=True):
            if "error" in line:
                raise fail(ExitCode.IMAGE, f"{reference} cannot be pulled: {line['error']}.")


def hold(image: str, store: Path) -> None:
    """Give an image a name that says that this store uses it. An engine serves many stores, each with its own experiments."""
    with client() as engine:
        engine.api.tag(image, _holder(store), image.removeprefix("sha256:")[:32])


def release(image: str, store: Path) -> None:
    """Take that name away, and the image with it unless another store holds it; one that a container uses is left."""
    from docker.errors import APIError, ImageNotFound

    with client() as engine:
        with suppress(ImageNotFound):
            engine.api.remove_image(f"{_holder(store)}:{image.removeprefix('sha256:')[:32]}", noprune=True)
        names = (inspect(image) or {}).get("RepoTags") or []
        if not any(str(name).startswith(HELD) for name in names):
            with suppress(APIError):  # it is gone, or a container uses it
                engine.api.remove_image(image, force=True)


def _holder(store: Path) -> str:
    return f"{HELD}{hashlib.sha256(str(store.resolve()).encode()).hexdigest()[:12]}"


def health() -> LaunchError | None:
    """Why no engine can be used; None when one answers."""
    try:
        with client() as engine:
            engine.ping()
    except LaunchError as error:
        return error
    return None
