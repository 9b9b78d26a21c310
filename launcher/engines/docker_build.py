"""Makes the images of the docker engine: the environment by BuildKit, the code as a layer on top; pushed where there is a registry.

BuildKit and not the SDK's builder, for its secrets: what leads to a site's package index is in no layer and in no history."""

import hashlib
import re
import tempfile
from pathlib import Path
from typing import Final

from jobs.files import now
from launcher.engines import ImageRequest, Say, Workshop, docker_sdk
from launcher.engines.contained import (
    Layer,
    made,
    modules,
    pip_configuration,
    write_context,
)
from launcher.errors import ExitCode, fail
from launcher.gittree import tree_hash
from launcher.process import follow, run
from launcher.store import Made, locked

STEP: Final = re.compile(r"^#\d+ (\[.*)$")
"""A step of BuildKit's plain progress."""
CA: Final = "/run/secrets/ca.pem"


def environment(request: ImageRequest, workshop: Workshop, say: Say) -> Made:
    """Find or make the environment's image. Raises LaunchError (IMAGE)."""
    name = f"docker-{request.key}"
    known = Made.read(workshop.store, request.key, "docker")
    if known is not None and docker_sdk.inspect(known.environment):
        return known
    with locked(workshop.store, name):
        known = Made.read(workshop.store, request.key, "docker")
        if known is None or not (docker_sdk.inspect(known.environment) or _pulled(known, say)):
            known = _build(request, workshop, say).write(workshop.store)
        docker_sdk.hold(known.environment, workshop.store)
        return known


def _pulled(known: Made, say: Say) -> bool:
    if known.manifest is None:
        return False
    say(f"pulling {known.manifest}")
    docker_sdk.pull(known.manifest)
    return docker_sdk.inspect(known.environment) is not None


def _build(request: ImageRequest, workshop: Workshop, say: Say) -> Made:
    say(f"building environment {request.key[:12]} from {request.recipe} on {request.base}")
    options = workshop.build
    with tempfile.TemporaryDirectory(prefix="samebits-") as scratch:
        context, secrets = Path(scratch, "context"), Path(scratch, "secrets")
        context.mkdir()
        secrets.mkdir(mode=0o700)
        write_context(request, context)
        argv = ["docker", "build", "--progress", "plain", "--file", str(context / (request.recipe or ""))]
        argv += ["--iidfile", str(Path(scratch, "id")), "--tag", f"samebits/environment:{request.key[:32]}"]
        argv += ["--build-arg", f"BASE={request.base}", "--build-arg", f"LOCK={request.lock}"]
        argv += ["--build-arg", f"CUDA_LOCK={request.cuda_lock or ''}"]
        for key, value in _labels(request).items():
            argv += ["--label", f"{key}={value}"]
        if options.network == "host":
            argv += ["--network", "host"]
        if options.ca_bundle is not None:
            argv += ["--secret", f"id=ca.pem,src={options.ca_bundle}"]
        if text := pip_configuration(options, CA if options.ca_bundle else None):
            (secrets / "pip.conf").write_text(text, encoding="utf-8")
            argv += ["--secret", f"id=pip.conf,src={secrets / 'pip.conf'}"]
        proxies = {f"{kind}_proxy": url for kind, url in options.proxies.items()}
        for proxy in proxies:  # by name: the value is in this process's environment alone
            argv += ["--build-arg", proxy, "--build-arg", proxy.upper()]
        given = {**proxies, **{proxy.upper(): url for proxy, url in proxies.items()}, "DOCKER_BUILDKIT": "1"}

        def each(line: str) -> None:
            if step := STEP.match(line):
                say(f"  {step[1][:160]}")

        done = follow([*argv, str(context)], each, env=given, kind=ExitCode.IMAGE)
        if not done.ok:
            hint = "What the build said last is below. The recipe runs by hand as well: docker build -f RECIPE ."
            places = [
                *options.proxies.values(),
                options.index_url or "",
                *options.extra_index_urls,
                *options.find_links,
            ]
            evidence = _without(done.evidence(), places)
            raise fail(
                ExitCode.IMAGE,
                "The environment could not be built.",
                where=request.recipe or "",
                hint=hint,
                evidence=evidence,
            )
        image = Path(scratch, "id").read_text(encoding="utf-8").strip()
    found = made(request, image, look_inside(image, modules(request)))
    if workshop.registry is None:
        return found
    manifest = docker_sdk.push(image, f"{workshop.registry.address}/environment", request.key[:32])
    say(f"pushed {manifest}")
    return made(request, image, look_inside(image, ()), manifest)


def _without(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***") if secret else text
    return text


def look_inside(image: str, names: tuple[str, ...]) -> dict[str, object]:
    """The report of launcher/image/inside.py. Raises LaunchError (IMAGE) where no Python answers."""
    from launcher.image.inside import arguments, read_report

    argv = ["docker", "run", "--rm", "--pull", "never", "--network", "none", "--entrypoint", "python", image]
    done = run([*argv, *arguments(names)], timeout=600, kind=ExitCode.IMAGE)
    try:
        return read_report(done.stdout)
    except ValueError as error:
        hint = "The recipe must leave a `python` on PATH: ENV PATH=/opt/venv/bin:..."
        what = "No Python answers in the image."
        raise fail(ExitCode.IMAGE, what, where=image, hint=hint, evidence=done.evidence()) from error


def _labels(request: ImageRequest) -> dict[str, str]:
    base, _, digest = (request.base or "").partition("@")
    labels = {
        "org.opencontainers.image.base.name": base,
        "org.opencontainers.image.base.digest": digest,
        "org.opencontainers.image.source": request.origin or "",
        "samebits.environment.key": request.key,
        "samebits.lock": f"sha256:{request.lock_sha256}",
    }
    return {key: value for key, value in labels.items() if value}


def code_layer(request: ImageRequest, environment: Made, workshop: Workshop, say: Say) -> Layer:
    """Find or make the image that is run: the environment with the code on top, pushed where there is a registry."""
    store, tree = workshop.store, request.code_tree
    known = Layer.read(store, "docker", environment.environment, tree)
    if known is None or docker_sdk.inspect(known.layer) is None:
        with locked(store, f"docker-{environment.environment.removeprefix('sha256:')[:32]}-{tree}"):
            known = Layer.read(store, "docker", environment.environment, tree)
            if known is None or docker_sdk.inspect(known.layer) is None:
                known = _layer(request, environment, known, say).write(store)
                docker_sdk.hold(known.layer, store)
    if workshop.registry is not None and known.manifest is None:
        repository = f"{workshop.registry.address}/run"
        manifest = docker_sdk.push(known.layer, repository, f"{tree[:12]}-{request.key[:12]}")
        say(f"pushed {manifest}")
        known = Layer(known.engine, known.environment, tree, known.layer, known.time, manifest).write(store)
    return known


def _layer(request: ImageRequest, environment: Made, known: Layer | None, say: Say) -> Layer:
    from launcher.source import export

    if known is not None and known.manifest is not None:
        docker_sdk.pull(known.manifest)
        if docker_sdk.inspect(known.layer):
            return known
    with tempfile.TemporaryDirectory(prefix="samebits-code-") as scratch:
        folder = Path(scratch, "code")
        folder.mkdir()
        export(request.repository, request.code_tree, folder)
        if (found := tree_hash(folder)) != request.code_tree:
            raise fail(
                ExitCode.IMAGE, f"The exported code has the hash {found}, not {request.code_tree}.", where=str(folder)
            )
        labels = {
            "org.opencontainers.image.revision": request.commit,
            "samebits.code": request.code_tree,
            "samebits.environment": environment.environment,
        }
        tag = (
            f"samebits/run:{request.code_tree[:12]}-{hashlib.sha256(environment.environment.encode()).hexdigest()[:12]}"
        )
        image = docker_sdk.add_code(environment.environment, folder, labels, tag)
    below, here = docker_sdk.inspect(environment.environment), docker_sdk.inspect(image)
    if (
        below is None
        or here is None
        or here["RootFS"]["Layers"][: len(below["RootFS"]["Layers"])] != below["RootFS"]["Layers"]
    ):
        raise fail(ExitCode.IMAGE, "The code's image does not stand on the environment's.", where=image)
    say(f"code of {request.commit[:10]} -> {image[:19]}")
    return Layer("docker", environment.environment, request.code_tree, image, now())
