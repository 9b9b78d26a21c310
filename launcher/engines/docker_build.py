"""Makes the images of the docker engine: the environment by BuildKit, the code as a layer on top; pushed where there is a registry.

BuildKit and not the SDK's builder, for its secrets: what leads to a site's package index is in no layer and in no history."""

import hashlib
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeGuard

from jobs.files import now
from launcher.engines import BuildOptions, ImageRequest, Registry, Say, Workshop, docker_layer, docker_sdk
from launcher.engines.build_log import BuildLog
from launcher.engines.contained import Layer, made, modules, pip_configuration, write_context
from launcher.errors import ExitCode, fail
from launcher.gittree import tree_hash
from launcher.process import follow, run
from launcher.store import Made, locked

STEP: Final = re.compile(r"^#\d+ (\[.*)$")
"""A step of BuildKit's plain progress."""
CA: Final = "/run/secrets/ca.pem"
HINTS: Final = (
    ("o space left on device", "Make room where Docker keeps images: launch image prune; docker builder prune; docker system df"),
    ("CERTIFICATE_VERIFY_FAILED", "Name the site's certificates: build.ca_bundle in slurm/sites/NAME.yaml."),
    ("THESE PACKAGES DO NOT MATCH THE HASHES", "The index has other files than those that are locked. Write it anew: make lock"),
    ("failed to resolve source metadata", "The base cannot be had: is its registry reachable from here? docker pull BASE"),
    ("failed to solve with frontend dockerfile.v0: failed to create LLB definition", "Can the base be had? docker pull BASE"),
    ("buildx component is missing", "This client builds by a plugin: apt-get install docker-buildx-plugin (or docker-buildx)."),
)  # fmt: skip
"""Words of a failed build, and what can be done. The first that fits is shown."""


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
    prefix = f"samebits-docker-{request.key[:32]}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):  # of a builder that was killed: the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    log = BuildLog(workshop.build, say, lambda line: step[1] if (step := STEP.match(line)) else None)
    keep = True
    try:
        with tempfile.TemporaryDirectory(prefix=prefix) as scratch:
            argv, given = _command(request, workshop.build, Path(scratch))
            done = follow(argv, log.line, env=given, kind=ExitCode.IMAGE)
            if not done.ok:
                raise log.failure(done.code, request.recipe or "", HINTS)
            image = Path(scratch, "id").read_text(encoding="utf-8").strip()
        keep = False
    finally:
        log.close(keep=keep)
    say("looking inside")
    found = made(request, image, look_inside(image, modules(request)))  # refused before anything is published
    if workshop.registry is not None:
        found = replace(found, manifest=_push(image, workshop.registry, "environment", request.key[:32], say))
    return found


def _command(request: ImageRequest, build: BuildOptions, scratch: Path) -> tuple[list[str], dict[str, str]]:
    """`docker build`, and what it finds in its environment: the proxies, which so stand in no command line.

    The context is made in `scratch`, of the ingredients and nothing else. The image's id comes to `scratch`/id."""
    context, secrets = scratch / "context", scratch / "secrets"
    context.mkdir()
    secrets.mkdir(mode=0o700)
    write_context(request, context)
    for path in (context, *context.rglob("*")):  # whatever the umask is here
        path.chmod(0o755 if path.is_dir() else 0o644)
    argv = ["docker", "build", "--progress", "plain", "--file", str(context / (request.recipe or ""))]
    argv += ["--iidfile", str(scratch / "id"), "--tag", f"samebits/environment:{request.key[:32]}"]
    argv += ["--build-arg", f"BASE={request.base}", "--build-arg", f"LOCK={request.lock}"]
    argv += ["--build-arg", f"CUDA_LOCK={request.cuda_lock or request.lock}"]
    for key, value in _labels(request).items():
        argv += ["--label", f"{key}={value}"]
    if build.network == "host":
        argv += ["--network", "host"]
    if build.ca_bundle is not None:
        argv += ["--secret", f"id=ca.pem,src={build.ca_bundle}"]
    if text := pip_configuration(build, CA if build.ca_bundle else None):
        (secrets / "pip.conf").write_text(text, encoding="utf-8")
        argv += ["--secret", f"id=pip.conf,src={secrets / 'pip.conf'}"]
    given = {"DOCKER_BUILDKIT": "1"}
    for kind, url in build.proxies.items():
        for name in (f"{kind}_proxy", f"{kind}_proxy".upper()):
            given[name] = url
            argv += ["--build-arg", name]
    return [*argv, str(context)], given


def _push(image: str, registry: Registry, name: str, tag: str, say: Say) -> str:
    manifest = docker_sdk.push(image, f"{registry.address}/{name}", tag)
    say(f"pushed {manifest}")
    return manifest


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
    name = f"docker-{environment.environment.removeprefix('sha256:')[:32]}-{tree}"
    known = Layer.read(store, "docker", environment.environment, tree)
    if _stands(known, workshop.registry):
        return known
    with locked(store, name):
        known = Layer.read(store, "docker", environment.environment, tree)
        if known is None or docker_sdk.inspect(known.layer) is None:
            known = _layer(request, environment, known, say).write(store)
            docker_sdk.hold(known.layer, store)
        registry = workshop.registry
        if registry is not None and not _stands(known, registry):
            manifest = _push(known.layer, registry, "run", f"{tree[:12]}-{request.key[:12]}", say)
            known = replace(known, manifest=manifest).write(store)
        return known


def _stands(layer: Layer | None, registry: Registry | None) -> TypeGuard[Layer]:
    """Whether the engine has it, and the site's registry too."""
    if layer is None or docker_sdk.inspect(layer.layer) is None:
        return False
    return registry is None or (layer.manifest or "").startswith(f"{registry.address}/")


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
        image = docker_layer.add_code(environment.environment, folder, labels, tag)
    below, here = docker_sdk.inspect(environment.environment), docker_sdk.inspect(image)
    if (
        below is None
        or here is None
        or here["RootFS"]["Layers"][: len(below["RootFS"]["Layers"])] != below["RootFS"]["Layers"]
    ):
        raise fail(ExitCode.IMAGE, "The code's image does not stand on the environment's.", where=image)
    say(f"code of {request.commit[:10]} -> {image[:19]}")
    return Layer("docker", environment.environment, request.code_tree, image, now())
