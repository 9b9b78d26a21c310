"""Makes the environment's SIF: from the definition, or from the Docker image of the Dockerfile. As an ordinary user."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from launcher.engines import ImageRequest, Say, Workshop
from launcher.engines.apptainer_node import SIF
from launcher.engines.apptainer_program import ELSEWHERE, environment, program
from launcher.engines.build_log import BuildLog
from launcher.engines.contained import made, modules, own_variables, pip_configuration, write_context
from launcher.errors import ExitCode, LaunchError, fail
from launcher.process import follow, run
from launcher.store import Made, blob_path, locked, publish_blob, remove

COMPRESSION: Final = "-comp zstd -Xcompression-level 6"
SITE: Final = Path("/mnt")
"""Where the steps of a build see what leads to the site's index: a folder that every base has, empty in the image."""
REMARKS: Final = ("User not listed", "The %post section will", "Non-gzip", "To see mksquashfs", "Build complete")
HINTS: Final = (
    ("No space left on device", "Free some, or build elsewhere on this machine: TMPDIR=/path/with/space launch ..."),
    ("user namespace", f"This machine does not let users build images.\n{ELSEWHERE}"),
    ("newuidmap", f"The administrator must give this user a range in /etc/subuid.\n{ELSEWHERE}"),
    ("server gave HTTP response to HTTPS client", "A registry without TLS: set registry.insecure in slurm/sites/NAME.yaml."),
    ("CERTIFICATE_VERIFY_FAILED", "Name the site's certificates: build.ca_bundle in slurm/sites/NAME.yaml."),
    ("after connection broken", "A package index does not answer: see build in slurm/sites/NAME.yaml (index_url, proxies)."),
    ("pinging container registry", "The registry of the base does not answer."),
)  # fmt: skip
"""Words of a failed build, and what can be done. The first that fits is shown."""


def sif_environment(request: ImageRequest, workshop: Workshop, say: Say) -> Made:
    """Find or make the environment. Whoever comes meanwhile waits for the one build. Raises LaunchError (IMAGE)."""
    if (known := _known(request, workshop.store)) is not None:
        return known
    with locked(workshop.store, f"apptainer-{request.key}"):
        if (known := _known(request, workshop.store)) is not None:
            return known
        _clear(request, workshop.store)
        return _make(request, workshop, say).write(workshop.store)


def _known(request: ImageRequest, store: Path) -> Made | None:
    found = Made.read(store, request.key, "apptainer")
    return found if found is not None and blob_path(store, found.environment, SIF).exists() else None


def _prefix(request: ImageRequest) -> str:
    return f"samebits-build-{request.key[:32]}-"


def _clear(request: ImageRequest, store: Path) -> None:
    """What a killed builder left: nobody else builds this while the lock is held."""
    left = [
        *Path(tempfile.gettempdir()).glob(f"{_prefix(request)}*"),
        *(store / "blobs").glob(f".{_prefix(request)}*.tmp"),
    ]
    for path in left:
        try:
            if path.lstat().st_uid == os.getuid():
                remove(path)
        except OSError:  # files of a namespace's other users; they are in nobody's way
            continue


def _make(request: ImageRequest, workshop: Workshop, say: Say) -> Made:
    store = workshop.store
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=_prefix(request)))
    place = Path(tempfile.mkdtemp(prefix=f".{_prefix(request)}", suffix=".tmp", dir=store / "blobs"))
    try:
        file = place / "environment.sif"
        from_ = _from_docker(request, workshop, say) if request.build == "dockerfile" else None
        say(f"building environment {request.key[:12]} from {request.recipe} on {request.base}")
        _build(request, workshop, (scratch, file), from_, say)
        say("looking inside")
        report = look_inside(file, modules(request))
        found = made(request, "", report)  # refused before anything is published
        digest = publish_blob(store, SIF, lambda new: os.replace(file, new))  # noqa: PTH105 - returns nothing
        say(f"environment {digest[:19]}, {blob_path(store, digest, SIF).stat().st_size / 1e6:.0f} MB")
        more = {"docker": from_} if from_ else {}
        return replace(found, environment=digest, made_from={**found.made_from, **more})
    except OSError as error:
        where = str(error.filename or store)
        raise fail(ExitCode.IMAGE, f"The environment cannot be written: {error.strerror}.", where=where) from error
    finally:
        for folder in (scratch, place):
            _remove(folder)


def _remove(folder: Path) -> None:
    try:
        remove(folder)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)


def _from_docker(request: ImageRequest, workshop: Workshop, say: Say) -> str:
    """The id of the Docker image of the same environment."""
    from launcher.engines import docker

    if problems := docker.health():
        raise LaunchError(ExitCode.IMAGE, problems)
    return docker.environment(replace(request, engine="docker"), workshop, say).environment


def _build(request: ImageRequest, workshop: Workshop, places: tuple[Path, Path], docker: str | None, say: Say) -> None:
    scratch, file = places
    context, site, temporary = scratch / "context", scratch / "site", scratch / "tmp"
    for folder in (context, site, temporary):
        folder.mkdir(mode=0o755)
    argv = [program(), "build", "--force", "--mksquashfs-args", COMPRESSION]
    variables = {"APPTAINER_TMPDIR": str(scratch), "TMPDIR": str(scratch)}
    if docker is not None:
        argv += [str(file), f"docker-daemon:{docker}"]
        variables |= own_variables("HOME", "DOCKER_HOST", "DOCKER_CONFIG")
    else:
        write_context(request, context)
        for path in context.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        for name, value in (
            ("BASE", request.base or ""),
            ("LOCK", request.lock),
            ("CUDA_LOCK", request.cuda_lock or request.lock),
        ):
            argv += ["--build-arg", f"{name}={value}"]
        argv += ["--warn-unused-build-args", *_plain_http(request, workshop)]
        # Its steps see neither this machine's temporary files nor what this user has there.
        argv += ["--bind", f"{temporary}:/tmp", "--bind", f"{temporary}:/var/tmp", "--bind", f"{site}:{SITE}:ro"]
        argv += [str(file), str(request.recipe)]
        variables |= own_variables("HOME", "DOCKER_CONFIG") | _site(workshop, site)
    if "APPTAINER_CACHEDIR" in os.environ:
        variables["APPTAINER_CACHEDIR"] = os.environ["APPTAINER_CACHEDIR"]
    else:
        argv.insert(2, "--disable-cache")
    log = BuildLog(workshop.build, say, _progress)
    keep = True
    try:
        with _readable():
            done = follow(argv, log.line, cwd=context, env=environment(**variables), exactly=True, kind=ExitCode.IMAGE)
        if not done.ok or not file.exists():
            raise log.failure(done.code, request.recipe or "", HINTS)
        keep = False
    finally:
        log.close(keep=keep)


def _plain_http(request: ImageRequest, workshop: Workshop) -> list[str]:
    registry = workshop.registry
    if registry is None or not registry.insecure:
        return []
    return ["--no-https"] if (request.base or "").startswith(f"{registry.address.partition('/')[0]}/") else []


def _site(workshop: Workshop, folder: Path) -> dict[str, str]:
    """What leads to the site's index: files that are mounted for the time of the build, and the environment of its processes."""
    build = workshop.build
    found: dict[str, str] = {}
    ca = None
    if build.ca_bundle is not None:
        shutil.copyfile(build.ca_bundle, folder / "ca.pem")
        (folder / "ca.pem").chmod(0o644)
        ca = str(SITE / "ca.pem")
        found |= {f"APPTAINERENV_{name}": ca for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")}
        found["SSL_CERT_FILE"] = build.ca_bundle  # Apptainer's own, for the base's registry
    if text := pip_configuration(build, ca):
        (folder / "pip.conf").write_text(text, encoding="utf-8")
        found["APPTAINERENV_PIP_CONFIG_FILE"] = str(SITE / "pip.conf")
    for kind, value in build.proxies.items():
        for name in (f"{kind}_proxy", f"{kind}_proxy".upper()):
            found[name] = value
    return found


def _progress(line: str) -> str | None:
    """What Apptainer says of its steps, without its remarks on the machine."""
    words = line.removeprefix("INFO:").strip()
    return words if line.startswith("INFO:") and not words.startswith(REMARKS) else None


@contextmanager
def _readable() -> Iterator[None]:
    """What a build writes can be read by whoever runs it, whatever this user's umask is."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def look_inside(sif: Path, names: tuple[str, ...]) -> Mapping[str, Any]:
    """The report of launcher/image/inside.py. Raises LaunchError (IMAGE) where no Python answers."""
    from launcher.image.inside import arguments, read_report

    with tempfile.TemporaryDirectory(prefix="samebits-inside-") as scratch:
        argv = [
            program(),
            "--silent",
            "exec",
            "--cleanenv",
            "--contain",
            "--no-home",
            "--no-mount",
            "home,cwd,bind-paths",
        ]
        argv += ["--workdir", scratch, str(sif), "python", *arguments(names)]
        variables = environment(HOME=scratch, APPTAINERENV_PYTHONNOUSERSITE="1")
        done = run(argv, env=variables, exactly=True, timeout=1200, kind=ExitCode.IMAGE)
    try:
        return read_report(done.stdout)
    except ValueError as error:
        hint = "The recipe must leave a `python` on PATH: %environment with export PATH=/opt/venv/bin:$PATH"
        what = "No Python answers in the image."
        raise fail(ExitCode.IMAGE, what, where=str(sif), hint=hint, evidence=done.evidence()) from error
